"""Whose images are these? All objects of a study are compared before a pixel is decoded: one patient, or several.

Every object counts, also one that no model reads: a report of another patient in a study says that somebody put
together what does not belong together. Results of ours do not count. Values that are written alike, byte for byte,
cost next to nothing; only those that differ are decoded.

**What is taken for equal** (each rule is named in a note, `IDENTITY_VARIES`):

| rule | what | of |
|---|---|---|
| character set | the same bytes under another label, or the same text in other bytes | id, name |
| case | upper and lower case | id, name, sex |
| spaces and punctuation | spaces, carets, full stops, commas, hyphens, underscores, slashes | id, name, date |
| leading zeros | 007 and 7 | id |
| diacritics | é and e, ё and е | name |
| transliteration | Cyrillic and Latin letters, by what GOST, ICAO 9303 and BGN have in common | id, name |
| component groups | alphabetic, ideographic and phonetic form: one group alike, and none that contradicts | name |
| order of components | the same words in another order, all of them | name |
| abbreviation | a first or middle name and its initial, or none; the family name and one more agree | name |
| typing | one letter in a word of five or more letters | name |
| other ids | the id is among OtherPatientIDs or OtherPatientIDsSequence of the other | id |

Names that are alike by the last two rules are *similar*: enough where id or birth date agree, not by themselves.
PatientID is compared within its issuer: two issuers make two ids. A value that says nothing is missing: an empty one,
a birth date that is no date (00000000, "unknown"), a sex other than male and female, a name or id that is the word
for none (ANONYMOUS, UNKNOWN, NONAME, X, ...).

**Two images, one patient or two:**

| id | name | birth date | decision |
|---|---|---|---|
| equal | equal | equal, missing or differs | one (a date that differs was corrected in between) |
| equal | similar | equal or missing | one |
| equal | similar | differs | two |
| equal | differs | equal | one (marriage, a name typed wrongly), unless the sex differs too (twins) |
| equal | differs | missing or differs | two: ids such as 1 or TEST are given twice |
| equal | missing | equal or missing | one |
| equal | missing | differs | two |
| missing | equal | equal or missing | one, unless the birth date is missing and the sex differs |
| missing | similar | equal | one |
| missing | similar | missing or differs | two |
| missing | equal | differs | two |
| missing | differs | any | two |
| missing | missing | equal or missing | one |
| missing | missing | differs | two |
| differs | any | any | two: also where one of the two is anonymised and keeps an id of its own |

A study holds more than one patient if any two of its objects do: an object that says nothing joins nobody.

`identity` of a rule set: `normal` as above; `strict` takes for equal only what differs by character set, case or
spaces, or is missing; `off` ends no study, and notes what differs. With `skip_filter` an administrator who has looked
at the study answers for it: then it is `off`, and the result's note stays.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage
from pydicom.valuerep import TEXT_VR_DELIMS

from outpost.codes.notes import Note, NoteCode
from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import WHO, ImageHeader, Unreadable, who_of
from outpost.results.provenance import MANUFACTURER

IdentityMode = Literal["strict", "normal", "off"]
Agreement = Literal["equal", "similar", "differs", "missing"]

_ID: Final = "PatientID"
_ISSUER: Final = "IssuerOfPatientID"
_NAME: Final = "PatientName"
_BIRTH: Final = "PatientBirthDate"
_SEX: Final = "PatientSex"
_COMPARED: Final = WHO[1:]
# More spellings of one patient than this are not all compared with each other.
_MOST_SPELLINGS: Final = 16
_MOST_TOLD: Final = 20
_REPLACED: Final = "\ufffd"
_DEFAULT: Final = ("iso8859",)  # pydicom's name of what holds where no label stands
# Bytes may stand under no label or a wrong one: they are read by these too, to compare and for nothing else. That two
# texts become the same by chance can be ruled out.
_GUESSES: Final = ("cp1251", "koi8_r", "iso8859_5", "cp866")
_STRICT: Final = frozenset({"character set", "case", "spaces and punctuation", "missing"})

# Words that stand where nobody is named, after `_folded` and without spaces.
_NOBODY: Final = frozenset(
    "anon anonym anonymous anonymized anonymised anonymize anonymise anonymouspatient anonim anonimno deidentified "
    "unknown unknownpatient noname nopatientname nn na none null nil unnamed unidentified neizvestnyi neizvestno "
    "neizvestnyj bezimeni patient paciient patsient x xx xxx xxxx no".split()
)

# Cyrillic by letters that the usual transliterations agree on once `_ROMAN` has folded what they do not.
_CYRILLIC: Final = str.maketrans({pair[0]: pair[1:] for pair in (
    "аa бb вv гg дd еe ёe жzh зz иi йi кk лl мm нn оo пp рr сs тt уu фf хkh цts чch шsh щshch ъ ыy ь эe "
    "юiu яia іi їi єie ґg ўu әa ғg қk ңn өo ұu үu һh җzh "
).split()})  # fmt: skip
# Latin spellings of one Cyrillic letter, the longest first: GOST 7.79-2000 B, ICAO 9303, passports since 1997, BGN.
_ROMAN: Final = tuple(tuple(pair.split("=")) for pair in (
    "shch=1 shh=1 sch=1 sh=1 tch=ch ks=x kh=h cz=c ts=c tz=c ju=u yu=u iu=u ja=a ya=a ia=a jo=e yo=e io=e "
    "je=e ye=e ie=e y=i j=i w=v "
).split())  # fmt: skip
_DOUBLED: Final = re.compile(r"([a-z1])\1+")
_QUIET: Final = re.compile(r"[\s^.,;:_'`\"’ʹʺ()\[\]/\\#№+*-]+")


@dataclass(frozen=True, slots=True)
class Compared:
    """How two values compare, and by which rules they were taken for alike."""

    agreement: Agreement
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Text:
    """One value: its bytes without padding, what it reads as, and what it might read as under another label."""

    raw: bytes
    readings: tuple[str, ...]
    guesses: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        return not self.raw


@dataclass(frozen=True, slots=True)
class _Identity:
    """How one or several objects write who the patient is; `headers` are theirs."""

    values: dict[str, _Text]
    others: frozenset[str]
    headers: tuple[ImageHeader | Unreadable, ...]


def require_one_patient(
    objects: Sequence[ImageHeader | Unreadable], mode: IdentityMode = "normal", site_character_set: str = ""
) -> tuple[Note, ...]:
    """Compare all objects of a study.

    Args:
        objects: of one study; those of which nothing could be parsed count for nothing.
        mode: of the rule set.
        site_character_set: what the site says the sender's texts are really encoded in; a codec of Python.

    Returns:
        What was taken for equal, as notes; none where every object names the patient alike.

    Raises:
        InputRejected: TWO_PATIENTS, to be held. The message names attributes and series, and no value.
    """
    spelled = _spellings(objects)
    if len(spelled) < 2:
        return ()
    identities = [_identity(raw, found, site_character_set) for raw, found in spelled.items()]
    rules: dict[str, dict[str, None]] = {}
    against: dict[str, None] = {}
    patients: list[list[_Identity]] = []
    for one in identities:
        mine: list[_Identity] | None = None
        for patient in patients:
            # With all of them, not the first alone: one that says nothing agrees with everybody.
            found = [_compare(one, other, mode) for other in patient[:_MOST_SPELLINGS]]
            if not all(same for same, _ in found):
                against |= dict.fromkeys(
                    keyword
                    for same, compared in found
                    if not same
                    for keyword, how in compared.items()
                    if how.agreement in ("differs", "similar")
                )
            elif mine is None:
                mine = patient
                for _, compared in found:
                    _remember(compared, rules)
        if mine is None:
            patients.append(mine := [])
        mine.append(one)
        if len(patients) > _MOST_TOLD:
            break
    if len(patients) > 1 and mode != "off":
        raise InputRejected(Code.TWO_PATIENTS, _told(patients, list(against), len(objects)), hold=True)
    told = [f"{keyword}: {', '.join(how)}" for keyword, how in rules.items() if how]
    told += [
        f"{keyword} says nothing in {count} of {len(objects)} objects"
        for keyword, count in _missing(identities).items()
    ]
    if len(patients) > 1:
        told.append(f"{', '.join(against)} differ, for which this study was not held")
    return (Note(NoteCode.IDENTITY_VARIES, "; ".join(told)),) if told else ()


# --- reading ---


def _spellings(
    objects: Iterable[ImageHeader | Unreadable],
) -> dict[tuple[Any, ...], list[ImageHeader | Unreadable]]:
    """Objects by what stands in their attributes, undecoded; padding is no difference."""
    held: dict[tuple[Any, ...], list[ImageHeader | Unreadable]] = {}
    before: tuple[Any, ...] = ()
    alike: list[ImageHeader | Unreadable] = []
    for one in objects:
        if one.dataset is None:
            continue
        taken = one.who if isinstance(one, ImageHeader) else None
        values = taken if taken is not None else who_of(one.dataset)
        if values != before:  # as in few of a study: comparing costs less than a key for each
            before = values
            try:
                alike = held.setdefault(values, [])
            except TypeError:  # several values, decoded already
                alike = held.setdefault(tuple(map(_plainly, values)), [])
        alike.append(one)
    found: dict[tuple[Any, ...], list[ImageHeader | Unreadable]] = {}
    for key, some in held.items():
        found.setdefault(tuple(map(_plainly, key)), []).extend(some)
    if len(found) > 1:
        found = {
            key: them for key, some in found.items() if (them := [one for one in some if not _is_ours(one)])
        }
    return found


def _plainly(value: Any) -> bytes | str | None:
    """A value without its padding."""
    if isinstance(value, bytes):
        return value.strip(b" \0")
    if isinstance(value, MultiValue):
        return "\\".join(map(str, value))
    return None if value is None else str(value)


def _is_ours(one: ImageHeader | Unreadable) -> bool:
    """Whether it is a result of this service: what it says of the patient it has from others."""
    if one.sop_class_uid not in (SegmentationStorage, ComprehensiveSRStorage) or one.dataset is None:
        return False
    try:
        return str(one.dataset.get("Manufacturer", "")) == MANUFACTURER
    except Exception:  # pydicom raises many types on what it cannot decode
        return False


def _identity(
    raw: tuple[Any, ...], headers: Sequence[ImageHeader | Unreadable], site_character_set: str
) -> _Identity:
    label, *values = raw
    labels = _encodings(label)
    texts = {
        keyword: _text(value, labels, site_character_set)
        for keyword, value in zip(_COMPARED, values, strict=True)
    }
    others: set[str] = set()
    for header in headers[:_MOST_SPELLINGS]:
        assert header.dataset is not None  # it has been read
        others |= set(_other_ids(header.dataset))
    return _Identity(texts, frozenset(others), tuple(headers))


def _encodings(label: bytes | str | None) -> tuple[str, ...]:
    """Python's codecs of a SpecificCharacterSet; those of the default where it names none that is known."""
    text = label.decode("ascii", "replace") if isinstance(label, bytes) else label or ""
    try:
        return tuple(convert_encodings([part.strip() for part in text.split("\\")]))
    except Exception:  # a label that nobody knows is as good as none
        return _DEFAULT


