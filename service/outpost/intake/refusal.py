"""Why an instance was not taken: stable codes, and how each is said in DIMSE and DICOMweb."""

from __future__ import annotations

import enum


class Refusal(enum.Enum):
    """Reasons for refusing one instance.

    `status` is the C-STORE status (PS3.4 B.2.3) and the STOW-RS failure reason (PS3.18 10.5.3, I.2.2).
    """

    NOT_DICOM = (0xC000, "the bytes cannot be read as DICOM")
    TOO_COMPLEX = (0xC003, "the data set has more elements or items than images have")
    UID_MISSING = (0xA900, "a study, series, class or instance UID is missing")
    UID_UNSAFE = (0xA900, "a UID is not digits and dots of at most 64")
    UID_MISMATCH = (0xA900, "the UID announced is not the one in the data set")
    CONTENT_CONFLICT = (0xC001, "this instance UID is held with other content")
    OUT_OF_SPACE = (0xA700, "the disk has reached its reserve")
    TOO_MANY_STUDIES = (0xA700, "too many studies of this sender wait, send it later")
    OUT_OF_SERVICE = (0xA700, "this system goes out of service, send elsewhere")
    TOO_MANY_INSTANCES = (0xA700, "the study has as many instances as one may have")
    INTERNAL = (0xC002, "the instance could not be stored; see the log")
    OTHER_STUDY = (0xA901, "the instance is of another study than the request names")

    def __init__(self, status: int, comment: str) -> None:
        self.status = status
        self.comment = comment  # fits Error Comment (VR LO, 64 characters)


class InstanceRefused(Exception):
    """One instance was not taken. The text is the refusal's own: it never holds values from the data set.

    `sop_class`, `sop_uid` and `study_uid` are what is known of it, for the sender alone; empty where it is not known,
    or no UID.
    `kept`: its bytes are in quarantine. `repeated`: they are there since the same sender sent them before. `wait`: so
    many seconds its sender should wait for the answer (`outpost.intake.poison`).
    """

    def __init__(self, refusal: Refusal, sop_class: str = "", sop_uid: str = "", comment: str = "") -> None:
        """`comment`, of at most 64 characters, says it better than the refusal's own in this case."""
        self.comment = comment or refusal.comment
        super().__init__(f"{refusal.name}: {self.comment}")
        self.refusal = refusal
        self.sop_class, self.sop_uid, self.study_uid = sop_class, sop_uid, ""
        self.kept = self.repeated = False
        self.wait = 0.0
