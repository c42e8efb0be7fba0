"""Memory of one study is kept for the next, and given back in a pause."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from outpost.inference import child, heap

_TAKE_AND_FREE = """
import numpy
from outpost.inference import heap
# Two blocks: the second one lies above, so that the first cannot go by a shorter heap.
first, second = (numpy.ones(200 << 20, numpy.uint8) for _ in range(2))
held = heap.resident_mib()
del first
freed = heap.resident_mib()
heap.give_back()
print(held, freed, heap.resident_mib())
"""


def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TAKE_AND_FREE],
        env=heap.keeping(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    held, freed, given_back = (int(number) for number in done.stdout.split())
    assert freed > held - 20
    assert given_back < held - 180


def test_tunables_of_the_environment_win() -> None:
    assert heap.keeping({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1"})["GLIBC_TUNABLES"].endswith(
        ":glibc.malloc.mmap_threshold=1"
    )


def test_requests_come_whole_and_a_long_pause_gives_the_heap_back_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back = threading.Semaphore(0)
    monkeypatch.setattr(heap, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(heap, "give_back", given_back.release)
    reading, writing = os.pipe()
    requests = child._requests(reading)
    os.write(writing, b'{"a": 1}\n{"b"')
    assert next(requests) == b'{"a": 1}'
    threading.Timer(0.5, os.write, (writing, b": 2}\n")).start()
    assert next(requests) == b'{"b": 2}'
    assert given_back.acquire(timeout=0)
    assert not given_back.acquire(timeout=0)
    os.close(writing)
    assert list(requests) == []
    os.close(reading)
