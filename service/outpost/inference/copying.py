"""A file -> what its result repeats, as bytes.

Read from the file: the headers in memory may have been decoded by then, which loses bytes that are no text in their
character set.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from outpost.inference.header import ImageHeader
from outpost.intake.header import read_attributes
from outpost.results.copied import EQUIPMENT, KEYWORDS, Copied, copied_from


def read_copied(image: ImageHeader, character_set: str = "") -> Copied:
    """Read what a result repeats of an image. Never fails on what is in it.

    Args:
        image: already read once.
        character_set: what the site says its texts are really encoded in; empty where it says nothing.

    Raises:
        OSError: its file is gone.
    """
    with image.path.open("rb") as file:
        try:
            source: Dataset = read_attributes(file, (*KEYWORDS, *EQUIPMENT))
        except Exception:  # pydicom raises many types; what it was read by the first time was more lenient
            source = image.dataset
    return copied_from(source, character_set)
