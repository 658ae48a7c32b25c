"""The processes of a simulated installation: shipped code on a loop and a clock of their own."""

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from penumbra.deployments.api.link_door import LinkDoor
from penumbra.deployments.api.link_route import SocketChannel
from penumbra.deployments.config.hosted_here import HostedHere
from penumbra.deployments.config.spec import ControlSpec, PenumbraSpec
from penumbra.deployments.control.configuration_at_start import FileAtStart, configure_at_start
from penumbra.deployments.control.controller import Clocks
from penumbra.deployments.control.store_wait import wait_for_store
from penumbra.deployments.gateways.link import LinkClosed
from penumbra.deployments.history.events import ConfigPayload
from penumbra.deployments.server import ControlPlane, direct, keep_house, open_plane
from penumbra.monitoring.observations import Pair, Run, SelfTest
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Variant
from penumbra.router.link.backoff import Backoff
from penumbra.router.link.client import ControlLink
from penumbra.router.link.duties import Duties
from penumbra.router.link.lease import Lease
from penumbra.router.link.messages import COMPARATOR_PATH, LinkError
from penumbra.router.link.observation_outbox import ObservationOutbox
from tests.support.simulated.database import Database, Line
from tests.support.simulated.network import Network, ServerSocket, me
from tests.support.simulated.timeline import Loop, Timeline

MODEL, CANDIDATE, BASELINE = "demo", "int8", "full"
SECOND = "awq"
"""Another candidate, which some schedules have a rollout of; it is as good as the baseline."""
CANDIDATES = (CANDIDATE, SECOND)
MACHINE = "machine-1"
LEASE_SECONDS = 8.0
_EPOCH = datetime(2026, 9, 21, tzinfo=UTC)
_COMPARE_SECONDS = 0.5
_PAIRS_AT_ONCE = 3


