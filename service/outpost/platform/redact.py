"""Takes secrets and patient data out of a line of text before it leaves a host's admin.

Rather too much than too little: a lost word of a log costs a question, a name that got out cannot be called back.
What stays on purpose: versions, package names, private addresses, image digests, study counts.
"""

from __future__ import annotations

import re
from typing import Final

# Anything that is called a secret, and what a DICOM header calls a person: the rest of the line goes.
_NAMED: Final = re.compile(
    r"""(?ix)
    (?P<key>
      [\w.-]* (?: passw(?:or)?d | passphrase | passwd | secret | token | api[_-]?key | private[_-]?key | credential
        | authorization | cookie | htpasswd | dsn ) [\w.-]*
      | [\w.-]*[_-]key
      | patient[\w ]* | (?:referring|performing|operator|physician)[\w ]* | other\ ?patient[\w ]* | birth[\w ]*
      | accession[\w ]*
    )
    (?P<between> ["']? \s* [=:] \s* )
    \S.* $"""
)
# The DICOM group of the patient, as dumps print it.
_TAG: Final = re.compile(r"(?i)(?P<tag>\(?\s*0010\s*,\s*[0-9a-f]{4}\s*\)?).*$")
_FLAG: Final = re.compile(r"(?i)(--?[\w-]*(?:pass|secret|token|key)[\w-]*[= ])\S+")
_PATTERNS: Final = (
    # user:password@host, and the user alone: it may be a token.
    (re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://)[^/\s@]+@"), r"\g<head>[redacted]@"),
    (re.compile(r"(?i)\b(bearer|basic|negotiate)\s+\S+"), r"\1 [redacted]"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(\.[\w-]*)?"), "[token]"),
    (re.compile(r"\b(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-\S+)\s+\S+(?:\s+\S+@\S+)?"), "[key]"),
    # A digest of an image or a file says which release runs; glued to its name it is no secret.
    (re.compile(r"(?<!sha256:)\b(?=[0-9A-Za-z]*\d)(?=[0-9A-Za-z]*[A-Za-z])[0-9A-Za-z]{24,}={0,2}"), "[secret]"),
    (re.compile(r"(?<!sha256:)(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{28,}={0,2}"), "[secret]"),
    # DICOM: UIDs, person names with carets, dates without dashes.
    (re.compile(r"\b\d+(?:\.\d+){6,}\b|\b2\.25\.\d+\b|\b[012](?:\.\d+){2,}\.\d{6,}\b"), "[uid]"),
    (re.compile(r"[^\s\"'=:,\[\](){}]+\^[^\s\"',\[\](){}]*(?:\s[^\s\"'=:,\[\](){}]*\^[^\s\"',]*)*"), "[name]"),
    (re.compile(r"(?<![\d.])(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![\d.])"), "[date]"),
    (re.compile(r"(?<!\d)(?:0[1-9]|[12]\d|3[01])[./](?:0[1-9]|1[0-2])[./](?:19|20)\d{2}(?!\d)"), "[date]"),
    # Russian names: two words with capitals, or a surname with initials.
    (re.compile(r"[А-ЯЁ][а-яё-]+\s+[А-ЯЁ]\.\s?[А-ЯЁ]?\.?"), "[name]"),
    (re.compile(r"\b[А-ЯЁ][А-ЯЁа-яё-]+(?:\s+[А-ЯЁ][А-ЯЁа-яё-]+)+"), "[name]"),
    # Numbers people are known by: SNILS, the insurance policy, a telephone; addresses of mail; network cards.
    (re.compile(r"(?<!\d)\d{3}-\d{3}-\d{3}[ -]\d{2}(?!\d)"), "[number]"),
    (re.compile(r"(?<![\d.])\d{16}(?![\d.])"), "[number]"),
    (re.compile(r"(?<!\d)(?:\+7|8)[ (-]*\d{3}[ )-]*\d{3}[ -]?\d{2}[ -]?\d{2}(?!\d)"), "[phone]"),
    (
        # A unit's instance (outpost@brain.service) looks like an address and is none.
        re.compile(r"[\w.+-]+@(?![\w.-]+\.(?:service|socket|timer|slice|path|target)\b)[\w-]+\.[\w.-]+"),
        "[mail]",
    ),
    (re.compile(r"(?i)(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-f:])"), "[mac]"),
)  # fmt: skip


def redact(line: str) -> str:
    """The line without secrets and patient data; what was taken out leaves a word in brackets."""
    line = _NAMED.sub(r"\g<key>\g<between>[redacted]", line)
    line = _TAG.sub(r"\g<tag> [redacted]", line)
    line = _FLAG.sub(r"\1[redacted]", line)
    for pattern, replacement in _PATTERNS:
        line = pattern.sub(replacement, line)
    return line
