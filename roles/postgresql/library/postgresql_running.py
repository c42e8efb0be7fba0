#!/usr/bin/python
"""Has a PostgreSQL server run on its files, and says where it cannot. Python 3.8, psycopg2."""

DOCUMENTATION = r"""
---
module: postgresql_running
short_description: Have the server run on its files as they are
description:
  - The server is asked, not the run before. It reads its files again, and is restarted where a setting waits for
    that, or the port on which it runs is not the wanted one. So a run that was interrupted is made up for by the next.
  - What the server refuses of its files, a setting that something else outweighs, another certificate than the one in
    the file, and a login that is not let in are failures; a server goes on with what it had, and would not say so.
options:
  unit:
    description: Its systemd unit.
    type: str
    required: true
  port:
    description: The port on which it is to run.
    type: int
    required: true
  settings:
    description: File whose every setting has to act.
    type: path
    required: true
  files:
    description: Further files that it reads, pg_hba.conf among them.
    type: list
    elements: path
    default: []
  changes:
    description: In a dry run, those of these files that the run would have changed before this.
    type: list
    elements: path
    default: []
  certificate:
    description: PEM file whose first certificate it has to show on loopback; empty to ask nothing.
    type: path
    default: ""
  logins:
    description: Roles that have to be let in over loopback, encrypted. Where there are any, nothing else is looked at.
    type: list
    elements: dict
    default: []
    options:
      name:
        description: Of the role.
        type: str
        required: true
      password:
        description: Of the role.
        type: str
        required: true
  database:
    description: Where they log in.
    type: str
    default: postgres
  tells:
    description:
      - Whether to say, instead of failing, which of the logins are let in and are ordinary roles, and what of the
        database is there.
    type: bool
    default: false
  schema_table:
    description: With C(tells), the table of the database that says its version.
    type: str
    default: ""
author: [Outpost]
"""

EXAMPLES = r"""
- name: Have the server run on its files
  postgresql_running:
    unit: postgresql@15-main.service
    port: 5432
    settings: /etc/postgresql/15/main/conf.d/outpost.conf
"""

RETURN = r"""
done:
  description: What was done, or in a dry run would be, a sentence each.
  returned: always
  type: list
  elements: str
state:
  description: >-
    As C(tells) asks: C(roles), names of logins that are as they are wanted, in the server and by their passwords;
    C(database), whether it is there and takes connections without a limit; C(version) of its schema, 0 for none.
  returned: with C(tells)
  type: dict
"""

import os
import pwd
import re
import socket
import ssl
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import psycopg2 as driver
except ImportError:
    try:
        import psycopg as driver
    except ImportError:
        driver = None

READ_SECONDS = 15
START_SECONDS = 60
# Before the first byte of TLS (PostgreSQL's protocol, SSLRequest).
SSL_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])
# Of a value that is none the view says no more than of one that waits for a restart; only the latter is pending.
REFUSED = """
SELECT f.sourcefile, f.sourceline, coalesce(f.name, ''), f.error
  FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
 WHERE f.error IS NOT NULL AND NOT coalesce(s.pending_restart, false)
UNION ALL
SELECT current_setting('hba_file'), line_number, '', error FROM pg_hba_file_rules WHERE error IS NOT NULL
"""
NOT_APPLIED = "setting could not be applied"
# What our file says and something else outweighs: a later file, ALTER SYSTEM, the command line.
OUTWEIGHED = """
SELECT f.name, s.setting, coalesce(s.sourcefile || ':' || s.sourceline, s.source)
  FROM pg_file_settings f JOIN pg_settings s ON lower(s.name) = lower(f.name)
 WHERE f.sourcefile = %s AND NOT f.applied AND f.error IS NULL
   AND (s.sourcefile IS DISTINCT FROM f.sourcefile OR s.source <> 'configuration file')
 ORDER BY f.name
"""


# A login of ours, and nothing more.
ORDINARY = """
SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND rolcanlogin AND NOT rolsuper AND NOT rolcreatedb
   AND NOT rolcreaterole
"""


