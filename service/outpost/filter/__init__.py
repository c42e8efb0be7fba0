"""Filter: the files of a complete study enter, a verdict leaves: worth computing, or not and why.

This release accepts every study; what a model cannot read, its bundle rejects (`outpost.inference`).
"""

from outpost.filter.verdict import ACCEPTED, FilterReason, Verdict, judge

__all__ = ["ACCEPTED", "FilterReason", "Verdict", "judge"]
