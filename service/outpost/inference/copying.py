"""A file -> what its result repeats, as bytes.

Read from the file: the headers in memory may have been decoded by then, which loses bytes that are no text in their
character set.
"""

from __future__ import annotations

from outpost.inference.header import ImageHeader
from outpost.intake.header import read_attributes
from outpost.results.copied import EQUIPMENT, KEYWORDS, Copied, copied_from


def read_copied(image: ImageHeader, character_set: str = "") -> Copied:
    """Read what a result repeats of an image.

    Args:
        image: already read once, so its file is sound as far as the pixels.
        character_set: what the site says its texts are really encoded in; empty where it says nothing.
    """
    with image.path.open("rb") as file:
        return copied_from(read_attributes(file, (*KEYWORDS, *EQUIPMENT)), character_set)
