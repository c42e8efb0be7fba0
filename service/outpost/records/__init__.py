"""The truth about every study.

In: state changes from every stage. Out: rows for the API and for the region's Postgres.
Promise: what `journal` has said is on disk; Postgres may be away for weeks without a study waiting for it.
"""
