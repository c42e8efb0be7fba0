"""Descriptors: what the service needs for itself is set aside before any peer gets one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from outpost.descriptors import TooFewDescriptors, share


@pytest.mark.parametrize("limit", [512, 1024, 4096, 1 << 20])
@pytest.mark.parametrize("associations", [1, 32])
def test_no_share_is_taken_from_what_the_service_needs(limit: int, associations: int) -> None:
    shares = share(limit, associations)
    spent = shares.waiting + shares.http + shares.http // 2 + 66 * shares.storing
    assert limit - spent >= 100 + 6 * associations
    assert min(shares.waiting, shares.http, shares.storing) >= 1


def test_too_few_are_refused_with_the_number_and_the_remedy() -> None:
    with pytest.raises(
        TooFewDescriptors, match=r"may open 256 descriptors, 512 are needed for 32 .*LimitNOFILE="
    ):
        share(256, 32)


def test_the_limit_is_raised_as_far_as_the_process_may_itself() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 2000));"
        "from outpost.descriptors import provide; print(provide(32), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "(2000, 2000)" in told
