"""Tables of compacted reports: of each run, some thousand reports compressed into one row.

A report that is read from a segment is the one that was stored, byte by byte, and keeps its id. Its
sender and number are kept as the last number of each sender, which sends them in order: a report
that is sent again is known.

The functions take an open connection, so that several writes can share one transaction.

Reading order: page, pack, replace, reports.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa

from penumbra.deployments.store.report_tables import REPORT_RUNS, REPORTS

_metadata = sa.MetaData()
_SEGMENTS = sa.Table(
    "report_segments",
    _metadata,
    sa.Column("run", sa.String, primary_key=True),
    sa.Column("first", sa.BigInteger, primary_key=True),
    sa.Column("last", sa.BigInteger),
    sa.Column("reports", sa.Integer),
    sa.Column("at", sa.String),
    sa.Column("payload", sa.LargeBinary),
)
_SENDERS = sa.Table(
    "report_senders",
    _metadata,
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("incarnation", sa.String, primary_key=True),
    sa.Column("seq", sa.BigInteger),
)
Numbered = tuple[int, str]
"""Id of a report, and its payload as it was stored."""

_decode = msgspec.msgpack.Decoder(list[Numbered]).decode
_MOST_BYTES = 256 * 1024 * 1024
_PAGE_CHARS = 8_000_000
"""Payload after which a page ends, however few its reports are."""
_DROPPED = 20
"""Segments that are deleted at once."""


@dataclass(frozen=True, slots=True)
class Page:
    """Reports of one run, as rows, that are to be one segment."""

    run: str
    reports: list[Numbered]
    senders: dict[tuple[str, str], int]
    """(source, process start id) -> largest number among them."""
    at: str
    """When the last of them was stored."""


def page(connection: sa.Connection, run: str, before: datetime, most: int) -> Page | None:
    """Reads the oldest rows of a run that were stored before a time; None if they are too few.

    The row with the largest id is left: its id must not be given to another.
    """
    newest = sa.select(sa.func.max(REPORTS.c.id)).scalar_subquery()
    own = sa.select(REPORT_RUNS.c.report).where(
        REPORT_RUNS.c.run == run, REPORT_RUNS.c.report < newest
    )
    numbers = [*connection.execute(own.order_by(REPORT_RUNS.c.report).limit(most)).scalars()]
    if len(numbers) < most:
        return None
    last = sa.select(REPORTS.c.at).where(REPORTS.c.id == numbers[-1])
    if (connection.execute(last).scalar() or "") >= before.isoformat():
        return None
    query = sa.select(REPORTS).where(REPORTS.c.id.in_(numbers)).order_by(REPORTS.c.id)
    rows, size = [], 0
    for row in connection.execute(query.execution_options(yield_per=50)).mappings():
        rows.append(row)
        size += len(row["payload"])
        if size > _PAGE_CHARS:
            break  # large reports: fewer of them
    senders: dict[tuple[str, str], int] = {}
    for row in rows:
        sender = row["source"], row["incarnation"]
        senders[sender] = max(row["seq"], senders.get(sender, row["seq"]))
    return Page(run, [(row["id"], row["payload"]) for row in rows], senders, rows[-1]["at"])


def pack(found: Page) -> bytes:
    """Compress the reports of a page."""
    return zlib.compress(msgspec.msgpack.encode(found.reports), 6)


def replace(connection: sa.Connection, found: Page, packed: bytes) -> None:
    """Puts a segment in place of the rows of a page."""
    numbers = [number for number, _ in found.reports]
    row = {
        "run": found.run,
        "first": numbers[0],
        "last": numbers[-1],
        "reports": len(numbers),
        "at": found.at,
        "payload": packed,
    }
    connection.execute(sa.insert(_SEGMENTS), row)
    for (source, incarnation), seq in found.senders.items():
        known = last_number(connection, source, incarnation)
        own = _SENDERS.c.source == source, _SENDERS.c.incarnation == incarnation
        connection.execute(sa.delete(_SENDERS).where(*own))
        values = {"source": source, "incarnation": incarnation, "seq": max(seq, known)}
        connection.execute(sa.insert(_SENDERS), values)
    delete_rows(connection, found.run, numbers)


def delete_rows(connection: sa.Connection, run: str, numbers: Sequence[int]) -> None:
    """Deletes the rows of some reports of a run, but for those that are another run's as well."""
    own = REPORT_RUNS.c.run == run, REPORT_RUNS.c.report.in_(numbers)
    connection.execute(sa.delete(REPORT_RUNS).where(*own))
    others = sa.select(REPORT_RUNS.c.report).where(REPORT_RUNS.c.report.in_(numbers))
    orphans = REPORTS.c.id.in_(numbers), REPORTS.c.id.not_in(others)
    connection.execute(sa.delete(REPORTS).where(*orphans))


