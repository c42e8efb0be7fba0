"""Why an instance was not taken: stable codes, and how each is said in DIMSE and DICOMweb."""

from __future__ import annotations

import enum


class Refusal(enum.Enum):
    """Reasons for refusing one instance.

    `status` is the C-STORE status (PS3.4 B.2.3) and the STOW-RS failure reason (PS3.18 10.5.3).
    """

    NOT_DICOM = (0xC000, "the bytes cannot be read as DICOM")
    UID_MISSING = (0xA900, "a study, series, class or instance UID is missing")
    UID_UNSAFE = (0xA900, "a UID is not digits and dots of at most 64")
    UID_MISMATCH = (0xA900, "the UID announced is not the one in the data set")
    CONTENT_CONFLICT = (0xC001, "this instance UID is held with other content")
    OUT_OF_SPACE = (0xA700, "the disk has reached its reserve")
    INTERNAL = (0xC002, "the instance could not be stored; see the log")

    def __init__(self, status: int, comment: str) -> None:
        self.status = status
        self.comment = comment  # fits Error Comment (VR LO, 64 characters)


class InstanceRefused(Exception):
    """One instance was not taken. The text is the refusal's own: it never holds values from the data set."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.name}: {refusal.comment}")
        self.refusal = refusal
