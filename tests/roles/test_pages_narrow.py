"""The pages of preflight on a telephone: in a real browser, 360 pixels wide, nothing is wider than the screen."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from outpost.fleet.page import render as fleet_page
from outpost.fleet.view import Health, Region
from outpost.fleet.words import all_words
from outpost.options import Language
from outpost.platform.page import host_page, index_page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = "a-very-long-name-of-a-host-in-a-region-far-away.example-hospital.region-75.internal"


def line(code: str, level: str) -> dict[str, Any]:
    return {
        "code": code, "level": level, "ok": level == "ok", "subject": "/var/lib/outpost/with/a/long/path/of/a/system",
        "value": "NVIDIA GeForce GTX 1080 Ti (10de:1b06) with driver 580.95.05 at 0000:01:00.0", "verified": False,
        "wanted": "at least 8192 MiB of memory and a driver of 580 or newer, see the release's manifest",
        "remedy": "Run `outpost platform verdict --gpu 10de:1b06 --driver 580.95.05 --torch 2.13.0+cu126` and read it.",
        "proves": "It fits.", "source": "https://example.org/a/very/long/address/without/any/place/to/break/it.html",
        "runbook": "docs/runbooks/en/new-server.md#host",
    }  # fmt: skip


def report(host: str) -> dict[str, Any]:
    codes = ("memory", "disk", "torch-arch", "gpu-driver", "port-free", "clock-skew", "os-supported")
    return {
        "host": host, "language": "ru", "level": "critical", "status": "работать не будет",
        "asked": {"torch": "2.13.0"}, "systems": {"brain": "critical"},
        "platform": {"pretty": "Astra Linux 1.8_x86-64 (Smolensk)", "gpus": ["10de:1b06"]},
        "lines": [line(code, level) for level in ("critical", "warning", "ok") for code in codes],
    }  # fmt: skip


def fleet(language: Language) -> str:
    """The centre's page with every reason there is, in one card."""
    words = {code: text for code, text in all_words().items() if "FAULT" not in code}
    why, why_ru = ([getattr(text, tongue) for text in words.values()] for tongue in ("en", "ru"))
    at = datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC)
    health = Health(
        "chita", LONG, "brain", "red", "", "", list(words), at, at, 4.0, at, "failed", [], False, "full", "", 3, 1.0, 0,
        None, 1000, 50.0, 500, None, "2026.11.30-a-release-with-a-long-name", "b", "1", 1, 1, 0.0, why, why_ru,
    )  # fmt: skip
    region = Region(
        "chita", LONG, "stale", 400.0, at, 0, 0.1, f"no answer from {LONG}:5432", "unreachable", None, 3, at, at, 10, 0,
        0.1, "0.1.0", "red", f"no answer from {LONG}", f"нет ответа от {LONG}",
    )  # fmt: skip
    return fleet_page([region], [], [], at, health=[health], language=language)


PAGES = {
    "fleet": fleet("en"),
    "fleet-ru": fleet("ru"),
    "host": host_page(report(LONG), "30.11.2026 15:00 UTC"),
    "index": index_page(
        [report(LONG)], ["tver"], "ru", "30.11.2026 15:00 UTC", [(report("chita"), "29.11.2026")]
    ),
}


def widths(page: str, tmp_path: Path) -> tuple[int, int]:
    """(width of the content, width of the widest element's right edge) in a frame of 360 pixels."""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe style="width:360px;height:800px;border:0" srcdoc="{html.escape(page)}"></iframe><script>'
        "onload = () => { const d = document.querySelector('iframe').contentDocument;"
        "const right = Math.max(...[...d.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right));"
        "document.title = d.documentElement.scrollWidth + ' ' + Math.ceil(right); }</script>"
    )
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=3000", "--dump-dom", frame.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found is not None, done.stdout[:500] + done.stderr[-500:]
    return int(found.group(1)), int(found.group(2))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_telephone(name: str, tmp_path: Path) -> None:
    content, right = widths(PAGES[name], tmp_path)
    assert content <= 360
    assert right <= 360


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_measure_sees_a_page_that_is_too_wide(tmp_path: Path) -> None:
    wide = PAGES["host"].replace("</style>", "td { white-space: nowrap }</style>")
    assert widths(wide, tmp_path)[0] > 360
