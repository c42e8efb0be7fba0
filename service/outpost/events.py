"""What the service decides by itself, or is told to do by a person, and tells later: stable codes in the journal.

Codes are an interface (journal, API, runbooks): never renamed or reused.
"""

from __future__ import annotations

from enum import StrEnum


class EventCode(StrEnum):
    """Kinds of events; the detail beside each names rung, cause and the like, never a patient."""

    RECEIVE_ONLY_BEGUN = "RECEIVE_ONLY_BEGUN"  # computing failed too often of one cause: studies wait
    RECEIVE_ONLY_ENDED = "RECEIVE_ONLY_ENDED"  # the golden case passes again
    LADDER_DOWN = "LADDER_DOWN"  # a rung failed, a lower one is used
    LADDER_UP = "LADDER_UP"  # a rung that had failed works again
    LADDER_RESET = "LADDER_RESET"  # an administrator had forgotten which rungs failed
    ENGINE_MEASURED = "ENGINE_MEASURED"  # the engines were measured on this host and one was chosen
    WORKERS_REDUCED = "WORKERS_REDUCED"  # the system's memory does not hold as many workers as configured
    FILTER_RULES_CHANGED = (
        "FILTER_RULES_CHANGED"  # another rule set judges from now on; the detail has its digest
    )
    FILTER_RULES_REFUSED = (
        "FILTER_RULES_REFUSED"  # the rule file on disk is wrong; the rule set before it judges
    )
    SERVICE_DIED = "SERVICE_DIED"  # the service ended without being asked to
    QUARANTINE_EVICTED = "QUARANTINE_EVICTED"  # a quota was reached: files of the oldest leave quarantine
    STUDY_RESUBMITTED = "STUDY_RESUBMITTED"  # an administrator had a study computed again
    FILE_RESUBMITTED = "FILE_RESUBMITTED"  # an administrator had a refused file offered to intake again
    STUDY_HELD = (
        "STUDY_HELD"  # images are missing: the study waits for them, at the latest until its forced time
    )
    REVISIONS_HELD = "REVISIONS_HELD"  # a study was reopened too often: its next revision waits
    RESULT_RETURNED = "RESULT_RETURNED"  # somebody routes results of ours back to us
    DELIVERY_REFUSED = (
        "DELIVERY_REFUSED"  # a destination refuses a result for a reason that repetition cannot cure
    )
    DELIVERY_REMARKED = "DELIVERY_REMARKED"  # a destination stored a result with a warning
    SENDER_REFUSED = "SENDER_REFUSED"  # an association, or a context of one, was refused
    DRIFT_BEGUN = "DRIFT_BEGUN"  # what a sender sends, or what becomes of it, differs from the reference
    DRIFT_ENDED = "DRIFT_ENDED"  # it no longer does, or the reference is another
    BACKUP_RESTORED = "BACKUP_RESTORED"  # the storage was filled from a backup
    JOURNAL_REBUILT = (
        "JOURNAL_REBUILT"  # the journal was damaged: put aside, read as far as it can be, and rebuilt
    )
    JOURNAL_ASIDE_REMOVED = (
        "JOURNAL_ASIDE_REMOVED"  # a damaged journal that was put aside gave way to newer ones
    )
    STUDIES_RECONCILED = (
        "STUDIES_RECONCILED"  # what only the region's database held as pending got an end there
    )
    FILE_PUT_ASIDE = (
        "FILE_PUT_ASIDE"  # a file of the service's own was damaged: put aside, and what is used instead
    )
