"""What the name of a SOP class says of its objects."""

from __future__ import annotations

from typing import Final

from pydicom._uid_dict import UID_dictionary

# Image Storage in the name: what a model might read. DICOS and Eddy Current images bear other names.
_IMAGE: Final = "Image Storage"


def may_be_an_image(sop_class: str) -> bool:
    """Whether a model might read objects of this class; an unknown or private one is not believed to be."""
    return sop_class in UID_dictionary and _IMAGE in UID_dictionary[sop_class][0]
