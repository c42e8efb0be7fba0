"""A walk over the whole tree of a DICOM file that makes no object of it: sequences, items, fragments, all of them.

Nothing but the wanted values is held, whatever the file holds. The walk follows pydicom where a writer broke the
rules in a way that pydicom understands, so that what is found here is what the child that computes finds later. It
ends at a `Bound`: elements, items, depth, fragments and time, over the tree as a whole.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag

IMPLICIT: Final = "1.2.840.10008.1.2"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"

# What is wanted of a data set: by tag a name for a value, or what is wanted of each item of a sequence.
Wanted = Mapping[int, Any]

_WINDOW: Final = 64 * 1024
_CHUNK: Final = 1 << 20
_FOREVER: Final = 1 << 62
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
_FRAMES: Final = 0x00280008
_TRAILING_PADDING: Final = 0xFFFCFFFC
_CHARACTER_SET: Final = 0x00080005
_SOP_CLASS: Final = 0x00080016
_LONGEST_WANTED: Final = 1024
_MOST_FRAMES: Final = 500_000
_MOST_META: Final = 1000
_MOST_PIXELS: Final = 16
_NOTHING: Final[Mapping[int, Any]] = {}
_MOST_ALIKE: Final = 64  # values of one name, from the items of a sequence

_SHORT_VRS: Final = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
# VRs whose values are padded to even length, with a space or a NUL as the writer likes (PS3.5 6.2).
PADDED: Final = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_PADDED: Final = frozenset(vr.encode() for vr in PADDED)
_PADS: Final = b" \0"

# A long walk lets others run: a pause so long after so many elements, of some two microseconds each.
_SLICE: Final = 1024
_PAUSE_SECONDS: Final = 0.0005
# From so many elements on a walk is long, and waits until no other long one is on its way.
_LONG: Final = 16 * 1024
_one_long_walk = threading.Lock()


class Malformed(ValueError):
    """The bytes are no data set of their transfer syntax. Never says what they are."""


class Exceeded(Exception):
    """The tree is larger than what is allowed; the text says which bound, in at most 64 characters."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a tree may have, over all levels together.

    For each frame, which has to be there in the bytes of the file as well, so many more: lawful enhanced images have
    some forty items a frame.
    """

    elements: int = 300_000
    items: int = 50_000
    depth: int = 48
    fragments: int = 200_000
    elements_a_frame: int = 250
    items_a_frame: int = 40
    fragments_a_frame: int = 4
    bytes_a_frame: int = 128  # a frame with fewer, its own items included, is none
    seconds: float = 60.0  # of this thread's CPU


@dataclass(slots=True)
class Walked:
    """What a walk found.

    Attributes:
        values: by name, VR (empty where the encoding has none) and bytes as encoded, without padding, cut to 1,024.
        each: by name, what the items of sequences hold.
        digest: SHA-256 over the values in front of the pixels, to be completed by `add_pixels`; None where none was
            wanted, or the values cannot be compared: malformed, out of order, not little endian.
        end: where the pixel data begin, in bytes of the file, or the data set ends.
        pixels: whether it is pixel data.
    """

    values: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    each: dict[str, set[bytes]] = field(default_factory=dict)
    digest: Any = None
    end: int = 0
    pixels: bool = False
    implicit: bool = False
    elements: int = 0
    items: int = 0


class Plain:
    """The bytes of a file, by where they are in it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def window(self, at: int, size: int = _WINDOW) -> bytes:
        """What begins at `at`: so many bytes, or fewer where it ends."""
        return os.pread(self._descriptor, size, at)


