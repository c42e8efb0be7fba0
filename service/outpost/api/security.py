"""Tokens of the HTTP API; what they are, and who may do what with them, is in `outpost.web.tokens`."""

from outpost.web.tokens import Guard, digest, new_token

__all__ = ["Guard", "digest", "new_token"]