def last_number(connection: sa.Connection, source: str, incarnation: str) -> int:
    """Reads the largest number of a sender's reports that were compacted; 0 if none was."""
    query = sa.select(_SENDERS.c.seq).where(
        _SENDERS.c.source == source, _SENDERS.c.incarnation == incarnation
    )
    return connection.execute(query).scalar() or 0


def reports(connection: sa.Connection, run: str, after: int = 0) -> Iterator[Numbered]:
    """Reads the compacted reports of a run, in the order in which they were stored.

    Args:
        connection: An open connection.
        run: Id of the run.
        after: Id of the report after which to begin.

    Raises:
        MsgspecError: A segment cannot be read.
    """
    query = (
        sa.select(_SEGMENTS.c.payload)
        .where(_SEGMENTS.c.run == run, _SEGMENTS.c.last > after)
        .order_by(_SEGMENTS.c.first)
        .execution_options(yield_per=1)
    )
    for (payload,) in connection.execute(query):
        yield from (found for found in unpack(payload) if found[0] > after)


def unpack(payload: bytes) -> list[Numbered]:
    """Read the reports of a segment.

    Raises:
        MsgspecError: It cannot be read.
    """
    unpacker = zlib.decompressobj()
    try:
        written = unpacker.decompress(payload, _MOST_BYTES)
    except zlib.error as error:
        raise msgspec.DecodeError(f"a segment of reports is damaged: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise msgspec.DecodeError("a segment of reports is damaged: it ends too early or too late")
    return _decode(written)


def runs(connection: sa.Connection) -> set[str]:
    """Lists the runs that have segments."""
    return set(connection.execute(sa.select(_SEGMENTS.c.run).distinct()).scalars())


def has_until(connection: sa.Connection, run: str, until: int) -> bool:
    """Tells whether a run has a segment whose reports all have ids up to one."""
    query = sa.select(_SEGMENTS.c.first).where(_SEGMENTS.c.run == run, _SEGMENTS.c.last <= until)
    return connection.execute(query.limit(1)).first() is not None


def drop(connection: sa.Connection, run: str, until: int | None = None) -> bool:
    """Deletes some segments of a run, oldest first; returns whether there may be more.

    Args:
        connection: An open connection.
        run: Id of the run.
        until: The largest id of a report that may be deleted; None: all, the run is over.
    """
    query = sa.select(_SEGMENTS.c.first).where(_SEGMENTS.c.run == run)
    if until is not None:
        query = query.where(_SEGMENTS.c.last <= until)
    first = [*connection.execute(query.order_by(_SEGMENTS.c.first).limit(_DROPPED)).scalars()]
    own = _SEGMENTS.c.run == run, _SEGMENTS.c.first.in_(first)
    connection.execute(sa.delete(_SEGMENTS).where(*own))
    return len(first) == _DROPPED


def damaged(connection: sa.Connection) -> Iterator[tuple[str, int, str]]:
    """Reads every segment; yields run, first id and reason of each that cannot be read."""
    query = sa.select(_SEGMENTS)
    for row in connection.execute(query.execution_options(yield_per=1)).mappings():
        try:
            found = unpack(row["payload"])
        except (msgspec.MsgspecError, UnicodeError) as error:
            yield row["run"], row["first"], f"{type(error).__name__}: {error}"
            continue
        if len(found) != row["reports"]:
            told = f"found {len(found)} reports, wanted {row['reports']}"
            yield row["run"], row["first"], told