def _text(value: bytes | str | None, encodings: tuple[str, ...], site: str) -> _Text:
    """The value as it may be read: by its label, by what the site says of the sender, as UTF-8 where it is that."""
    if value is None:
        return _Text(b"", ())
    if isinstance(value, str):  # decoded already
        return _Text(value.encode("utf-8", "surrogatepass"), (value,))
    if value.isascii() and b"\x1b" not in value:
        return _Text(value, (value.decode("ascii"),))
    readings: list[str] = []
    with suppress(Exception):  # pydicom and codecs raise many types: then it is read otherwise
        readings = [decode_bytes(value, list(encodings), TEXT_VR_DELIMS)]
    # Nothing else looks like UTF-8 by chance; nor like ISO 2022 with its escapes.
    sure = _decoded(value, ("utf-8",)) if b"\x1b" not in value else ()
    guesses = () if sure or b"\x1b" in value else _decoded(value, _GUESSES)
    return _Text(value, _unbroken([*readings, *_decoded(value, (site,)), *sure]), guesses)


def _decoded(value: bytes, codecs: Sequence[str]) -> tuple[str, ...]:
    found = []
    for codec in filter(None, codecs):
        with suppress(LookupError, UnicodeError):
            found.append(value.decode(codec))
    return tuple(found)


