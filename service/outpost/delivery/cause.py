"""Why a result was not taken, as codes: what a peer's status means, and whether asking again can cure it.

The codes are an interface (metrics, journal, events): never renamed or reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Cure(Enum):
    """What may change the peer's answer."""

    TIME = "time"  # the same request may be taken later
    PERSON = "person"  # it will not be, until somebody changes the peer, us, or the result
    # By its meaning it needs a person, but peers also say it in passing trouble: believed once it has been said
    # until the pause between attempts was at its longest.
    PERSON_IF_REPEATED = "person-if-repeated"


class Cause(StrEnum):
    """Why a result was not delivered."""

    # No connection.
    NAME_NOT_RESOLVED = "name-not-resolved"
    CONNECTION_REFUSED = "connection-refused"
    NO_ROUTE = "no-route"
    TLS_FAILED = "tls-failed"
    # A connection, and no association.
    NO_ANSWER = "no-answer"
    CALLING_AE_NOT_RECOGNISED = "calling-ae-not-recognised"
    CALLED_AE_NOT_RECOGNISED = "called-ae-not-recognised"
    BUSY = "busy"
    ASSOCIATION_REJECTED = "association-rejected"
    ASSOCIATION_ABORTED = "association-aborted"
    # An association, and no presentation context for this result.
    SOP_CLASS_NOT_SUPPORTED = "sop-class-not-supported"
    TRANSFER_SYNTAX_NOT_SUPPORTED = "transfer-syntax-not-supported"
    CONTEXT_REJECTED = "context-rejected"
    # The result was sent, and refused.
    OUT_OF_RESOURCES = "out-of-resources"
    PROCESSING_FAILURE = "processing-failure"
    NOT_AUTHORISED = "not-authorised"
    ATTRIBUTE_REFUSED = "attribute-refused"
    INSTANCE_REFUSED = "instance-refused"
    DATA_SET_MISMATCH = "data-set-does-not-match-class"
    NOT_UNDERSTOOD = "cannot-understand"
    OPERATION_REFUSED = "operation-refused"
    DUPLICATE_INVOCATION = "duplicate-invocation"
    UNKNOWN_STATUS = "unknown-status"
    # Storage commitment.
    COMMITMENT_NOT_OFFERED = "commitment-not-offered"
    COMMITMENT_REFUSED = "commitment-refused"
    # HTTP.
    WRONG_ADDRESS = "wrong-address"
    TOO_LARGE = "too-large"
    REQUEST_REFUSED = "request-refused"
    SERVER_FAULT = "server-fault"
    NOT_NAMED = "instance-not-named"
    # Our own file.
    FILE_UNUSABLE = "file-unusable"


class NotSent(Exception):
    """The peer did not confirm; the text names what it said and what to do about it.

    `retry_seconds` is when the peer said it may be asked again; None where it did not say.
    """

    def __init__(
        self, text: str, cause: Cause, cure: Cure = Cure.TIME, retry_seconds: float | None = None
    ) -> None:
        super().__init__(text)
        self.cause = cause
        self.cure = cure
        self.retry_seconds = retry_seconds


class PeerUnreachable(NotSent):
    """No association, or it ended: trying further files now is useless."""


class Outcome(Enum):
    """What a status says of the instance."""

    STORED = "stored"
    REMARKED = "remarked"  # stored, with a warning
    HELD = "held"  # not stored now, as it is there already
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Status:
    """A status of C-STORE, or a Failure Reason (0008,1197) of the same numbers, and what follows from it."""

    code: int
    outcome: Outcome
    meaning: str
    cause: Cause = Cause.UNKNOWN_STATUS
    cure: Cure = Cure.TIME
    remedy: str = ""

    def __str__(self) -> str:
        return f"0x{self.code:04X} ({self.meaning})"


# Failure reasons by which a peer says that it holds the instance: PS3.7 C.4.5, and one of a server of Microsoft.
HELD = (0x0111, 0xB00E)

_ATTRIBUTE = "see its log for the attribute; report it to us with the SOP class if it names none"
_CLASS = "enable this SOP class at the peer"