class Server:
    """The server of a unit: where its data is, and a session as its own superuser."""

    def __init__(self, unit):
        self.unit = unit

    def shown(self, name):
        answer = subprocess.run(
            ["systemctl", "show", "--property=" + name, "--value", self.unit],
            stdout=subprocess.PIPE, check=True, universal_newlines=True,
        )  # fmt: skip
        return answer.stdout.strip()

    def restart(self):
        done = subprocess.run(
            ["systemctl", "restart", self.unit],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, universal_newlines=True,
        )  # fmt: skip
        if done.returncode:
            raise Refused("%s does not restart: %s" % (self.unit, done.stdout.strip()))

    def runs_on(self):
        """Port and directory of sockets, as the postmaster has written them; it works in its data directory."""
        with open("/proc/%s/cwd/postmaster.pid" % self.shown("MainPID")) as file:
            lines = file.read().splitlines()
        return int(lines[3]), lines[4]

    def session(self, database="postgres"):
        port, sockets = self.runs_on()
        data = os.stat("/proc/%s/cwd" % self.shown("MainPID"))
        owner = pwd.getpwuid(data.st_uid)
        # The server lets its own user in over the socket (peer): it sees the effective one of whoever connects.
        if os.getuid() == 0:
            os.setegid(owner.pw_gid)
            os.seteuid(owner.pw_uid)
        try:
            session = driver.connect(
                host=sockets or "127.0.0.1", port=port, user=owner.pw_name, dbname=database, connect_timeout=10,
                options="-c lc_messages=C -c statement_timeout=60000",
            )  # fmt: skip
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
                os.setegid(0)
        session.autocommit = True
        return session

    def ask(self, query, *values, **where):
        session = self.session(**where)
        try:
            with session.cursor() as cursor:
                cursor.execute(query, values or None)
                return cursor.fetchall()
        finally:
            session.close()


class Refused(Exception):
    """Why the server does not run on its files."""


def wait_for(what, seconds, probe):
    """What probe returns once that is true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = probe()
        except (OSError, IndexError, ValueError, driver.OperationalError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise Refused("%s: not within %d s" % (what, seconds))
        time.sleep(0.1)


def changed_after(path, moment):
    try:
        return os.stat(path).st_ctime >= moment
    except OSError:
        return False


def shown_certificate(port):
    """What the server shows on loopback, DER; None where it does not listen there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is compared, byte by byte
    for address in ("127.0.0.1", "::1"):
        try:
            plain = socket.create_connection((address, port), timeout=10)
        except OSError:
            continue
        with plain:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise Refused("the server speaks no TLS on port %d" % port)
            with context.wrap_socket(plain) as secured:
                return secured.getpeercert(True)
    return None


def written_certificate(path):
    with open(path) as file:
        found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", file.read(), re.DOTALL)
    if found is None:
        raise Refused("%s holds no certificate" % path)
    return ssl.PEM_cert_to_DER_cert(found.group(0))


def bring(server, asked, check):
    """Has the server run on its files. Returns what was done."""
    done = []
    ((read_at,),) = server.ask("SELECT extract(epoch FROM pg_conf_load_time())")
    files = [path for path in [asked["settings"], asked["certificate"]] + asked["files"] if path]
    unread = [path for path in files if changed_after(path, float(read_at))]
    if check:
        unread += [path for path in asked["changes"] if path not in unread]
    if unread:
        done.append("the server reads %s" % ", ".join(unread))
    if check:
        return [one + ", and is restarted where one of its settings asks for that" for one in done]
    # Always: the clock may have been set back since. Of a file with a name that it does not know it reads nothing.
    server.ask("SELECT pg_reload_conf()")
    wait_for(
        "the server reads its files", READ_SECONDS,
        lambda: server.ask("SELECT extract(epoch FROM pg_conf_load_time()) <> %s", float(read_at))[0][0]
        or [row for row in server.ask(REFUSED) if row[3] != NOT_APPLIED],
    )  # fmt: skip
    refused = server.ask(REFUSED)
    if refused:
        said = "; ".join(
            "%s:%s: %s" % (row[0], row[1], " ".join(part for part in row[2:] if part)) for row in refused
        )
        raise Refused("the server goes on with its settings of before, it refuses these files: %s" % said)
    waiting = sorted(name for (name,) in server.ask("SELECT name FROM pg_settings WHERE pending_restart"))
    port = server.runs_on()[0]
    if waiting or port != asked["port"]:
        done.append("%s is restarted for %s" % (server.unit, ", ".join(waiting) or "port %d" % asked["port"]))
        server.restart()
        wait_for("the server answers after its restart", START_SECONDS, lambda: server.ask("SELECT 1"))
    judge(server, asked)
    return done


