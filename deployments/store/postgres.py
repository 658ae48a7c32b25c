"""Deadlines of every wait for PostgreSQL: to connect, for statements and locks, and in silence.

The server ends statements and waits for locks by itself. A server that is stopped, or a network
that is cut, ends nothing and says nothing: so a connection that hears nothing for a while is closed
from here, whatever it waits for.
"""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")

CONNECT_SECONDS = 3
"""Longest wait for each address of the server."""
STATEMENT_SECONDS = 10.0
"""Longest time for one statement of a transaction that writes, by the server."""
LOCK_SECONDS = 3.0
"""Longest wait for another transaction's lock; also longest time for which a transaction may do
nothing: it holds the row of the fencing lease, and would keep all others out."""
SILENCE_SECONDS = 12.0
"""Longest time without a byte from the server while it is to answer: more than a statement may
take, so that the server is the one to say so."""
PATIENT_SECONDS = 600.0
"""The same for migrations."""
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}

_LIMITS = sa.select(
    *(
        sa.func.set_config(name, str(round(1000 * seconds)), True)
        for name, seconds in (
            ("statement_timeout", STATEMENT_SECONDS),
            ("lock_timeout", LOCK_SECONDS),
            ("idle_in_transaction_session_timeout", LOCK_SECONDS),
        )
    )
)


def limit_silence(engine: sa.Engine, seconds: float = SILENCE_SECONDS) -> None:
    """Give all waits of an engine's connections to PostgreSQL a deadline.

    Args:
        engine: Of any database; nothing happens if it is another one, or has another driver.
        seconds: Longest time without a byte from the server.
    """
    if engine.dialect.name != "postgresql" or engine.dialect.driver != "psycopg":
        return

    def connect(dialect: object, record: object, arguments: Any, settings: dict[str, Any]) -> Any:
        del dialect, record
        limits = {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVE}
        limits["tcp_user_timeout"] = round(1000 * seconds)
        return _connection_class(seconds).connect(*arguments, **{**limits, **settings})

    sa.event.listen(engine, "do_connect", connect)


def limit_transaction(connection: sa.Connection) -> None:
    """Have PostgreSQL end a transaction that writes where its statements or waits take too long.

    For this transaction only, so that a pooler hands no setting to another client. One that reads
    holds nothing that others wait for, and may be long where the history is.

    Args:
        connection: To any database, in a transaction that has done nothing yet; nothing happens if
            it is another database.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LIMITS)


def _connection_class(seconds: float) -> Any:
    import psycopg  # an extra

    class Connection(psycopg.Connection[Any]):
        """A connection that is closed when the server is silent for too long."""

        def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **more: Any) -> T:
            """Run one exchange with the server; psycopg calls it for all but connecting."""
            return super().wait(self._end_silence(gen), *arguments, **more)

        def _end_silence(self, exchange: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
            heard_at = time.monotonic()
            try:
                wanted = next(exchange)
                while True:
                    ready = yield wanted
                    if ready:
                        heard_at = time.monotonic()
                    elif time.monotonic() - heard_at > seconds:
                        self.pgconn.finish()  # not used again, whatever arrives
                        raise psycopg.OperationalError(f"no answer for {seconds:g} s")
                    wanted = exchange.send(ready)
            except StopIteration as end:
                result: T = end.value
                return result

    return Connection
