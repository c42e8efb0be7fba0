"""Outpost: DICOM studies in, a trained model, DICOM results out, unattended.

One folder is one stage, in the order a study passes them: intake, filter, inference, delivery;
`records` keeps the truth, `health` says whether to believe the service, `api` shows both.
"""

__version__ = "0.1.0"
