"""The lab's images use the mirror this machine uses, in whatever format it is written."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))

from outpost_lab.apt_sources import (
    KEYRING,
    Source,
    parse_deb822,
    parse_one_line,
    read_machine,
    sources_for,
)

DEBIAN = {"ID": "debian", "VERSION_CODENAME": "trixie"}


def test_one_line_options_comments_and_deb_src_are_understood() -> None:
    text = """
    # deb http://off.example/debian trixie main
    deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main contrib # ours
    deb-src http://mirror.example/debian trixie main
    deb http://mirror.example/debian-security trixie-security main
    """
    assert parse_one_line(text) == [
        Source("http://mirror.example/debian", "trixie", ("main", "contrib")),
        Source("http://mirror.example/debian-security", "trixie-security", ("main",)),
    ]


def test_deb822_with_continuation_lines_gives_one_source_per_suite() -> None:
    text = """\
Types: deb deb-src
# a comment inside a stanza
URIs: http://mirror.example/debian
Suites: trixie
 trixie-updates
Components: main non-free
Signed-By: /k.gpg

Enabled: no
Types: deb
URIs: http://off.example/
Suites: trixie
Components: main
"""
    assert parse_deb822(text) == [
        Source("http://mirror.example/debian", "trixie", ("main", "non-free")),
        Source("http://mirror.example/debian", "trixie-updates", ("main", "non-free")),
    ]


def test_an_inline_key_block_does_not_disturb_the_fields_after_it() -> None:
    text = """\
Types: deb
URIs: http://mirror.example/debian
Suites: trixie
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
Components: main
"""
    assert parse_deb822(text) == [Source("http://mirror.example/debian", "trixie", ("main",))]


def test_a_mirror_list_of_a_cloud_image_is_followed(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/apt/mirrors").mkdir()
    (tmp_path / "etc/apt/mirrors/debian.list").write_text(
        "# chosen by the provider\nhttp://near.example/debian\n"
    )
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text(
        "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: trixie\nComponents: main\n"
    )
    assert read_machine(tmp_path) == [Source("http://near.example/debian", "trixie", ("main",))]


def test_bookworm_comes_from_the_mirrors_of_the_machines_own_suite() -> None:
    machine = [
        Source("http://near.example/debian", "trixie", ("main",)),
        Source("http://tools.example/apt", "stable", ("main",)),
        Source("http://near.example/debian-security", "trixie-security", ("main",)),
    ]
    assert sources_for("bookworm", DEBIAN, machine) == [
        f"deb [signed-by={KEYRING}] http://near.example/debian bookworm main",
        f"deb [signed-by={KEYRING}] http://near.example/debian-security bookworm-security main",
    ]


def test_an_ubuntu_machines_mirror_is_not_asked_for_debian() -> None:
    machine = [Source("http://near.example/ubuntu", "noble", ("main",))]
    assert sources_for("bookworm", {"ID": "ubuntu", "VERSION_CODENAME": "noble"}, machine) == []


def test_without_a_main_mirror_the_default_is_taken_whole_not_half() -> None:
    machine = [Source("http://near.example/debian-security", "trixie-security", ("main",))]
    assert sources_for("bookworm", DEBIAN, machine) == []
