"""When a delivery that failed is tried again, and how often a person is told of it."""

from __future__ import annotations

import logging

from outpost.config import Delivery as DeliveryConfig
from outpost.delivery.cause import HELD, Cause
from outpost.events import EventCode
from outpost.records.journal import Journal

log = logging.getLogger(__name__)


def pause_seconds(config: DeliveryConfig, attempts: int) -> float:
    """How long to wait after that many failed attempts in a row."""
    doublings = min(attempts - 1, 30)  # beyond, the cap has long been reached
    return min(config.retry_first_seconds * 2.0**doublings, config.retry_max_seconds)


def is_believed(config: DeliveryConfig, attempts: int) -> bool:
    """Whether a refusal that could be passing trouble was repeated until the pause was at its longest."""
    return pause_seconds(config, max(attempts, 1)) >= config.retry_max_seconds


def note_refused(journal: Journal, destination: str, cause: Cause, sentence: str, study: int) -> None:
    """Tell that a destination refuses a result for good: an event a day for each destination and cause."""
    journal.note_event_daily(
        EventCode.DELIVERY_REFUSED, f"{destination}: {cause}", f": {sentence} (study {study})"
    )


def note_remark(journal: Journal, destination: str, remark: str, study: int) -> None:
    """Tell that a destination stored a result with a warning: an event a day for each destination and status.

    That it held the result already is no warning: so it is after an answer that did not reach us.
    """
    status = remark.split(" ", 1)[0]
    if int(status, 16) in HELD:
        log.info("delivery of study %d to %s: %s", study, destination, remark)
        return
    new = journal.note_event_daily(
        EventCode.DELIVERY_REMARKED,
        f"{destination}: {status}",
        f"{remark.removeprefix(status)} (study {study})",
    )
    level = logging.WARNING if new else logging.INFO
    log.log(level, "delivery of study %d to %s: stored with a warning: %s", study, destination, remark)
