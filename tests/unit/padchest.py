"""The header table of PadChest (160,861 chest images of one hospital, 2007-2017), from the installed package."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

TABLE = "torchxrayvision/data/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
COLUMNS = {
    "StudyDate": "StudyDate_DICOM",
    "PatientBirthYear": "PatientBirth",
    "PatientSex": "PatientSex_DICOM",
    "Modality": "Modality_DICOM",
    "Manufacturer": "Manufacturer_DICOM",
    "ViewPosition": "ViewPosition_DICOM",
    "PhotometricInterpretation": "PhotometricInterpretation_DICOM",
    "BitsStored": "BitsStored_DICOM",
    "Rows": "Rows_DICOM",
    "Columns": "Columns_DICOM",
    "Exposure": "Exposure_DICOM",
    "PixelSpacing": "SpatialResolution_DICOM",
}


def table() -> Path:
    """Where the table is; torchxrayvision itself is not imported, it wants torchvision."""
    return Path(str(distribution("torchxrayvision").locate_file(TABLE)))