def _unbroken(readings: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reading for reading in readings if _REPLACED not in reading))


def _other_ids(dataset: Dataset) -> Iterator[str]:
    """Ids that the patient has elsewhere, folded."""
    for value in _listed(dataset, "OtherPatientIDs"):
        yield _folded_id(value)
    for item in _listed(dataset, "OtherPatientIDsSequence"):
        for value in _listed(item, "PatientID"):
            yield _folded_id(value)


def _listed(dataset: Any, keyword: str) -> list[Any]:
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return []
        several = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
        return [one if isinstance(one, Dataset) else str(one) for one in (value if several else [value])]
    except Exception:  # pydicom raises many types on what it cannot decode
        return []


# --- comparing ---


def _compare(one: _Identity, other: _Identity, mode: IdentityMode) -> tuple[bool, dict[str, Compared]]:
    """Whether both may name one patient, and how each attribute compares."""
    compared = {
        _ID: _compare_ids(one, other),
        _NAME: _best(one.values[_NAME], other.values[_NAME], compare_names),
        _BIRTH: _best(one.values[_BIRTH], other.values[_BIRTH], compare_dates),
        _SEX: _best(one.values[_SEX], other.values[_SEX], compare_sexes),
    }
    if mode == "strict":
        strict = all(
            how.agreement == "missing" or (how.agreement == "equal" and _STRICT.issuperset(how.rules))
            for how in compared.values()
        )
        if not strict:
            compared = {
                keyword: how
                if how.agreement == "missing" or _STRICT.issuperset(how.rules)
                else Compared("differs")
                for keyword, how in compared.items()
            }
        return strict, compared
    return _one_patient(*(compared[keyword].agreement for keyword in (_ID, _NAME, _BIRTH, _SEX))), compared


