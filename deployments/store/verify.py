"""Verification of a store, row by row, and its repair: what cannot be read is moved away.

Reading order: verify, repair.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa

from penumbra.deployments.errors import Conflict
from penumbra.deployments.evidence.stored_fold import fold_stored
from penumbra.deployments.history.events import Draft, Event, FlagPayload, Kind
from penumbra.deployments.history.set_aside import SetAside
from penumbra.deployments.history.state import EMPTY, State
from penumbra.deployments.store import base_table, checkpoint_table, segment_tables, set_aside_table
from penumbra.deployments.store.report_tables import REPORTS
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Report

Progress = Callable[[str, int], None]
"""Called now and then with a table and the number of its rows so far."""

_PAGE = 500
_read_report = msgspec.json.Decoder(Report).decode


@dataclass(frozen=True, slots=True)
class Verified:
    """State of a store's rows."""

    events: int
    reports: int
    bad_events: tuple[SetAside, ...]
    """Events that cannot be read or applied, and gaps in the epochs; settled ones are left out."""
    bad_reports: dict[int, str]
    """Id of a report that cannot be read -> the reason."""
    bad_segments: tuple[tuple[str, int, str], ...]
    """Run, id of the first report and reason, of compacted reports that cannot be read: their run
    begins anew by itself, so a repair has nothing to do."""
    state: State
    """State after all that can be read."""

    @property
    def is_whole(self) -> bool:
        """Whether everything can be read and applied."""
        return not self.bad_events and not self.bad_reports and not self.bad_segments


def verify(store: Store, progress: Progress = lambda table, rows: None) -> Verified:
    """Read every event and every report, and fold the events.

    Raises:
        StoreUnavailable: The database itself cannot be read.
    """
    bad: list[SetAside] = []
    stored = store.stored()
    progress("events", len(stored))
    state = fold_stored(EMPTY, stored, bad.append)
    bad_reports: dict[int, str] = {}
    reports = 0

    def read(connection: sa.Connection) -> None:
        nonlocal reports
        query = (
            sa.select(REPORTS.c.id, REPORTS.c.payload)
            .order_by(REPORTS.c.id)
            .execution_options(yield_per=_PAGE)
        )
        for number, payload in connection.execute(query):
            reports += 1
            try:
                _read_report(payload)
            except (msgspec.MsgspecError, TypeError, UnicodeError) as error:
                bad_reports[number] = f"{type(error).__name__}: {error}"[:500]
            if reports % _PAGE == 0:
                progress("reports", reports)

    store.look(read)
    progress("reports", reports)
    events = sum(isinstance(each, Event) for each in stored)
    segments = tuple(store.look(lambda c: [*segment_tables.damaged(c)]))
    return Verified(events, reports, tuple(bad), bad_reports, segments, state)


def repair(store: Store, found: Verified, actor: str, now: datetime) -> int:
    """Set aside what cannot be read, and kill the models concerned, for an operator to look at.

    The kills are committed first: a repair that is interrupted leaves no model live, and can be
    begun anew. No control process may run meanwhile.

    Args:
        store: The store.
        found: Result of `verify`.
        actor: Name of the operator.
        now: With a timezone.

    Returns:
        Number of rows that were moved, gaps included.

    Raises:
        Conflict: No configuration can be read, so that nothing is left to go on from; or another
            process writes to the store.
        StoreUnavailable: The database failed; kills may be there, and no row was moved.
    """
    if found.bad_events and not found.state.models:
        raise Conflict("no configuration in this store can be read: restore a copy instead")
    drafts = [*_kills(found, actor)]
    if drafts:
        store.append(drafts, found.state.epoch, now)

    def move(connection: sa.Connection) -> None:
        set_aside_table.move_events(connection, found.bad_events, now)
        set_aside_table.move_reports(connection, found.bad_reports, now)
        checkpoint_table.keep_only(connection, ())  # they may hold what was moved
        base_table.drop_spares(connection)

    store.write(move)
    return len(found.bad_events) + len(found.bad_reports)


def _kills(found: Verified, actor: str) -> Iterator[Draft]:
    told = {aside.model: aside for aside in reversed(found.bad_events)}
    for name in found.state.models:
        aside = told.get(name) or told.get(None)
        if aside is None:
            continue
        before = found.state.flags[name]
        after = before.model_copy(update={"killed": True})
        yield Draft(
            kind=Kind.KILL,
            actor=actor,
            reason=f"store repair: {aside.text}"[:1000],
            model=name,
            payload=FlagPayload(before=before, after=after),
        )
