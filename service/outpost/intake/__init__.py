"""Intake: DICOM instances enter by C-STORE (`scp`) or STOW-RS (`stow`), complete studies leave.

`spool` makes an instance durable and journalled before anyone is told Success; `assembly` decides when
a study is complete. Bytes that cannot be taken are refused with a code and kept in quarantine, never dropped.
"""