def _one_patient(identifier: Agreement, name: Agreement, birth: Agreement, sex: Agreement) -> bool:
    """The table of this module's text."""
    if identifier == "differs":
        return False
    if identifier == "equal":
        match name:
            case "equal":
                return True
            case "similar" | "missing":
                return birth != "differs"
        return birth == "equal" and sex != "differs"
    match name:
        case "equal":
            return birth == "equal" or (birth == "missing" and sex != "differs")
        case "similar":
            return birth == "equal"
        case "missing":
            return birth != "differs"
    return False


def _best(one: _Text, other: _Text, compare: Callable[[str, str], Compared]) -> Compared:
    """Two values by whichever of their readings agree best; equal bytes are equal, whatever their label."""
    if one.missing or other.missing:
        return Compared("missing")
    found = [compare(a, b) for a in one.readings for b in other.readings]
    if one.raw == other.raw:
        found.append(Compared("equal", ("character set",)))
    if not any(how.agreement in ("equal", "similar") for how in found):
        # A guess is held against what stands under a label, never against another guess.
        guessed = [compare(a, b) for a in one.guesses for b in other.readings]
        guessed += [compare(a, b) for a in one.readings for b in other.guesses]
        found += [
            Compared("equal", ("character set", *how.rules)) for how in guessed if how.agreement == "equal"
        ]
    if not found:  # bytes that nothing decodes, and not the same
        return Compared("differs")
    best = min(found, key=lambda how: (_ORDER.index(how.agreement), len(how.rules)))
    plain = one.raw.isascii() and other.raw.isascii()
    if best.agreement == "equal" and not best.rules and one.raw != other.raw and not plain:
        return Compared("equal", ("character set",))
    return best


