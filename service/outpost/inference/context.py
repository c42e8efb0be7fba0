"""What the service knows of a study that no header says; it travels to the worker with the request to read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from outpost.results.provenance import Replaced


@dataclass(frozen=True, slots=True)
class StudyContext:
    """Of one revision of one study.

    Attributes:
        senders: AE titles, or "stow"; the first sent its first instance.
        character_set: what the site says this sender's texts are really encoded in (a name Python's codecs know);
            empty where it says nothing.
        broken_off: what the transfer itself showed of images that did not come, each as a sentence: an association
            that ended in the middle and was not made up for, a context that was refused.
        forced: no more is waited for. Where it is False, a study that is not whole is to be held
            (`StudyIncomplete`); where it is True, the bundle's policy decides.
        replaces: delivered results of earlier revisions.
        overruled: an administrator answers for the study: it is neither waited for nor refused for being a part.
    """

    senders: tuple[str, ...] = ()
    character_set: str = ""
    broken_off: tuple[str, ...] = ()
    forced: bool = True
    replaces: tuple[Replaced, ...] = ()
    overruled: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> StudyContext:
        return cls(
            senders=tuple(value["senders"]),
            character_set=value["character_set"],
            broken_off=tuple(value["broken_off"]),
            forced=value["forced"],
            replaces=tuple(Replaced(**one) for one in value["replaces"]),
            overruled=value.get("overruled", False),
        )
