"""A control plane in the test's process: a store in a folder, and fake gateways."""

import asyncio
import functools
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from penumbra.deployments.control.controller import Change, Clocks, Controller
from penumbra.deployments.errors import StoreUnavailable
from penumbra.deployments.gateways.link import LinkClosed
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history.events import ConfigPayload, Draft, Event, Kind
from penumbra.deployments.history.flag_edits import set_split
from penumbra.deployments.store.observation_tables import CommitExtras
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Report
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot
from penumbra.router.link.messages import (
    EpochApplied,
    FromControl,
    Hello,
    Push,
    Refused,
    encode,
    from_control,
)
from tests.support.routing_tables import model

Heard = TypeVar("Heard")

START = datetime(2026, 1, 1, tzinfo=UTC)


class TickingClock:
    """Advances by a second at every reading."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def now(self) -> datetime:
        return START + timedelta(seconds=next(self._ticks))

    def monotonic(self) -> float:
        return float(next(self._ticks))


class FakeGateway:
    """A gateway at the end of a channel; applies every table unless told otherwise."""

    def __init__(
        self,
        name: str,
        *,
        answers: bool = True,
        refuses: bool = False,
        host: str = "",
        processes: int = 0,
        needs_keys: bool = False,
    ) -> None:
        self.name = name
        self.tables: list[Snapshot] = []
        self.has_table = asyncio.Event()
        self.heard: list[FromControl] = []
        self._has_heard = asyncio.Event()
        self._answers = answers
        self._refuses = refuses
        self._has_ended = False
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        self.say(
            encode(
                Hello(
                    gateway=name,
                    pid=1,
                    store="",
                    epoch=0,
                    host=host,
                    processes=processes,
                    needs_keys=needs_keys,
                )
            )
        )

    async def reach(self, epoch: int) -> None:
        """Wait until this epoch, or a later one, has been sent here."""
        while not self.tables or self.tables[-1].epoch < epoch:
            self.has_table.clear()
            await self.has_table.wait()

    def say(self, text: str) -> None:
        self._said.put_nowait(text)

    def leave(self, *, has_ended: bool = False) -> None:
        self._has_ended = has_ended
        self._said.put_nowait(None)

    async def hear(self, kind: type[Heard]) -> Heard:
        """The next message of this kind, tables aside."""
        async with asyncio.timeout(30):
            while True:
                for message in self.heard:
                    if isinstance(message, kind):
                        self.heard.remove(message)
                        return message
                self._has_heard.clear()
                await self._has_heard.wait()

    async def send(self, text: str) -> None:
        message = from_control(text)
        if not isinstance(message, Push):
            self.heard.append(message)
            self._has_heard.set()
            return
        table = message.table()
        self.tables.append(table)
        self.has_table.set()
        if self._refuses:
            self.say(encode(Refused(table.epoch, "no room")))
        elif self._answers:
            self.say(encode(EpochApplied(table.epoch)))

    async def receive(self) -> str:
        text = await self._said.get()
        if text is None:
            raise LinkClosed("left", has_ended=self._has_ended)
        return text


class HangingGateway(FakeGateway):
    """A gateway that takes its first table, then never receives another message."""

    async def send(self, text: str) -> None:
        if self.tables:
            await asyncio.Event().wait()
        await super().send(text)


class FlakyStore(Store):
    """A store that can be told to fail, before or after it has written."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.failures: list[Exception] = []
        self.loses_answers = False

    def append(
        self,
        drafts: Sequence[Draft],
        expected_epoch: int,
        at: datetime,
        extras: CommitExtras = CommitExtras(),  # noqa: B008 - immutable
    ) -> list[Event]:
        if self.failures and not self.loses_answers:
            raise self.failures.pop()
        events = super().append(drafts, expected_epoch, at, extras)
        if self.failures:
            raise self.failures.pop()
        return events


@dataclass
class Plane:
    """A running control plane."""

    store: FlakyStore
    publisher: Publisher
    controller: Controller
    attending: list[asyncio.Task[None]] = field(default_factory=list)

    async def connect(self, gateway: FakeGateway) -> FakeGateway:
        self.attending.append(asyncio.create_task(self.publisher.attend(gateway)))
        await gateway.reach(self.controller.state.epoch)
        return gateway


def payload(**models: ModelSnapshot) -> ConfigPayload:
    """A configuration; `demo` alone unless models are given."""
    return ConfigPayload(models=models or {"demo": model()})


async def refuse_report(report: Report) -> None:
    """Store no report, as a full disk would."""
    raise StoreUnavailable(f"reports are not stored here (from {report.source})")


def lead(store: Store) -> Store:
    """Give a store the right to write, which is over at once: the next one may take it."""
    assert store.acquire("test", "", 0.0)
    return store


def store_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'penumbra.db'}"


@functools.cache
def _empty_store() -> bytes:
    # Making the tables takes longer than most tests; a copy of an empty store does not.
    with tempfile.TemporaryDirectory() as folder:
        Store(store_url(Path(folder))).close()
        return (Path(folder) / "penumbra.db").read_bytes()


async def turns(count: int = 100) -> None:
    """Let the event loop turn, so that its tasks have handled each other's messages."""
    for _ in range(count):
        await asyncio.sleep(0)


def split_change(
    share: float, *, name: str = "demo", expected_epoch: int | None = None, reason: str = "test"
) -> Change:
    """Give int8 a share."""
    return Change(Kind.SPLIT, "ann", reason, {name: set_split({"int8": share})}, expected_epoch)


@asynccontextmanager
async def control_plane(
    folder: Path,
    *,
    acknowledge_seconds: float = 5.0,
    config: ConfigPayload | None = None,
    make_publisher: Callable[[str, Callable[[], float]], Publisher] = Publisher,
) -> AsyncIterator[Plane]:
    """A started control plane with one configured model, at epoch 1."""
    file = folder / "penumbra.db"
    if not file.exists():
        file.write_bytes(_empty_store())
    store = FlakyStore(store_url(folder))
    lead(store)
    clock = TickingClock()
    publisher = make_publisher(store.identity, clock.monotonic)
    clocks = Clocks(clock.now, clock.monotonic)
    controller = Controller(store, publisher, clocks, acknowledge_seconds)
    plane = Plane(store, publisher, controller)
    try:
        await controller.follow()
        await controller.configure(config or payload(), "configuration")
        yield plane
    finally:
        for task in plane.attending:
            task.cancel()
        await asyncio.gather(*plane.attending, return_exceptions=True)
        controller.close()