_ORDER: Final[tuple[Agreement, ...]] = ("equal", "similar", "missing", "differs")


def _compare_ids(one: _Identity, other: _Identity) -> Compared:
    issuers = _best(one.values[_ISSUER], other.values[_ISSUER], compare_ids)
    found = _best(one.values[_ID], other.values[_ID], compare_ids)
    if found.agreement == "equal" and issuers.agreement == "differs":
        found = Compared("differs")
    if found.agreement == "differs" and (
        {_folded_id(reading) for reading in one.values[_ID].readings} & other.others
        or {_folded_id(reading) for reading in other.values[_ID].readings} & one.others
    ):
        return Compared("equal", ("other ids",))
    return found


def compare_ids(one: str, other: str) -> Compared:
    """Two values of PatientID of one issuer."""
    if _says_nothing(one) or _says_nothing(other):
        return Compared("missing")
    a, b = one.strip(" \0"), other.strip(" \0")
    rules: list[str] = []
    for rule, fold in (
        ("", str),
        ("case", str.casefold),
        ("spaces and punctuation", _joined),
        ("leading zeros", _without_zeros),
        ("transliteration", _latin),
    ):
        changed = fold(a), fold(b)
        # 1-23 and 12-3 are two ids, 1-23 and 123 may be one.
        if (
            rule == "spaces and punctuation"
            and len(_parts(a)) > 1 < len(_parts(b))
            and _parts(a) != _parts(b)
        ):
            return Compared("differs")
        if changed != (a, b):
            rules.append(rule)
        a, b = changed
        if a == b:
            return Compared("equal", tuple(rules))
    return Compared("differs")


def compare_names(one: str, other: str) -> Compared:
    """Two values of PatientName: by each of their component groups."""
    a, b = _groups(one), _groups(other)
    if not a or not b:
        return Compared("missing")
    found = [_compare_group(a[kind], b[kind]) for kind in a.keys() & b.keys()]
    if not found:  # one in letters, the other in ideographs alone, without knowing which stands for which
        crossed = [_compare_group(x, y) for x in a.values() for y in b.values()]
        best = min(crossed, key=lambda how: _ORDER.index(how.agreement))
        return (
            Compared(best.agreement, ("component groups", *best.rules))
            if best.agreement != "differs"
            else best
        )
    worst = max(found, key=lambda how: _ORDER.index(how.agreement))
    if worst.agreement == "differs":
        return worst
    rules = tuple(dict.fromkeys(rule for how in found for rule in how.rules))
    return Compared(worst.agreement, (*rules, "component groups") if a.keys() != b.keys() else rules)


def compare_dates(one: str, other: str) -> Compared:
    """Two values of PatientBirthDate; a year or a month is equal to a day in it."""
    a, b = _date(one), _date(other)
    if not a or not b:
        return Compared("missing")
    if one.strip(" \0") == other.strip(" \0"):
        return Compared("equal")
    if a == b:
        return Compared("equal", ("spaces and punctuation",))
    if a.startswith(b) or b.startswith(a):
        return Compared("equal", ("a part of the date",))
    return Compared("differs")


def compare_sexes(one: str, other: str) -> Compared:
    """Two values of PatientSex."""
    a, b = _sex(one), _sex(other)
    if not a or not b:
        return Compared("missing")
    if a != b:
        return Compared("differs")
    return Compared("equal", () if one.strip(" \0") == other.strip(" \0") else ("case",))


