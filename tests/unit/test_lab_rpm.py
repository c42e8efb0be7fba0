"""Debian payloads become RPMs under RED OS names: versions, file ownership, spec text, the published list."""

import sys
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "lab"
sys.path.insert(0, str(LAB))

from outpost_lab.rpm_build import arrange, survey  # noqa: E402 - the lab is not an installed package
from outpost_lab.rpm_catalogue import CATALOGUE, POSTGRESQL, Payload, Rpm, as_markdown  # noqa: E402
from outpost_lab.rpm_spec import Tree, assign_files, rpm_release, rpm_version, spec  # noqa: E402


@pytest.mark.parametrize(
    ("debian", "version", "release"),
    [
        ("15.20-0+deb12u1", "15.20", "0.deb12u1.red80"),
        ("20.10.24+dfsg1-1+deb12u1+b6", "20.10.24", "1.deb12u1.b6.red80"),
        ("1.6.20~ds1-1+deb12u3", "1.6.20", "1.deb12u3.red80"),
        ("1:14.0.6-12", "14.0.6", "12.red80"),
        ("1.34+dfsg-1.2+deb12u1", "1.34", "1.2.deb12u1.red80"),
        ("2.3", "2.3", "0.red80"),
    ],
)
def test_debian_versions_become_versions_rpm_accepts(debian: str, version: str, release: str) -> None:
    assert (rpm_version(debian), rpm_release(debian)) == (version, release)


def test_postgres_fdw_is_contrib_and_what_initdb_needs_is_server() -> None:
    pg = "/usr/pgsql-15"
    owned = assign_files(
        POSTGRESQL,
        [
            f"{pg}/bin/postgres",
            f"{pg}/bin/initdb",
            f"{pg}/bin/postgresql-15-setup",
            f"{pg}/bin/psql",
            f"{pg}/bin/pg_ctl",
            f"{pg}/bin/pgbench",
            f"{pg}/lib/libpq.so.5",
            f"{pg}/lib/plpgsql.so",
            f"{pg}/lib/utf8_and_win.so",
            f"{pg}/lib/postgres_fdw.so",
            f"{pg}/share/postgres.bki",
            f"{pg}/share/timezonesets/Default",
            f"{pg}/share/extension/adminpack--1.0.sql",
            f"{pg}/share/extension/plpgsql.control",
            f"{pg}/share/extension/postgres_fdw.control",
            "/usr/lib/systemd/system/postgresql-15.service",
        ],
    )
    names = {rpm: {Path(path).name for path in paths} for rpm, paths in owned.items()}
    assert names == {
        "postgresql15-libs": {"libpq.so.5"},
        "postgresql15": {"psql"},
        "postgresql15-server": {
            "postgres",
            "initdb",
            "postgresql-15-setup",
            "pg_ctl",
            "plpgsql.so",
            "utf8_and_win.so",
            "postgres.bki",
            "Default",
            "plpgsql.control",
            "postgresql-15.service",
        },
        "postgresql15-contrib": {"pgbench", "postgres_fdw.so", "postgres_fdw.control", "adminpack--1.0.sql"},
    }


def test_a_file_nobody_claims_stops_the_build_and_names_it() -> None:
    payload = Payload("p", ("deb",), "MIT", rpms=(Rpm("p", "P", files=("/usr/bin/*",)),))
    with pytest.raises(ValueError, match="/etc/surprise"):
        assign_files(payload, ["/usr/bin/p", "/etc/surprise"])


def test_the_spec_keeps_configuration_owns_its_directories_and_leaves_the_systems_alone() -> None:
    payload = Payload(
        "demo",
        ("demo-deb",),
        "MIT",
        rpms=(
            Rpm(
                "demo-server",
                "Demo",
                requires=("demo = {version}-{release}",),
                directories=(("/var/lib/demo", "0700", "demo", "demo"),),
                before_install="getent group demo || groupadd -r demo\n",
                units=("demo.service",),
            ),
        ),
    )
    files = ("/etc/demo.conf", "/usr/share/demo/a", "/var/lib/demo/.profile")
    text = spec(
        payload, "1.2-3", Tree("/tree", files, ("/usr/share/demo", "/usr/share/empty", "/var/lib/demo"))
    )
    listed = text.split("%files -n demo-server\n")[1].splitlines()
    assert listed == [
        "%attr(0700,demo,demo) %dir /var/lib/demo",
        "%dir /usr/share/demo",
        "%config(noreplace) /etc/demo.conf",
        "/usr/share/demo/a",
        "%attr(-,demo,demo) /var/lib/demo/.profile",
    ]
    assert "Requires: demo = 1.2-3.red80\n" in text
    assert "%pre -n demo-server\ngetent group demo" in text
    assert "systemctl --no-reload disable --now demo.service" in text.split("%preun")[1]


def test_a_tree_is_arranged_and_its_licence_survives(tmp_path: Path) -> None:
    for name, content in {
        "lib/systemd/system/demo.service": "ExecStart=/usr/sbin/demod\n",
        "usr/sbin/demod": "elf",
        "usr/share/doc/demo/copyright": "MIT\n",
        "usr/share/doc/demo/changelog": "long\n",
        "etc/init.d/demo": "old\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    payload = Payload(
        "demo",
        ("demo",),
        "MIT",
        rpms=(Rpm("demo", "Demo"),),
        moves=(("/usr/sbin/demod", "/usr/bin/demod"),),
        edits=(("/usr/lib/systemd/system/demo.service", "/usr/sbin/demod", "/usr/bin/demod"),),
        links=(("/etc/demo/demo.conf", "/etc/demo.conf"),),
        drop=("/etc/init.d*",),
    )
    arrange(payload, tmp_path)
    assert sorted(survey(tmp_path).files) == [
        "/etc/demo/demo.conf",
        "/usr/bin/demod",
        "/usr/lib/systemd/system/demo.service",
        "/usr/share/doc/demo/copyright",
    ]
    unit = tmp_path / "usr/lib/systemd/system/demo.service"
    assert unit.read_text() == "ExecStart=/usr/bin/demod\n"


def test_an_edit_that_no_longer_fits_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("ExecStart=/opt/new\n")
    payload = Payload("demo", ("demo",), "MIT", rpms=(), edits=(("/unit", "/usr/sbin/demod", "x"),))
    with pytest.raises(SystemExit, match="correct the catalogue"):
        arrange(payload, tmp_path)


def test_every_unit_named_in_the_catalogue_has_a_daemon_reload_and_no_two_rpms_share_a_name() -> None:
    names = [rpm.name for payload in CATALOGUE for rpm in payload.rpms]
    assert len(names) == len(set(names))
    for payload in CATALOGUE:
        text = spec(payload, "1-1", Tree("/tree", (), ()))
        for rpm in payload.rpms:
            for unit in rpm.units:
                assert f"systemctl preset {' '.join(rpm.units)}" in text, unit


def test_the_published_list_is_the_catalogue() -> None:
    assert (LAB / "mirror.md").read_text() == as_markdown()
