"""What is accepted of what a peer proposes: every storage class, known or not, and almost nothing else.

DCMTK's senders stop in the middle of a study at the first object whose class was refused, so a class is refused only
when it is known to be another service. What no model reads is stored and left out later, not at the door.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES, DEFAULT_TRANSFER_SYNTAXES
from pynetdicom.presentation import PresentationContext

from outpost.delivery.scu import PUSH_MODEL

VERIFICATION: Final = "1.2.840.10008.1.1"  # C-ECHO
_RANK: Final = {syntax: rank for rank, syntax in enumerate(ALL_TRANSFER_SYNTAXES)}


def _is_known_for_something_else(uid: str) -> bool:
    if uid not in UID_dictionary:
        return False
    name, kind = UID_dictionary[uid][:2]
    if kind != "SOP Class" or "Storage Commitment" in name:
        return True
    # Two retired storage classes have lost their names. A DICOMDIR is no object of the network, but some send it.
    return name != "" and "Storage" not in name


_NO_STORAGE: Final = frozenset(uid for uid in UID_dictionary if _is_known_for_something_else(uid))


def is_storage(uid: str) -> bool:
    """Whether C-STORE may be asked of this class: private and future ones are taken for storage."""
    return uid not in _NO_STORAGE


def name_of(abstract_syntax: str) -> str:
    """A class in words. A UID that is not of the standard is the sender's own text, and not repeated."""
    if abstract_syntax not in UID_dictionary:
        return "an unknown class"
    return UID(abstract_syntax).name or "a retired class"


def supported(
    proposed: Iterable[PresentationContext], *, commitment_reports: bool
) -> list[PresentationContext]:
    """What to accept of these contexts, as pynetdicom wants it: one context for each class.

    `commitment_reports`: the peer may report storage commitments to us. It is not offered to anybody else: Outpost
    is no archive.
    """
    syntaxes: dict[str, list[str]] = {}
    for context in proposed:
        if context.abstract_syntax is not None:
            syntaxes.setdefault(context.abstract_syntax, []).extend(context.transfer_syntax)
    accepted = []
    for uid, offered in syntaxes.items():
        if uid == PUSH_MODEL and commitment_reports:
            accepted.append(_context(uid, DEFAULT_TRANSFER_SYNTAXES))
            accepted[-1].scu_role = accepted[-1].scp_role = True
        elif uid == VERIFICATION:
            accepted.append(_context(uid, DEFAULT_TRANSFER_SYNTAXES))
        elif is_storage(uid):
            # Those we know best first; private ones behind them, as the peer ranks them.
            accepted.append(_context(uid, sorted(offered, key=lambda syntax: _RANK.get(syntax, len(_RANK)))))
    return accepted


def _context(uid: str, syntaxes: Sequence[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = UID(uid)
    for syntax in syntaxes:
        context.add_transfer_syntax(syntax)
    return context
