"""Ten thousand mutated DICOM files do not end intake, nor make it say what is not so (tests/faults/mutated_dicom.py).

A lane (tests/lanes/lanes.py): `make test-slow-mutated`. tests/faults/test_mutated_dicom.py has its first five hundred.
"""

from __future__ import annotations

from mutated_dicom import SEED, counted


def test_each_of_ten_thousand_files_is_taken_known_or_refused_with_its_bytes_kept() -> None:
    """In a process of limited memory; a file that takes more than 5 s of CPU ends it. Replay: mutated_dicom.py."""
    count = 10_000
    print(f"seed {SEED}, numbers 0 to {count - 1}")
    outcomes = counted(count)
    assert sum(outcomes.values()) == count
    assert {"TAKEN", "DUPLICATE", "NOT_DICOM", "UID_MISSING", "UID_UNSAFE", "CONTENT_CONFLICT"} <= set(
        outcomes
    )
    assert outcomes["TAKEN"] > count / 10, "most mutations must not die at the first look"
