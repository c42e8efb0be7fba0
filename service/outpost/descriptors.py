"""How many descriptors this process may open, and who gets how many of them.

What the service needs for itself (journal, spool, workers, deliveries) and for its associations is set aside first;
connections that have asked for nothing yet, and HTTP, get what is left, and less where the limit is low.
"""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

from outpost.listening import QUEUES

log = logging.getLogger(__name__)

# Journal and its readers, workers' pipes, deliveries, the region's database, files being moved: 192; and the queues of
# both ports.
_OWN = 192 + 2 * QUEUES
_OF_ASSOCIATION = 6  # socket, wake-up, file that arrives, and what taking it opens
_OF_STORING = 66  # a request of STOW-RS has up to 64 files open until they are taken together
_LEAST_LEFT = 64
_ENOUGH = 8192


class TooFewDescriptors(Exception):
    """The service could not do its work with so few; the text says how many it needs, and what to do."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many connections and requests there may be at a time."""

    waiting: int  # connections to the DICOM port that have asked for nothing yet
    http: int  # connections, and as many again by half that have asked for nothing yet
    storing: int  # requests of STOW-RS


def share(limit: int, associations: int) -> Shares:
    """Share a limit out. Raises `TooFewDescriptors`."""
    kept = _OWN + _OF_ASSOCIATION * associations
    if limit < kept + _LEAST_LEFT:
        raise TooFewDescriptors(
            f"this process may open {limit} descriptors, {kept + _LEAST_LEFT} are needed for {associations} "
            "associations (intake.max_associations): raise the limit (LimitNOFILE= of the unit, ulimit -n, --ulimit "
            "nofile= of the container), or lower intake.max_associations"
        )
    left = min(limit, _ENOUGH) - kept
    waiting = min(256, left // 4)
    http = min(256, left // 4)
    storing = max(1, min(16, (left - waiting - http - http // 2) // _OF_STORING))
    return Shares(waiting, http, storing)


def provide(associations: int) -> Shares:
    """Raise this process' limit as far as it may itself, and share it out. Raises `TooFewDescriptors`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    limit = _ENOUGH if soft == resource.RLIM_INFINITY else soft
    shares = share(limit, associations)
    if shares.storing < 4:
        log.warning(
            "this process may open %d descriptors: only %d HTTP connections and %d STOW requests at a time are taken; "
            "raise the limit (LimitNOFILE= of the unit)",
            limit,
            shares.http,
            shares.storing,
        )
    return shares
