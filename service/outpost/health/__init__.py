"""Health: the state of every part enters, a verdict leaves that says whether to believe the service.

`codes` is the table of checks with their remedies; `verdict` judges the running service, `host` what is around
it. Ready means: the golden case passed a moment ago on the workers that compute studies, and everything a study
needs on its way is running.
"""

from outpost.health.codes import CHECKS, CheckCode

# Not `verdict`: it looks at the pipeline, which itself needs the codes.
__all__ = ["CHECKS", "CheckCode"]