def _says_nothing(text: str) -> bool:
    folded = _folded(text)
    return not folded.strip("0") or folded in _NOBODY_FOLDED


def _groups(name: str) -> dict[str, str]:
    """The groups of a name that say something, by their script: senders put ideographs into the first group, too."""
    found: dict[str, str] = {}
    for group in name.split("=")[:3]:
        if not group.strip(" ^\0") or _says_nothing(group):
            continue
        found.setdefault(_script(group), group)
    return found


def _script(text: str) -> str:
    names = {unicodedata.name(letter, "").partition(" ")[0] for letter in text if letter.isalpha()}
    if "CJK" in names:
        return "ideographic"
    if names & {"HIRAGANA", "KATAKANA", "HANGUL", "HALFWIDTH"}:
        return "phonetic"
    return "alphabetic"


def _compare_group(one: str, other: str) -> Compared:
    a, b = one.strip(" ^\0"), other.strip(" ^\0")
    if a == b:
        return Compared("equal")
    for rules, fold in (
        (("case",), str.casefold),
        (("spaces and punctuation",), _spaced),
        (("case", "spaces and punctuation"), lambda text: _spaced(text.casefold())),
        (("diacritics",), lambda text: _spaced(_plain(text.casefold()))),
        (("transliteration",), lambda text: " ".join(_folded(word) for word in _words(text))),
    ):
        if fold(a) == fold(b):
            return Compared("equal", rules)
    if _folded(a) == _folded(b):
        return Compared(
            "equal",
            ("spaces and punctuation", "transliteration") if _mixed(a, b) else ("spaces and punctuation",),
        )
    words, others = sorted(_folded(word) for word in _words(a)), sorted(_folded(word) for word in _words(b))
    extra = ("transliteration",) if _mixed(a, b) else ()
    if words == others:
        return Compared("equal", ("order of components", *extra))
    if _abbreviates([_folded(word) for word in _words(a)], [_folded(word) for word in _words(b)]):
        return Compared("similar", ("abbreviation", *extra))
    if len(words) == len(others) and _typed_wrongly(words, others):
        return Compared("similar", ("typing", *extra))
    return Compared("differs")


def _mixed(one: str, other: str) -> bool:
    """Whether two names are in different scripts."""
    return one.isascii() != other.isascii()


def _abbreviates(one: Sequence[str], other: Sequence[str]) -> bool:
    """Family names agree, and of each given name one is the other, its initial, or not there at all.

    A family name alone is no abbreviation of a whole name: families come together.
    """
    if not one or not other or one[0] != other[0] or min(len(one), len(other)) < 2:
        return False
    return all(
        a == b or (1 in (len(a), len(b)) and a[:1] == b[:1]) for a, b in zip(one[1:], other[1:], strict=False)
    )


