"""Pages that carry all they need in themselves, and a policy that lets a browser run nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from fastapi.responses import HTMLResponse

from outpost.options import Language

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# What an answer that is no page may do in a browser.
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# What every answer says to a browser.
EVERY_ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: a POST of our own pages would then say `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def language_of(asked: str | None, accepted: str) -> Language:
    """The language of a page: the one asked for, else the browser's (Accept-Language), else English."""
    wanted = asked or accepted.strip().lower()[:2]
    return "ru" if wanted == "ru" else "en"


class Page(HTMLResponse):
    """An HTML page of ours. Its first <style> may be applied, as it stands before anything that a sender wrote; of
    scripts only those named in `scripts`, which must not be taken from what the page was filled with.
    """

    def __init__(
        self,
        content: str,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        scripts: Sequence[str] = (),
    ) -> None:
        super().__init__(content, status_code, dict(headers or {}))
        style = _STYLE.search(content)
        policy = [NOTHING, "img-src 'self' blob: data:"]
        if style is not None:
            policy.append(f"style-src {_digest(style[1])}")
        if scripts:
            policy += [f"script-src {' '.join(map(_digest, scripts))}", "connect-src 'self'"]
        self.headers["Content-Security-Policy"] = "; ".join(policy)


def static_page(package: str, name: str) -> Page:
    """A page of the release that nothing is filled into, such as ("outpost.web", "docs.html"); it may have scripts."""
    content = (files(package) / "templates" / name).read_text(encoding="utf-8")
    return Page(content, scripts=_SCRIPT.findall(content))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
