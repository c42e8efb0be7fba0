"""Filter: the headers of a complete study enter, a verdict leaves: which images are worth computing, and why not the
others. It is judged in the killable child, where a hostile header hurts nobody; nothing is deleted for it.
"""
