"""What a person at the host's terminal asks: `outpost status`, `studies`, `events`, `top`, `config check`.

In: the journal and folders of one system, read and never written, and the running service's verdict where it answers.
Out: text for one screen, problem first, in English or Russian, or the same as JSON. Nothing names a patient.
"""