# PS3.7 Annex C and PS3.4 B.2.3. Whether repetition cures a failure is our reading of its meaning: what speaks of
# the peer's state may pass, what speaks of the object or of the peer's configuration does not.
_SINGLE = {
    0x0000: (Outcome.STORED, "success"),
    0x0001: (Outcome.REMARKED, "optional attributes not supported"),
    0x0107: (Outcome.REMARKED, "attribute list error"),
    0x0116: (Outcome.REMARKED, "attribute value out of range"),
    0xB000: (Outcome.REMARKED, "coercion of data elements"),
    0xB006: (Outcome.REMARKED, "elements discarded"),
    0xB007: (Outcome.REMARKED, "data set does not match SOP class"),
    0x0111: (Outcome.HELD, "duplicate SOP instance: it is held already"),
}
_FAILED = {
    0x0105: ("no such attribute", Cause.ATTRIBUTE_REFUSED, Cure.PERSON, _ATTRIBUTE),
    0x0106: ("invalid attribute value", Cause.ATTRIBUTE_REFUSED, Cure.PERSON, _ATTRIBUTE),
    0x0110: ("processing failure", Cause.PROCESSING_FAILURE, Cure.TIME, "see its log"),
    0x0112: ("no such SOP instance", Cause.INSTANCE_REFUSED, Cure.PERSON, "see its log"),
    0x0113: ("no such event type", Cause.OPERATION_REFUSED, Cure.PERSON, "see its log"),
    0x0114: ("no such argument", Cause.OPERATION_REFUSED, Cure.PERSON, "see its log"),
    0x0115: ("invalid argument value", Cause.ATTRIBUTE_REFUSED, Cure.PERSON, _ATTRIBUTE),
    0x0117: ("invalid SOP instance", Cause.INSTANCE_REFUSED, Cure.PERSON, "see its log"),
    0x0118: ("no such SOP class", Cause.SOP_CLASS_NOT_SUPPORTED, Cure.PERSON, _CLASS),
    0x0119: (
        "class and instance do not match",
        Cause.INSTANCE_REFUSED,
        Cure.PERSON,
        "look there for an object of another class under this UID and remove it",
    ),
    0x0120: ("missing attribute", Cause.ATTRIBUTE_REFUSED, Cure.PERSON, _ATTRIBUTE),
    0x0121: ("missing attribute value", Cause.ATTRIBUTE_REFUSED, Cure.PERSON, _ATTRIBUTE),
    0x0122: ("SOP class not supported", Cause.SOP_CLASS_NOT_SUPPORTED, Cure.PERSON, _CLASS),
    0x0123: ("no such action", Cause.OPERATION_REFUSED, Cure.PERSON, "see its log"),
    # The peer's configuration, not its state: nothing but an administrator changes it.
    0x0124: ("not authorised", Cause.NOT_AUTHORISED, Cure.PERSON, "allow our AE title to store there"),
    # Of our message ID: another association has its own.
    0x0210: ("duplicate invocation", Cause.DUPLICATE_INVOCATION, Cure.TIME, "see its log"),
    0x0211: ("unrecognised operation", Cause.OPERATION_REFUSED, Cure.PERSON, "it takes no C-STORE"),
    0x0212: ("mistyped argument", Cause.OPERATION_REFUSED, Cure.PERSON, "see its log"),
    0x0213: ("resource limitation", Cause.OUT_OF_RESOURCES, Cure.TIME, "it has no room: see its log"),
    # PS3.18 Table I.2-2, in STOW-RS alone; in C-STORE it would be one of the Cxxx.
    0xC122: (
        "transfer syntax not supported",
        Cause.TRANSFER_SYNTAX_NOT_SUPPORTED,
        Cure.PERSON,
        "enable Explicit or Implicit VR Little Endian at the peer",
    ),
}
_RANGES = (
    (0xA700, 0xA7FF, "out of resources", Cause.OUT_OF_RESOURCES, Cure.TIME, "it has no room: see its log"),
    # The number of 0x0122 before DICOM 2008; old peers still say it.
    (0xA800, 0xA8FF, "SOP class not supported", Cause.SOP_CLASS_NOT_SUPPORTED, Cure.PERSON, _CLASS),
    (0xA900, 0xA9FF, "data set does not match SOP class", Cause.DATA_SET_MISMATCH, Cure.PERSON, _ATTRIBUTE),
    # "Cannot understand", but toolkits also answer it for any fault of their own: pynetdicom 0xC211 for an exception
    # in the application, Orthanc 0xC000 for whatever is not a full disk.
    (0xC000, 0xCFFF, "cannot understand", Cause.NOT_UNDERSTOOD, Cure.PERSON_IF_REPEATED, _ATTRIBUTE),
)  # fmt: skip


def status_of(code: int) -> Status:
    """What a status code means; one that no table knows is a failure that may pass."""
    if code in _SINGLE:
        return Status(code, *_SINGLE[code])
    if code in _FAILED:
        return Status(code, Outcome.FAILED, *_FAILED[code])
    if 0xB000 <= code <= 0xBFFF:
        return Status(code, Outcome.REMARKED, "a warning of the peer's own")
    for first, last, meaning, cause, cure, remedy in _RANGES:
        if first <= code <= last:
            return Status(code, Outcome.FAILED, meaning, cause, cure, remedy)
    return Status(code, Outcome.FAILED, "not a status of the standard", remedy="see its log")
