"""When a region is tried again."""

from __future__ import annotations

import random

from outpost.fleet.config import Sync


def success_delay(settings: Sync) -> float:
    """Seconds to the next pass after one that went well: the period, spread so that regions do not march."""
    return settings.period_seconds * random.uniform(0.9, 1.0)  # noqa: S311 - spreads load, guards nothing


def failure_delay(settings: Sync, failures: int) -> float:
    """Seconds to the next attempt after `failures` in a row: doubling up to the limit, spread by a fifth."""
    pause = settings.period_seconds * 2.0 ** min(failures - 1, 30)
    return min(pause, settings.backoff_max_seconds) * random.uniform(0.8, 1.0)  # noqa: S311 - as above
