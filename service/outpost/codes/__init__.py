"""What is said with a code: each code once, with its meaning and remedy in English and Russian.

A code is an interface (journal, Postgres, metrics, results): never renamed or reused; a text may change. Nothing here
imports a stage.
"""
