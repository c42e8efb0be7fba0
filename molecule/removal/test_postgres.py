"""Two clusters on a host, a data directory that is gone, the database brought into another cluster, killed halfway."""

from __future__ import annotations

import json
import time

from test_removal import STAYS, changed, on, playbook

REGION_PLAY = "playbooks/region.yml"
UPGRADE = ("playbooks/postgres_upgrade.yml", STAYS, "-e", "postgresql_upgrade_to=15/next")


def mark() -> dict[str, str]:
    return dict(json.loads(on("cat /etc/outpost/database-outpost.json")))


def rows() -> str:
    return on(
        "cd / && sudo -u postgres psql -p 5432 -d outpost -Atc 'SELECT count(*) FROM outpost.heartbeats'"
    )


def heartbeats_go_on(seconds: float = 150) -> None:
    before = int(rows())
    deadline = time.monotonic() + seconds
    while int(rows()) <= before:
        assert time.monotonic() < deadline, "no row came after the switch"
        time.sleep(3)


def test_a_second_cluster_is_left_alone_and_ours_found_though_it_is_down() -> None:
    on("pg_createcluster 15 newer --port 5440 && pg_ctlcluster 15 newer start && pg_ctlcluster 15 main stop")
    status, said = playbook(REGION_PLAY, STAYS)
    assert status == 0, said[-4000:]
    assert "15 main 5432 online" in " ".join(on("pg_lsclusters").split())
    assert on("sudo -u postgres psql -p 5440 -Atc 'SELECT datname FROM pg_database' | grep outpost") == ""


def test_two_that_hold_our_name_are_told_apart_by_what_the_host_remembers() -> None:
    on("sudo -u postgres createdb -p 5440 outpost; sudo -u postgres psql -p 5440 -c CHECKPOINT")
    status, said = playbook(REGION_PLAY, STAYS)
    assert (status, changed(said)) == (0, 0), said[-3000:]
    on("mv /etc/outpost/database-outpost.json /root/")
    status, said = playbook(REGION_PLAY, STAYS)
    on("mv /root/database-outpost.json /etc/outpost/; pg_dropcluster --stop 15 newer")
    assert status == 2
    assert "2 clusters hold a database of that name" in said
    assert "15/newer in /var/lib/postgresql/15/newer, port 5440, runs, databases outpost" in said
    assert changed(said) == 0


def test_a_data_directory_that_is_gone_is_not_made_again() -> None:
    data = "/var/lib/postgresql/15/main"
    on(f"pg_ctlcluster 15 main stop; mv {data} /var/lib/postgresql/away; mkdir {data}")
    status, said = playbook(REGION_PLAY, STAYS)
    left = on(f"ls -A {data}")
    on(f"rmdir {data}; mv /var/lib/postgresql/away {data}; pg_ctlcluster 15 main start")
    assert status == 2
    assert "is not on this host" in said
    assert left == "", "nothing was made in the empty directory"


def test_an_upgrade_killed_on_the_way_goes_on_or_back() -> None:
    before = rows()
    playbook(*UPGRADE, kill_at="Copy the database")
    # Back: the role's ordinary run lets everybody in again.
    status, said = playbook(REGION_PLAY, STAYS)
    assert status == 0, said[-4000:]
    assert mark()["name"] == "main"
    for point in (
        "Count the rows of every table, in both",
        "Remember the new one",
        "Set the new server up as ours, on our port",
    ):
        playbook(*UPGRADE, kill_at=point)
    status, said = playbook(*UPGRADE)
    assert status == 0, said[-4000:]
    assert mark()["name"] == "next"
    assert int(rows()) >= int(before)
    heartbeats_go_on()
    found = " ".join(on("pg_lsclusters").split())
    assert "15 next 5432 online" in found
    assert "15 main 5432 down" in found, "the old one stays"
    status, said = playbook(REGION_PLAY, STAYS)
    assert (status, changed(said)) == (0, 0), said[-3000:]


def test_an_upgrade_that_fails_takes_itself_back() -> None:
    status, said = playbook("playbooks/postgres_upgrade.yml", STAYS, "-e", "postgresql_upgrade_to=14/main")
    assert status == 2
    assert "PostgreSQL 14 is not installed (there is: 15)" in said
    # The new server lets nobody in.
    on(
        "pg_createcluster 15 third; "
        "sed -i 's/^local .*/local all all reject/' /etc/postgresql/15/third/pg_hba.conf"
    )
    status, said = playbook("playbooks/postgres_upgrade.yml", STAYS, "-e", "postgresql_upgrade_to=15/third")
    assert status == 2
    assert "the upgrade was taken back, 15/next serves as before" in said
    assert mark()["name"] == "next"
    heartbeats_go_on()
    on("pg_dropcluster --stop 15 third")
    status, said = playbook(REGION_PLAY, STAYS)
    assert (status, changed(said)) == (0, 0), said[-3000:]
