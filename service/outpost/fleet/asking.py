"""Questions of people and programs to the centre's database: bounded in time, and ended when nobody waits any more.

A page that is closed ends its query in the server, by a cancel request; a process that is gone has ended its queries a
second later, as the server looks whether its clients are still there (`sync.connected`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

from outpost import errand
from outpost.errand import Abandoned, TooCostly
from outpost.fleet.config import Centre
from outpost.fleet.sync import CentreError, connected

# Of all statements of one answer together; one alone gets two thirds. Less than a page may take (api/limits.py), so
# that who asks reads what is wrong with the database, and not that the question was too costly.
ANSWER_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
_CANCEL_SECONDS: Final = 2.0

_T = TypeVar("_T")


class _Bounded(psycopg.Connection[TupleRow]):
    """A connection that waits for its server for as long as `go_on` raises nothing."""

    go_on: Callable[[], None] = staticmethod(lambda: None)

    def wait(
        self, gen: PQGen[_T], interval: float = _LOOK_SECONDS, timeout: float | None = None
    ) -> _T:  # every statement of psycopg comes through here
        try:
            return super().wait(_watched(gen, lambda: self.go_on()), interval, timeout)
        except (Abandoned, TooCostly, CentreError):
            # Before the transaction around it would roll back over a line on which nobody answers.
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL_SECONDS)
            self.close()
            raise


@contextmanager
def asking(
    centre: Centre, purpose: str, seconds: float = ANSWER_SECONDS
) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection that only reads, in one transaction: one moment for everything that is asked.

    Raises `CentreError` where there is no answer within `seconds`, and what the errand does (`errand.Errand.check`).
    """
    until = time.monotonic() + seconds
    work = errand.current()
    late = (
        f"the centre's database gave no answer within {seconds:g} s: something holds it up, such as a restore, a full "
        "disk or too little memory; look at PostgreSQL on the centre's host, and ask again"
    )

    def go_on() -> None:
        if work is not None:
            work.check()
        if time.monotonic() > until:
            raise CentreError(late)

    try:
        with connected(centre, purpose, _Bounded) as connection:
            connection.go_on = go_on
            connection.read_only = True
            with connection.transaction():
                connection.execute(
                    sql.SQL(
                        "SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}"
                    ).format(
                        sql.Literal(max(1, int(seconds * 1000 * 2 / 3))), sql.Literal(int(seconds * 1000))
                    )
                )
                yield connection
    except errors.QueryCanceled:
        raise CentreError(late) from None


def _watched(gen: PQGen[_T], go_on: Callable[[], None]) -> PQGen[_T]:
    """`gen`, with `go_on` asked whenever it waits: each time something arrives, and each tenth of a second."""
    try:
        awaited = next(gen)
        while True:
            go_on()
            awaited = gen.send((yield awaited))
    except StopIteration as end:
        answer: _T = end.value
        return answer