def judge(server, asked):
    port = server.runs_on()[0]
    if not server.ask("SELECT 1 FROM pg_file_settings WHERE sourcefile = %s LIMIT 1", asked["settings"]):
        raise Refused(
            "the server does not read %s: something in postgresql.conf leads elsewhere" % asked["settings"]
        )
    outweighed = server.ask(OUTWEIGHED, asked["settings"])
    if outweighed:
        said = "; ".join("%s is %s by %s" % row for row in outweighed)
        raise Refused(
            "settings of %s do not act: %s. Take them out there (ALTER SYSTEM RESET where that is"
            " postgresql.auto.conf), or name the value in postgresql_settings" % (asked["settings"], said)
        )
    if port != asked["port"]:
        raise Refused("the server runs on port %d, wanted is %d" % (port, asked["port"]))
    if asked["certificate"]:
        shown = shown_certificate(port)
        if shown is not None and shown != written_certificate(asked["certificate"]):
            raise Refused("the server shows another certificate than that of %s" % asked["certificate"])


def turned_away(asked):
    """Name to the server's reason, of the roles that are not let in."""
    shut = {}
    for login in asked["logins"]:
        try:
            driver.connect(
                host="127.0.0.1", port=asked["port"], user=login["name"], password=login["password"],
                dbname=asked["database"], sslmode="require", connect_timeout=10,
            ).close()  # fmt: skip
        except driver.Error as error:
            shut[login["name"]] = " ".join(str(error).split())
    return shut


def log_in(asked):
    """Raises `Refused` with the names of the roles that are not let in, and the server's reason."""
    shut = ["%s: %s" % one for one in turned_away(asked).items()]
    if shut:
        raise Refused("a login is not let in on port %d: %s" % (asked["port"], "; ".join(shut)))


def state(server, asked):
    """What of the logins and the database is there, as `tells` describes it."""
    ordinary = [name for (name,) in server.ask(ORDINARY, [login["name"] for login in asked["logins"]])]
    shut = turned_away(asked)
    limits = server.ask("SELECT datconnlimit FROM pg_database WHERE datname = %s", asked["database"])
    version = 0
    if limits and asked["schema_table"]:
        with_it = {"database": asked["database"]}
        # Its name is ours, out of the playbook.
        if server.ask("SELECT to_regclass(%s) IS NOT NULL", asked["schema_table"], **with_it)[0][0]:
            count = "SELECT coalesce(max(version), 0) FROM %s" % asked["schema_table"]
            version = server.ask(count, **with_it)[0][0]
    return {
        "roles": sorted(name for name in ordinary if name not in shut),
        "database": limits == [(-1,)],
        "version": version,
    }


def main():
    login = {
        "name": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "settings": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "changes": {"type": "list", "elements": "path", "default": []},
            "certificate": {"type": "path", "default": ""},
            "logins": {"type": "list", "elements": "dict", "default": [], "options": login},
            "database": {"type": "str", "default": "postgres"},
            "tells": {"type": "bool", "default": False},
            "schema_table": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if driver is None:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    asked, done = module.params, []
    try:
        if asked["tells"]:
            module.exit_json(changed=False, done=[], state=state(Server(asked["unit"]), asked))
        if asked["logins"]:
            log_in(asked)
        else:
            done = bring(Server(asked["unit"]), asked, module.check_mode)
    except Refused as refused:
        module.fail_json(msg=str(refused), done=done)
    except (OSError, IndexError, ValueError, driver.Error) as error:
        if not module.check_mode:
            module.fail_json(
                msg="%s cannot be asked: %s" % (asked["unit"], " ".join(str(error).split())), done=done
            )
        done = ["the server is started"]
    module.exit_json(changed=bool(done), done=done, diff={"prepared": "".join("%s\n" % one for one in done)})


if __name__ == "__main__":
    main()