class Held:
    """The same of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def window(self, at: int, size: int = _WINDOW) -> bytes:
        """As of `Plain`."""
        return self._data[at : at + size]


class Inflated:
    """The bytes that a deflated data set unfolds to (PS3.5 A.5), as far as they are asked for, never backwards.

    `most`: of how many bytes; more raises `Exceeded`. What is no such stream raises `Malformed`.
    """

    def __init__(self, descriptor: int, offset: int, most: int) -> None:
        self.size = most
        self._descriptor = descriptor
        self._offset = offset
        self._most = most
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._pending = b""
        self._held = b""
        self._begin = 0

    def window(self, at: int, size: int = _WINDOW) -> bytes:
        """As of `Plain`; `at` is never smaller than it was."""
        while not self._inflate.eof and self._begin + len(self._held) < at + _WINDOW:
            # What is behind is let go.
            gone = min(at - self._begin, len(self._held))
            self._held, self._begin = self._held[gone:], self._begin + gone
            piece = self._more()
            if not piece and not self._inflate.eof:
                raise Malformed("the deflated data set ends before its end")
            self._held += piece
        return self._held[at - self._begin : at - self._begin + size]

    def exhaust(self) -> None:
        """Unfold what is left, and drop it."""
        while not self._inflate.eof:
            self._begin, self._held = self._begin + len(self._held), b""
            if not (piece := self._more()) and not self._inflate.eof:
                raise Malformed("the deflated data set ends before its end")
            self._held = piece

    def _more(self) -> bytes:
        """Another piece of at most 64 KiB; empty where the file ends."""
        while True:
            ended = False
            if not self._pending:
                self._pending = os.pread(self._descriptor, _WINDOW, self._offset)
                self._offset += len(self._pending)
                ended = not self._pending
            try:
                piece = self._inflate.decompress(self._pending, _WINDOW)
            except zlib.error:
                raise Malformed("the data set is not deflated") from None
            self._pending = self._inflate.unconsumed_tail
            if self._begin + len(self._held) + len(piece) > self._most:
                raise Exceeded("the deflated data set unfolds to more than images do")
            if piece or ended or self._inflate.eof:
                return piece


Source = Plain | Held | Inflated


class _Broken(Exception):
    """Something does not fit at this place; perhaps the sequence around it can be left out."""


@lru_cache(maxsize=8192)
def _dictionary_vr(tag: int) -> bytes:
    entry = DicomDictionary.get(tag)
    if entry is not None:
        return entry[0][:2].encode()
    try:
        return dictionary_VR(BaseTag(tag))[:2].encode()
    except KeyError:
        return b"UN"


def walk(  # one loop with its state in locals: a call for each element would double its cost
    source: Source,
    at: int,
    *,
    implicit: bool,
    big_endian: bool = False,
    wanted: Wanted | None = None,
    digest: Any = None,
    bounds_of: Callable[[str], Bounds] | None = None,
) -> Walked:
    """Walk over a data set that begins at `at`, up to its pixels, or its end.

    Args:
        source: of the bytes.
        at: in bytes.
        implicit: whether its VR is; where the first element is plainly otherwise, that is believed.
        big_endian: whether its numbers are.
        wanted: what to keep of it.
        digest: of hashlib, to be fed with the values in front of the pixels; only of little endian ones.
        bounds_of: what an object of a SOP class may have; the class is empty where it is not known.

    Raises `Malformed`, `Exceeded`.
    """
    found = Walked(digest=digest)
    bounds = bounds_of("") if bounds_of is not None else Bounds()
    order = ">" if big_endian else "<"
    explicit_head, implicit_head = Struct(f"{order}HH2sH").unpack_from, Struct(f"{order}HHL").unpack_from
    number = Struct(f"{order}L").unpack_from
    item_mark = b"\xff\xfe\xe0\x00" if big_endian else b"\xfe\xff\x00\xe0"
    window, size = source.window, source.size
    short, long, padded, vr_of = _SHORT_VRS, _LONG_VRS, _PADDED, _dictionary_vr
    most_elements, most_items, frames = bounds.elements, bounds.items, 0
    elements = items = 0
    pause_at = min(_SLICE, most_elements)
    began, alone = 0.0, False
    buffer, base, have = b"", 0, 0
    position = at
    out: list[bytes] = []
    say = out.append

    # The data set that is being walked. `quiet`: nothing of it belongs to the digest.
    end, bounded, last, here, quiet, top = _FOREVER, False, -1, wanted or _NOTHING, digest is None, True
    # The sequence whose item it is; `between` its items no data set is being walked.
    sequence_end, sequence_implicit, each = _FOREVER, False, _NOTHING
    between = False
    # What is around it, the innermost last: the state of a sequence's data set, and where that sequence ends.
    above: list[tuple[Any, ...]] = []
    try:
        while True:
            try:
                while True:
                    if elements > pause_at:  # here, as also a sequence of empty items comes by
                        if elements > most_elements:
                            raise Exceeded(f"more than {most_elements} elements")
                        pause_at = elements + _SLICE
                        time.sleep(_PAUSE_SECONDS)
                        began = began or time.thread_time()
                        if time.thread_time() - began > bounds.seconds:
                            raise Exceeded(f"more than {bounds.seconds:g} s of work")
                        if elements > _LONG and not alone:
                            _one_long_walk.acquire()
                            alone = True
                        if out:
                            digest.update(b"".join(out))
                            out.clear()
                    if between:
                        if position >= sequence_end:
                            if position > sequence_end:
                                raise _Broken
                            tag = _SEQUENCE_END
                        else:
                            index = position - base
                            if index < 0 or index + 14 > have:
                                buffer, base, index = window(position), position, 0
                                have = len(buffer)
                                if have < 8:
                                    raise _Broken
                            group, element, length = implicit_head(buffer, index)
                            tag = group << 16 | element
                            position += 8
                        if tag == _ITEM:
                            items += 1
                            elements += 1
                            if items > most_items:
                                raise Exceeded(f"more than {most_items} items of sequences")
                            if not quiet:
                                say(b"I")
                            bounded = length != _UNDEFINED
                            end = position + length if bounded else sequence_end
                            if end > sequence_end:
                                raise _Broken
                            implicit = sequence_implicit
                            if not implicit and index + 14 <= have:
                                # Where a sequence's VR was lost on the way, it is Implicit VR inside (PS3.5 6.2.2).
                                one, two = buffer[index + 12], buffer[index + 13]
                                implicit = not (0x40 < one < 0x5B and 0x40 < two < 0x5B)
                            last, here, between = -1, each, False
                            continue
                        if tag != _SEQUENCE_END:
                            raise _Broken
                        if not quiet:
                            say(b"E")
                        (
                            *(
                                sequence_end,
                                sequence_implicit,
                                each,
                                end,
                                bounded,
                                implicit,
                                last,
                                here,
                                quiet,
                                top,
                            ),
                            _,
                        ) = above.pop()
                        quiet = quiet or digest is None
                        between = False
                        continue

                    if position >= end:
                        if position > end or not bounded:
                            raise _Broken  # an item without a length ends with a delimiter
                        between = True
                        continue
                    index = position - base
                    if index < 0 or index + 12 > have:
                        buffer, base, index = window(position), position, 0
                        have = len(buffer)
                        if have < 8:
                            if not top:
                                raise _Broken
                            found.end = min(position, size)
                            return found
                    elements += 1
                    if top and last < 0:
                        # As pydicom does: the first element shows how the data set is encoded.
                        one, two = buffer[index + 4], buffer[index + 5]
                        found.implicit = implicit = not (0x40 < one < 0x5B and 0x40 < two < 0x5B)
                    if implicit:
                        group, element, length = implicit_head(buffer, index)
                        vr, value_at = b"", position + 8
                    else:
                        group, element, vr, length = explicit_head(buffer, index)
                        value_at = position + 8
                        if vr in long:
                            if index + 12 > have:
                                raise _Broken
                            (length,) = number(buffer, index + 8)
                            value_at += 4
                        elif vr not in short and not b"AA" <= vr <= b"ZZ":
                            (length,) = number(buffer, index + 4)
                            vr = b""
                    tag = group << 16 | element
                    if tag == _ITEM_END:
                        if top:
                            found.end = value_at
                            return found
                        position, between = value_at, True
                        continue
                    if top and tag in _PIXELS:
                        found.end, found.pixels = position, True
                        return found
                    if tag <= last and not quiet:
                        # Values are digested in the order of their tags; what comes otherwise, by its bytes.
                        digest = found.digest = None
                        quiet = True
                        out.clear()
                    last = tag

                    known = vr if vr and vr != b"UN" else vr_of(tag)
                    opened = hidden = False
                    if length == _UNDEFINED:
                        opened = known == b"SQ" or vr == b"UN"
                        if not opened and not vr and known == b"UN":
                            opened = _mark(source, buffer, base, value_at) == item_mark
                        if not opened:
                            stop = behind_fragments(source, value_at, number, item_mark, bounds.fragments)
                            if stop is None or stop > end:
                                raise _Broken
                            if not quiet:
                                say(b"T%08xV%d:" % (tag, stop - 8 - value_at))
                                digest.update(b"".join(out))
                                out.clear()
                                feed(digest, source, value_at, stop - 8 - value_at)
                            position = stop
                            continue
                        stop = _FOREVER
                    else:
                        stop = value_at + length
                        if stop > end:
                            raise _Broken
                        if known == b"SQ":
                            opened = True
                        elif known == b"UN" and length >= 8:
                            # Perhaps a sequence whose VR was lost: a value as any other, which others may open.
                            hidden = _mark(source, buffer, base, value_at) == item_mark

                    name = here.get(tag)
                    if not opened:
                        position = stop
                        if not quiet or (name is not None and type(name) is str):
                            index = value_at - base
                            value: bytes | None
                            if length <= have - index:
                                value = buffer[index : index + length]
                            elif length <= _WINDOW:
                                buffer, base = window(value_at), value_at
                                have = len(buffer)
                                value = buffer[:length]
                            else:
                                value = None
                            if not quiet and element and tag != _TRAILING_PADDING:
                                strips = known in padded or group & 1
                                if value is not None:
                                    kept = value.rstrip(_PADS) if strips else value
                                    if tag == _CHARACTER_SET and top and b"\\" in kept:
                                        kept = _as_list(kept)
                                    say(b"T%08xV%d:%b" % (tag, len(kept), kept))
                                    if length > 4096:
                                        digest.update(b"".join(out))
                                        out.clear()
                                else:
                                    whole = min(length, max(size - value_at, 0))
                                    whole = _unpadded(source, value_at, whole) if strips else whole
                                    say(b"T%08xV%d:" % (tag, whole))
                                    digest.update(b"".join(out))
                                    out.clear()
                                    feed(digest, source, value_at, whole)
                            if name is not None and type(name) is str:
                                if value is None:
                                    value = window(value_at, _LONGEST_WANTED)
                                text = value[:_LONGEST_WANTED].rstrip(_PADS)
                                if not top:
                                    alike = found.each.setdefault(name, set())
                                    if len(alike) < _MOST_ALIKE:
                                        alike.add(text)
                                else:
                                    found.values[name] = vr.decode("latin-1"), text
                                    if tag == _SOP_CLASS and bounds_of is not None:
                                        bounds = bounds_of(text.decode("latin-1"))
                                    if tag == _FRAMES:
                                        frames = _frames(text, size // bounds.bytes_a_frame)
                                    most_elements = bounds.elements + frames * bounds.elements_a_frame
                                    most_items = bounds.items + frames * bounds.items_a_frame
                        if not hidden:
                            continue
                    elif not quiet and element and tag != _TRAILING_PADDING:
                        say(b"T%08x" % tag)

                    if len(above) >= bounds.depth:
                        raise Exceeded(f"sequences are nested more than {bounds.depth} deep")
                    if stop > size and stop != _FOREVER:
                        if not top:
                            raise _Broken
                        stop = size
                    state = (
                        sequence_end,
                        sequence_implicit,
                        each,
                        end,
                        bounded,
                        implicit,
                        last,
                        here,
                        quiet,
                        top,
                    )
                    above.append((*state, -stop if hidden else stop))
                    sequence_end, sequence_implicit = stop, implicit
                    each = name if opened and isinstance(name, dict) else _NOTHING
                    quiet = quiet or hidden
                    top, between, position = False, True, value_at
            except _Broken:
                # The innermost sequence around it that says how long it is, is left out.
                stop = _FOREVER
                while above and stop == _FOREVER:
                    (
                        *(
                            sequence_end,
                            sequence_implicit,
                            each,
                            end,
                            bounded,
                            implicit,
                            last,
                            here,
                            quiet,
                            top,
                        ),
                        stop,
                    ) = above.pop()
                if stop == _FOREVER:
                    raise Malformed("the elements do not fit in each other") from None
                if stop >= 0:
                    digest = found.digest = None
                    out.clear()
                quiet = quiet or digest is None
                position, between = abs(stop), False
    finally:
        if alone:
            _one_long_walk.release()
        found.elements, found.items = elements, items
        if digest is not None:
            digest.update(b"".join(out))


def _mark(source: Source, buffer: bytes, base: int, at: int) -> bytes:
    mark = buffer[at - base : at - base + 4]
    return mark if len(mark) == 4 else source.window(at, 4)


def behind_fragments(
    source: Source, at: int, number: Callable[..., tuple[Any, ...]], item_mark: bytes, most: int
) -> int | None:
    """Where encapsulated data that begin at `at` end (PS3.5 A.4); None where they do not. Raises `Exceeded`."""
    count = 0
    sequence_end = item_mark[:2] + (b"\xe0\xdd" if item_mark[0] == 0xFF else b"\xdd\xe0")
    while len(head := source.window(at, 8)) == 8:
        (length,) = number(head, 4)
        at += 8
        if head[:4] == sequence_end:
            return at
        if head[:4] != item_mark or length == _UNDEFINED:
            return None
        at += length
        count += 1
        if count > most:
            raise Exceeded(f"more than {most} fragments of pixel data")
        if not count % _SLICE:
            time.sleep(_PAUSE_SECONDS)
    return None


def walk_behind(source: Source, found: Walked, *, big_endian: bool, bounds: Bounds, frames: int = 0) -> None:
    """Walk over the pixels, and what follows them, for its bounds alone. Raises `Exceeded`.

    What is malformed there ends it: the pixels are judged where they are decoded.
    """
    order = ">" if big_endian else "<"
    number = Struct(f"{order}L").unpack_from
    item_mark = b"\xff\xfe\xe0\x00" if big_endian else b"\xfe\xff\x00\xe0"
    most = bounds.fragments + min(frames, source.size // bounds.bytes_a_frame) * bounds.fragments_a_frame
    left = _MOST_PIXELS
    while found.pixels:
        left -= 1
        if not left:
            raise Exceeded(f"more than {_MOST_PIXELS} elements of pixel data")
        at = found.end
        head = source.window(at, 12)
        implicit = found.implicit or head[4:6] not in _LONG_VRS
        if len(head) < (8 if implicit else 12):
            return
        (length,) = number(head, 4 if implicit else 8)
        at += 8 if implicit else 12
        stop = at + length if length != _UNDEFINED else behind_fragments(source, at, number, item_mark, most)
        if stop is None or stop >= source.size:
            return
        try:
            found = walk(
                source, stop, implicit=found.implicit, big_endian=big_endian, bounds_of=lambda _: bounds
            )
        except Malformed:
            return


def file_meta(source: Source) -> tuple[dict[int, bytes], int]:
    """The file meta information of a Part 10 file: values by element, cut to 1,024 bytes; where the data set begins.

    By its elements, whatever their group length says. Raises `Malformed`, `Exceeded`.
    """
    if source.window(128, 4) != b"DICM":
        raise Malformed("no prefix")
    at = 132
    values: dict[int, bytes] = {}
    number = Struct("<L").unpack_from
    for _ in range(_MOST_META):
        head = source.window(at, 12)
        if head[:2] == b"\0\0" and len(head) >= 8 and values:
            at += 8 + number(head, 4)[0]  # of a command set, which some leave in front
            continue
        if head[:2] != b"\x02\x00":
            return values, at
        vr = head[4:6]
        if vr in _LONG_VRS:
            if len(head) < 12:
                break
            (length,), value_at = number(head, 8), at + 12
        elif b"AA" <= vr <= b"ZZ":
            length, value_at = int.from_bytes(head[6:8], "little"), at + 8
        else:
            (length,), value_at = number(head, 4), at + 8
        if value_at + length > source.size:
            break
        values[int.from_bytes(head[2:4], "little")] = source.window(value_at, min(length, _LONGEST_WANTED))
        at = value_at + length
    raise Malformed("the file meta information does not end")


def frames_of(found: Walked) -> int:
    """Number of Frames, where that was wanted; 0 where it is none."""
    return _frames(found.values.get("frames", ("", b""))[1], _MOST_FRAMES)


def _frames(text: bytes, most: int) -> int:
    return min(int(text), most, _MOST_FRAMES) if text.isdigit() and len(text) < 16 else 0


def feed(digest: Any, source: Source, at: int, size: int) -> None:
    """Have a digest take so many bytes from `at` on, or what there is of them."""
    while size > 0 and (piece := source.window(at, min(size, _CHUNK))):
        digest.update(piece)
        at, size = at + len(piece), size - len(piece)


def _as_list(value: bytes) -> bytes:
    """Several values of one element as Python shows a list: the digests in journals have character sets so."""
    words = value.decode("latin-1").split("\\")
    return ("[" + ", ".join(f"'{word}'" for word in words) + "]").encode()


def _unpadded(source: Source, at: int, size: int) -> int:
    """How long a value is without the padding at its end."""
    while size > 0:
        part = min(size, _WINDOW)
        left = len(source.window(at + size - part, part).rstrip(_PADS))
        if left:
            return size - part + left
        size -= part
    return 0
