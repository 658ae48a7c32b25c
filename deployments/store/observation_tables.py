"""Tables of reports, user judgements and times of rollbacks.

The functions take an open connection, so that several writes can share one transaction.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from penumbra.deployments.history.user_feedback import UserFeedback
from penumbra.deployments.store import segment_tables
from penumbra.deployments.store.report_tables import REPORT_RUNS, REPORTS
from penumbra.monitoring.observations import Report

_metadata = sa.MetaData()
_FEEDBACK = sa.Table(
    "feedback",
    _metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("at", sa.String),
    sa.Column("model", sa.String),
    sa.Column("variant", sa.String),
    sa.Column("slice", sa.String),
    sa.Column("judgement", sa.Text),
)
_ROLLBACKS = sa.Table(
    "rollbacks",
    _metadata,
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String),
    sa.Column("candidate", sa.String),
    sa.Column("observed_at", sa.Float),
    sa.Column("durable_at", sa.Float),
    sa.Column("acknowledged_at", sa.Float),
    sa.Column("gateways", sa.Integer),
)

_encode = msgspec.json.Encoder().encode
_report = msgspec.json.Decoder(Report)
_judgement = msgspec.json.Decoder(UserFeedback)

_PAGE = 500


@dataclass(frozen=True, slots=True)
class CommitExtras:
    """Reports and judgements to store in one transaction, with events or without."""

    reports: Sequence[Report] = ()
    judgements: Sequence[UserFeedback] = ()


@dataclass(frozen=True, slots=True)
class RollbackTimes:
    """Times of one rollback, Unix seconds."""

    epoch: int
    model: str
    candidate: str
    observed_at: float | None
    """Time of the deciding observation; None if a person decided."""
    durable_at: float
    acknowledged_at: float | None
    """Time of the last acknowledgement; None unless every connected gateway acknowledged."""
    gateways: int


def insert(connection: sa.Connection, extras: CommitExtras, at: datetime) -> None:
    """Stores reports and judgements.

    Raises:
        IntegrityError: A report or judgement is stored already.
    """
    for report in extras.reports:
        if not report.runs:
            continue  # of no run that is watched: nothing would ever read it
        row = {
            "source": report.source,
            "incarnation": report.process_start_id,
            "seq": report.seq,
            "at": at.isoformat(),
            "payload": _encode(report).decode(),
        }
        result = connection.execute(sa.insert(REPORTS), row)
        number = result.inserted_primary_key[0] if result.inserted_primary_key else None
        runs = dict.fromkeys(run_report.run.id for run_report in report.runs)
        rows = [{"run": run, "report": number} for run in runs]
        connection.execute(sa.insert(REPORT_RUNS), rows)
    if extras.judgements:
        connection.execute(
            sa.insert(_FEEDBACK), [_feedback_row(judgement, at) for judgement in extras.judgements]
        )


def reports(
    connection: sa.Connection,
    run: str,
    until: tuple[str, str, int] | None = None,
    unreadable: list[int] | None = None,
    after: int = 0,
) -> Iterator[Report]:
    """Reads the reports of a run, in the order in which they were stored, compacted ones first.

    Args:
        connection: An open connection.
        run: Id of the run.
        until: (source, process start id, sequence number) of the last report to read.
        unreadable: Takes the ids of reports that cannot be read, 0 for those of a whole segment;
            None: the first such report is an error.
        after: Id of the report after which to begin.
    """
    for number, payload in _stored(connection, run, unreadable, after):
        try:
            report = _report.decode(payload)
        except (msgspec.MsgspecError, TypeError, UnicodeError):
            if unreadable is None:
                raise
            unreadable.append(number)
            continue
        yield report
        if (report.source, report.process_start_id, report.seq) == until:
            return


def _stored(
    connection: sa.Connection, run: str, unreadable: list[int] | None, after: int
) -> Iterator[segment_tables.Numbered]:
    try:
        yield from segment_tables.reports(connection, run, after)
    except msgspec.MsgspecError:
        if unreadable is None:
            raise
        unreadable.append(0)
        return
    own = sa.select(REPORT_RUNS.c.report).where(
        REPORT_RUNS.c.run == run, REPORT_RUNS.c.report > after
    )
    query = (
        sa.select(REPORTS.c.id, REPORTS.c.payload)
        .where(REPORTS.c.id.in_(own))
        .order_by(REPORTS.c.id)
        # One query, read piece by piece: a run may have more reports than fit into memory.
        .execution_options(yield_per=_PAGE)
    )
    for row in connection.execute(query):
        yield row[0], row[1]


def last_report(connection: sa.Connection) -> int:
    """Reads the id of the report that was stored last; 0 if there is none."""
    return connection.execute(sa.select(sa.func.max(REPORTS.c.id))).scalar() or 0


def known(connection: sa.Connection, wanted: Iterable[Report]) -> set[tuple[str, str, int]]:
    """Returns which of some reports are stored, as (source, process start id, sequence number)."""
    found = set()
    for report in wanted:
        name = (report.source, report.process_start_id, report.seq)
        query = sa.select(REPORTS.c.id).where(
            REPORTS.c.source == name[0],
            REPORTS.c.incarnation == name[1],
            REPORTS.c.seq == name[2],
        )
        is_row = connection.execute(query).first() is not None
        if is_row or report.seq <= segment_tables.last_number(connection, *name[:2]):
            found.add(name)
    return found


def judgement(connection: sa.Connection, tenant: str, request_id: str) -> UserFeedback | None:
    """Reads the judgement of a request; None if there is none."""
    query = sa.select(_FEEDBACK.c.judgement).where(
        _FEEDBACK.c.tenant == tenant, _FEEDBACK.c.request_id == request_id
    )
    text = connection.execute(query).scalar()
    return None if text is None else _judgement.decode(text)


def insert_times(connection: sa.Connection, times: RollbackTimes) -> None:
    """Stores the times of a rollback."""
    connection.execute(sa.insert(_ROLLBACKS), asdict(times))


def times_of(connection: sa.Connection, epoch: int) -> RollbackTimes | None:
    """Reads the times of a rollback; None if the process ended before they were known."""
    row = connection.execute(sa.select(_ROLLBACKS).where(_ROLLBACKS.c.epoch == epoch)).mappings()
    found = row.first()
    return None if found is None else RollbackTimes(**found)


def all_times(connection: sa.Connection) -> list[RollbackTimes]:
    """Reads the times of all rollbacks, oldest first."""
    rows = connection.execute(sa.select(_ROLLBACKS).order_by(_ROLLBACKS.c.epoch)).mappings()
    return [RollbackTimes(**row) for row in rows]


def prune(
    connection: sa.Connection, keep: Collection[str], feedback_before: datetime, most: int
) -> int:
    """Deletes at most so many reports of runs other than `keep`, and judgements that are too old.

    A report that is deleted and then sent again is stored again; it counts for no run in `keep`.
    The report with the largest id stays: its id must not be given to another.

    Returns:
        How many rows it deleted, `most` if compacted ones are left; fewer when there are no more.
    """
    newest = last_report(connection)
    deleted = _prune_feedback(connection, feedback_before, most)
    for run in segment_tables.runs(connection) - {*keep}:
        if segment_tables.drop(connection, run):
            return most
    for run in _runs(connection):
        if run in keep or deleted >= most:
            continue
        query = sa.select(REPORT_RUNS.c.report).where(
            REPORT_RUNS.c.run == run, REPORT_RUNS.c.report < newest
        )
        numbers = [*connection.execute(query.limit(most - deleted)).scalars()]
        segment_tables.delete_rows(connection, run, numbers)
        deleted += len(numbers)
    return deleted


def _runs(connection: sa.Connection) -> Iterator[str]:
    """Yields the runs that have reports; for each one look into the index."""
    run: str | None = ""
    while run is not None:
        query = sa.select(sa.func.min(REPORT_RUNS.c.run)).where(REPORT_RUNS.c.run > run)
        run = connection.execute(query).scalar()
        if run is not None:
            yield run


def _prune_feedback(connection: sa.Connection, before: datetime, most: int) -> int:
    old = _FEEDBACK.c.at < before.isoformat()
    query = sa.select(_FEEDBACK.c.tenant, _FEEDBACK.c.request_id).where(old).limit(most)
    rows = connection.execute(query).all()
    for tenant, request_id in rows:
        own = _FEEDBACK.c.tenant == tenant, _FEEDBACK.c.request_id == request_id
        connection.execute(sa.delete(_FEEDBACK).where(*own))
    return len(rows)


def _feedback_row(judgement: UserFeedback, at: datetime) -> dict[str, Any]:
    return {
        "tenant": judgement.tenant,
        "request_id": judgement.request_id,
        "at": at.isoformat(),
        "model": judgement.model,
        "variant": judgement.variant,
        "slice": judgement.slice,
        "judgement": _encode(judgement).decode(),
    }
