"""What leaves as a result: DICOM objects that say of whom, of what and how they were made. Imports no stage."""
