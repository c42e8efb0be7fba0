"""The HTTP side: health verdicts, studies, STOW-RS, metrics and a status page.

In: requests. Out: what the journal and the running parts say. It decides nothing about a study.
"""