class Process:
    """One simulated process, from its start to its death."""

    def __init__(self, timeline: Timeline, network: Network, name: str, start: int) -> None:
        self.name = name
        self.timeline, self.network = timeline, network
        self.loop: Loop = timeline.loop(f"{name}/{start}")
        self.id = f"{name}-start-{start}"
        self.chance = random.Random(f"{network.seed}/{self.id}")
        self.tasks: list[asyncio.Task[Any]] = []

    def begin(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
        """Begin a task of this process."""

        async def inside() -> Any:
            me.set(self)
            return await work()

        task = self.loop.start(inside())
        self.tasks.append(task)
        return task

    @property
    def failures(self) -> list[BaseException]:
        """Errors that its tasks ended with."""
        ended = [task for task in self.tasks if task.done() and not task.cancelled()]
        return [error for task in ended if (error := task.exception()) is not None]

    def kill(self) -> None:
        """End at once, without a word (`kill -9`)."""
        self.timeline.forget(self.loop)
        self.network.break_links_of(self.name)

    def link_to(
        self, controls: tuple[str, ...], apply: Callable[[Snapshot], None], duties: Duties
    ) -> ControlLink:
        """Make its link, to whichever of these control processes leads."""
        urls = tuple(f"http://{control}" for control in controls)
        backoff = Backoff(now=self.loop.time, jitter=self.chance.random)
        return ControlLink(urls, "", self.name, apply, backoff, duties)


class Control(Process):
    """A control process: the composition of `penumbra.deployments.server.run_control`."""

    def __init__(
        self, timeline: Timeline, network: Network, name: str, start: int, database: Database
    ) -> None:
        super().__init__(timeline, network, name, start)
        self.is_listening = False
        self.wall_offset = 0.0
        self.line = Line(self.loop)
        self.plane: ControlPlane | None = None
        self._database = database
        self._door = LinkDoor(lambda: self.parts.controller.standing.leader_address)
        self.begin(self._main)

    @property
    def parts(self) -> ControlPlane:
        """The plane, once it is made."""
        assert self.plane is not None
        return self.plane

    @property
    def is_leading(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.plane is not None and self.plane.leadership.is_leading

    def kill(self) -> None:
        """End at once."""
        super().kill()
        self.is_listening = False
        if self.plane is not None:
            self.plane.controller.close()

    async def accept(self, socket: ServerSocket, path: str) -> None:
        """Serve a link, as the route of the link does."""
        parts = self.parts
        publisher, inbox = parts.gateways, parts.gateway_inbox
        if path == COMPARATOR_PATH:
            publisher, inbox = parts.comparators, parts.comparator_inbox
        if await self._door.turn_away(socket):  # type: ignore[arg-type]
            return
        await socket.accept()
        channel = SocketChannel(socket)  # type: ignore[arg-type]
        try:
            async with self._door.inside(socket):  # type: ignore[arg-type]
                await publisher.attend(channel, inbox)
        except (LinkError, TimeoutError):
            await socket.close(1002)
        except LinkClosed:
            await socket.close(1000)  # as the server does when its route has returned

    def wall(self) -> datetime:
        """Its wall clock."""
        return _EPOCH + timedelta(seconds=self.loop.time() + self.wall_offset)

    async def _main(self) -> None:
        folder = self._database.file.parent / self.name
        spec = control_spec(folder, self._database.url, self.name)
        with self._database.opened_by(self.line):
            self.plane = open_plane(spec, clocks=Clocks(self.wall, self.loop.time))
        self.plane.controller.checkpoint_key = b"k" * 32
        file = FileAtStart("penumbra.yaml")
        controller = self.plane.controller
        configure = functools.partial(
            configure_at_start, controller, PAYLOAD, HostedHere(spec, {}), file
        )
        direct(self.plane, configure, self._door)
        await wait_for_store(self.plane.leadership.stand)
        plane = self.plane
        self.begin(lambda: plane.leadership.run(plane.tick.run_once))
        self.begin(lambda: keep_house(plane))
        await wait_for_store(self.plane.controller.follow)
        self.network.servers[self.name] = self
        self.is_listening = True


class Gateway(Process):
    """A gateway: its link, its leases and its table, without clients and upstreams."""

    def __init__(
        self, timeline: Timeline, network: Network, name: str, start: int, controls: tuple[str, ...]
    ) -> None:
        super().__init__(timeline, network, name, start)
        self.table = Snapshot(epoch=0, models={})
        self.lease = Lease()
        self.outbox = ObservationOutbox(name, self.id)
        duties = Duties(self.outbox, self.lease, machine=MACHINE)
        self.link = self.link_to(controls, self._apply, duties)
        self.begin(self.link.run)

    def share_of(self, candidate: str) -> float:
        """Percent of the traffic that a candidate gets here now."""
        model = self.table.models.get(MODEL)
        if model is None or not self.lease.is_guarding(MODEL, candidate, self.loop.time()):
            return 0.0
        flag = model.flag
        if flag.killed or candidate in flag.blocked or "other" in flag.closed_to(candidate):
            return 0.0
        return flag.split.get(candidate, 0.0)

    def _apply(self, table: Snapshot) -> None:
        self.table = table


class Comparator(Process):
    """A comparator: its link, and made-up pairs of the requests that gateways would mirror."""

    def __init__(
        self, timeline: Timeline, network: Network, name: str, start: int, controls: tuple[str, ...]
    ) -> None:
        super().__init__(timeline, network, name, start)
        self.table = Snapshot(epoch=0, models={})
        self.outbox = ObservationOutbox(name, self.id)
        self.gateways: list[Gateway] = []
        self.displacement: Callable[[], float] = lambda: 0.0
        self.sent: list[Pair] = []
        self._told: set[str] = set()
        self._count = 0
        duties = Duties(self.outbox, is_comparing=lambda: True, machine=MACHINE)
        self.link = self.link_to(controls, self._apply, duties)
        self.begin(self.link.run)
        self.begin(self._compare)

    def _apply(self, table: Snapshot) -> None:
        self.table = table

    async def _compare(self) -> None:
        while True:
            await asyncio.sleep(_COMPARE_SECONDS)
            model = self.table.models.get(MODEL)
            for watch in model.watches if model else ():
                run = Run(MODEL, watch.candidate, watch.run)
                if watch.run not in self._told:
                    self._told.add(watch.run)
                    for name in (BASELINE, watch.candidate):
                        self.outbox.fingerprint(run, name, name[0] * 64, {"build": name})
                    at = self.loop.time()
                    self.outbox.self_test(run, SelfTest(True, 0.0, "", at))
                for gateway in self.gateways:
                    for _ in range(_PAIRS_AT_ONCE):
                        self._pair(run, gateway)

    def _pair(self, run: Run, gateway: Gateway) -> None:
        if gateway.loop.is_stopped:
            return
        self._count += 1
        is_live = self.chance.random() * 100.0 < gateway.share_of(run.candidate)
        pair = Pair(
            request_id=f"{self.id}/{self._count}",
            slice="other",
            cluster=self.chance.getrandbits(63),
            answered_by=run.candidate if is_live else BASELINE,
            displacement=self.displacement() if run.candidate == CANDIDATE else 0.0,
            harm=0,
            at=1.79e9 + self.loop.time(),
            epoch=gateway.table.epoch,
        )
        self.outbox.pair(run, pair)
        if is_live:
            self.sent.append(pair)


PAYLOAD = ConfigPayload(
    models={
        MODEL: ModelSnapshot(
            baseline=BASELINE,
            variants={name: Variant(url=f"http://{name}.test") for name in (BASELINE, *CANDIDATES)},
        )
    }
)
_MODELS = {
    MODEL: {
        "baseline": BASELINE,
        "variants": {name: {"url": f"http://{name}.test"} for name in (BASELINE, *CANDIDATES)},
    }
}


def control_spec(folder: Path, url: str, name: str) -> PenumbraSpec:
    """The configuration of one control process."""
    control = ControlSpec(lease_seconds=LEASE_SECONDS, store=url, address=f"http://{name}")
    return PenumbraSpec.model_validate({"state_dir": folder, "models": _MODELS, "control": control})


@contextlib.contextmanager
def linked_by(network: Network) -> Any:
    """Within this block links are of the simulated network."""
    from unittest import mock

    with mock.patch("penumbra.router.link.client.connect", network.connect):
        yield
