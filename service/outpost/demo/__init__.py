"""Demonstration tools: a head volume of a Debian package enters as a DICOM series; the result is measured.

They run beside the service, not in it: they need the development requirements and are not in the image.
"""

from pathlib import Path

TEMPLATES = Path("/usr/share/mricron/templates")  # of Debian's mricron-data