def _typed_wrongly(one: Sequence[str], other: Sequence[str]) -> bool:
    """One letter, left out, added, wrong, or two exchanged, in one word of five or more letters."""
    differ = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if len(differ) != 1 or len(one) < 2:
        return False
    a, b = differ[0]
    if min(len(a), len(b)) < 5 or abs(len(a) - len(b)) > 1:
        return False
    if len(a) == len(b):
        places = [place for place, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        if len(places) == 2:
            first, second = places
            return second == first + 1 and a[first] == b[second] and a[second] == b[first]
        return len(places) == 1
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return any(longer[:place] + longer[place + 1 :] == shorter for place in range(len(longer)))


def _words(text: str) -> list[str]:
    return [word for word in _QUIET.split(text) if word]


def _spaced(text: str) -> str:
    return " ".join(_words(text))


def _joined(text: str) -> str:
    return _QUIET.sub("", text)


def _parts(text: str) -> list[str]:
    return [_without_zeros(_latin(word.casefold())) for word in _words(text)]


def _latin(text: str) -> str:
    return text.translate(_CYRILLIC)


def _without_zeros(text: str) -> str:
    return text.lstrip("0") or "0"


def _plain(text: str) -> str:
    """Without diacritics; й keeps its own, which makes it another letter."""
    kept = text.replace("й", "\x00").replace("ё", "е")
    stripped = "".join(c for c in unicodedata.normalize("NFKD", kept) if not unicodedata.combining(c))
    return stripped.replace("\x00", "й")


@lru_cache(maxsize=4096)
def _folded(text: str) -> str:
    """What is left of a word whatever its case, punctuation, diacritics and script of the two."""
    found = _plain(_joined(unicodedata.normalize("NFC", text).casefold()))
    found = (
        found.replace("ß", "ss").replace("ø", "o").replace("ł", "l").replace("æ", "ae").translate(_CYRILLIC)
    )
    before = ""
    while found != before:  # each turn shortens it: Iuliia, Yuliya and Yulia end alike
        before = found
        for spelling, letter in _ROMAN:
            found = found.replace(spelling, letter)
        found = _DOUBLED.sub(r"\1", found)
    return found


def _folded_id(text: str) -> str:
    return _without_zeros(_joined(text.casefold().strip(" \0")))


_NOBODY_FOLDED: Final = frozenset(_folded(word) for word in _NOBODY)


def _date(text: str) -> str:
    """The digits of a date, a month or a year; empty where it is none."""
    digits = re.sub(r"[ \0.\-/:]", "", text)
    if not re.fullmatch(r"\d{4}|\d{6}|\d{8}", digits) or not 1800 <= int(digits[:4]) <= 2200:
        return ""
    month, day = digits[4:6], digits[6:8]
    if (month and not 1 <= int(month) <= 12) or (day and not 1 <= int(day) <= 31):
        return ""
    return digits


def _sex(text: str) -> str:
    word = text.strip(" \0").casefold()
    return "M" if word in ("m", "male", "м", "муж") else "F" if word in ("f", "female", "ж", "жен") else ""


# --- telling ---


def _remember(compared: dict[str, Compared], rules: dict[str, dict[str, None]]) -> None:
    for keyword, how in compared.items():
        if how.agreement in ("equal", "similar"):
            rules.setdefault(keyword, {}).update(dict.fromkeys(how.rules))
        elif how.agreement == "differs":
            rules.setdefault(keyword, {}).update({"differs, and the others agree": None})


def _missing(identities: Sequence[_Identity]) -> dict[str, int]:
    """In how many objects an attribute says nothing that others have."""
    found: dict[str, int] = {}
    for keyword, nothing in _NOTHING.items():
        silent = [
            one
            for one in identities
            if (text := one.values[keyword]).missing or (text.readings and all(map(nothing, text.readings)))
        ]
        lacking = sum(len(one.headers) for one in silent)
        if lacking and len(silent) < len(identities):
            found[keyword] = lacking
    return found


def _told(patients: Sequence[Sequence[_Identity]], against: Sequence[str], objects: int) -> str:
    counts = []
    for patient in patients[:_MOST_TOLD]:
        headers = [header for one in patient for header in one.headers]
        numbers = {header.series_number for header in headers if isinstance(header, ImageHeader)}
        shown = sorted(number for number in numbers if number is not None)[:_MOST_TOLD]
        where = f" in series {', '.join(map(str, shown))}" if shown else ""
        counts.append(f"{len(headers)}{where}")
    more = "more than " if len(patients) > _MOST_TOLD else ""
    return (
        f"{more}{min(len(patients), _MOST_TOLD)} identities in {objects} objects: {', '.join(against) or 'nothing'} "
        f"differ{'' if len(against) > 1 else 's'}; objects of each: {'; '.join(counts)}"
    )


_NOTHING: Final[dict[str, Callable[[str], bool]]] = {
    _ID: _says_nothing,
    _NAME: lambda name: not _groups(name),
    _BIRTH: lambda date: not _date(date),
    _SEX: lambda sex: not _sex(sex),
}
