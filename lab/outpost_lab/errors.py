"""The one error the lab shows to people: a sentence with the value, the reason and the remedy."""


class LabError(Exception):
    """Something a person has to change before the lab can go on."""
