"""A simulated installation: two control processes, two gateways, a comparator, operators, faults.

Reading order: Installation, Operator, Installation.check.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from penumbra.deployments.control.controller import Change
from penumbra.deployments.errors import DeploymentsError
from penumbra.deployments.history import operator_actions
from penumbra.deployments.history.changes import Arrival
from penumbra.deployments.history.events import Event, Kind
from penumbra.deployments.history.flag_edits import set_killed
from penumbra.deployments.store.store import Store
from penumbra.monitoring.observations import Pair
from tests.support.simulated.database import Database, simulated_clock
from tests.support.simulated.network import Network
from tests.support.simulated.processes import (
    CANDIDATE,
    CANDIDATES,
    LEASE_SECONDS,
    MODEL,
    SECOND,
    Comparator,
    Control,
    Gateway,
    linked_by,
)
from tests.support.simulated.specs import SPECS
from tests.support.simulated.timeline import Timeline

CONTROLS = ("control-0", "control-1")
GATEWAYS = ("gateway-0", "gateway-1")
COMPARATOR = "comparator-0"
LIFTED_BY = {"kill": "unkill", "rollback": "rearm", f"rollback {SECOND}": f"rearm {SECOND}"}
TAKEN_FROM = {
    "kill": CANDIDATES,
    "rollback": (CANDIDATE,),
    f"rollback {SECOND}": (SECOND,),
}
"""Change -> the candidates that get nothing once it is acknowledged."""
OPERATOR = "operator"
_SETTLED_SECONDS = 0.5
"""A gateway acts on a lease until its next look at the clock; nothing here needs more."""


@dataclass
class Acknowledged:
    """A change that was answered with success."""

    what: str
    reason: str
    epoch: int
    asked_at: float
    at: float
    arrival: Arrival
    is_unchanged: bool
    """Whether it was so already, and nothing was stored."""


@dataclass
class Ban:
    """An acknowledged kill or rollback: from `since` on the candidate gets nothing."""

    reason: str
    since: float


@dataclass
class Operator:
    """Makes changes at control processes, and remembers what was promised."""

    number: int = 0
    asked_last: dict[str, int] = field(default_factory=dict)
    """Kind of change -> number of the last that was asked for."""
    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: list[tuple[float, str, str]] = field(default_factory=list)
    bans: dict[str, Ban] = field(default_factory=dict)
    """`kill` or `rollback` -> the promise; lifted from when an operator *asks* to lift it."""


class Installation:
    """The processes, the database and the network of one simulation.

    Args:
        folder: For the database, and for what control processes keep beside it.
        seed: Decides all that is left to chance.
        template: An empty store, to be copied.
    """

    def __init__(self, folder: Path, seed: int, template: Path) -> None:
        self.timeline = Timeline(seed)
        self.network = Network(self.timeline, seed)
        file = folder / "penumbra.db"
        shutil.copy(template, file)
        self.database = Database(self.timeline, file)
        self.operator = Operator()
        self.log: list[str] = []
        self.controls: dict[str, Control] = {}
        self.gateways: dict[str, Gateway] = {}
        self.comparator: Comparator | None = None
        self.losses: list[tuple[float, float]] = []
        """(when the store went back, to what it held then)."""
        self.displacement = 0.0
        """Of each pair of the first candidate from now on."""
        self.compared_at = self.timeline.now
        """When a comparator last ran."""
        self.candidate_pairs: list[Pair] = []
        """Pairs that the candidate answered, as comparators sent them."""
        self._starts = 0
        self._watch = self.timeline.loop("network")
        self._patches = (simulated_clock(self.database), linked_by(self.network))
        self.timeline.after_step = self.check

    def __enter__(self) -> "Installation":
        for patch in self._patches:
            patch.__enter__()
        self._watch.start(self.network.watch())
        for name in CONTROLS:
            self.start(name)
        for name in (*GATEWAYS, COMPARATOR):
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        self.network.is_over = True
        self.timeline.end()
        for control in self.controls.values():
            if control.plane is not None:
                control.plane.controller.close()
        for patch in reversed(self._patches):
            patch.__exit__(None, None, None)

    # Processes

    def start(self, name: str) -> None:
        """Start a process that does not run."""
        self._starts += 1
        where = self.timeline, self.network, name, self._starts
        if name in CONTROLS:
            self.controls[name] = Control(*where, self.database)
        elif name in GATEWAYS:
            self.gateways[name] = Gateway(*where, CONTROLS)
        else:
            self.comparator = Comparator(*where, CONTROLS)
        if self.comparator is not None:
            self.comparator.gateways = list(self.gateways.values())
            self.comparator.sent = self.candidate_pairs
            self.comparator.displacement = lambda: self.displacement

    def process(self, name: str) -> Control | Gateway | Comparator | None:
        """A process, if it runs."""
        if name == COMPARATOR:
            return self.comparator
        return self.controls.get(name) or self.gateways.get(name)

    def kill(self, name: str) -> None:
        """Kill a process, if it runs."""
        process = self.process(name)
        if process is None:
            return
        process.kill()
        self.controls.pop(name, None)
        self.gateways.pop(name, None)
        self.network.servers.pop(name, None)
        if name == COMPARATOR:
            self.comparator = None

    @property
    def leaders(self) -> list[Control]:
        """The control processes that take themselves for the leader."""
        return [control for control in self.controls.values() if control.is_leading]

    def note(self, text: str) -> None:
        """Write a line of the simulation's log."""
        self.log.append(f"{self.timeline.now:9.3f} {text}")

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.timeline.run_until(self.timeline.now + seconds)

    # Operators

    def ask(self, what: str, at: str) -> None:
        """Have an operator ask a control process for a change."""
        control = self.controls.get(at)
        if control is None or control.plane is None:
            return
        self.operator.number += 1
        reason = f"{what} number {self.operator.number}"
        self.operator.asked_last[what] = self.operator.number
        for ban, lifts in LIFTED_BY.items():
            if lifts == what:
                self.operator.bans.pop(ban, None)
        control.begin(lambda: self._ask(control, what, reason))

    async def _ask(self, control: Control, what: str, reason: str) -> None:
        operator = self.operator
        asked, asked_at = operator.number, self.timeline.now
        try:
            epoch, arrival, is_changed = await self._change(control, what, reason)
        except (DeploymentsError, TimeoutError) as error:
            operator.refused.append((self.timeline.now, reason, str(error)))
            self.note(f"{control.name} refuses {reason}: {type(error).__name__} {error}")
            return
        self.note(f"{control.name} acknowledges {reason}: epoch {epoch}, {arrival}")
        operator.acknowledged.append(
            Acknowledged(what, reason, epoch, asked_at, self.timeline.now, arrival, not is_changed)
        )
        lifts = LIFTED_BY.get(what)
        if lifts is None or operator.asked_last.get(lifts, 0) > asked:
            return
        since = self.timeline.now
        if arrival.acknowledged < arrival.connected:
            since += LEASE_SECONDS  # it was told so: the others' leases end
        operator.bans[what] = Ban(reason, since)

    async def _change(self, control: Control, what: str, reason: str) -> tuple[int, Arrival, bool]:
        parts, name = control.parts, OPERATOR
        if what in ("kill", "unkill"):
            edit = set_killed(what == "kill")
            change = Change(Kind(what), name, reason, {MODEL: edit})
            outcome = await parts.controller.apply(change)
            return outcome.epoch, outcome.arrival, outcome.is_changed
        what, _, other = what.partition(" ")
        key = MODEL, other or CANDIDATE
        state, now = (lambda: parts.controller.state), control.wall
        if what == "apply":
            result = await parts.rollouts.put(
                lambda: operator_actions.apply(
                    state(), SPECS[key[1]], reason, now(), f"{control.id}{other}"
                ),
                name,
                reason,
            )
        elif what == "rollback":
            result = await parts.rollouts.change(
                key, lambda rollout: operator_actions.rollback(rollout, reason, now()), name, reason
            )
        else:
            result = await parts.rollouts.change(
                key,
                lambda rollout: operator_actions.rearm(state(), rollout, reason, now()),
                name,
                reason,
            )
        arrival = await parts.controller.await_arrival(result.epoch, result.delivery)
        return result.epoch, arrival, result.is_changed

    # What must hold

    def check(self) -> None:
        """Check after each step what must hold at every moment."""
        now = self.timeline.now
        if self.comparator is not None and not self.comparator.loop.is_stopped:
            self.compared_at = now
        for gateway in self.gateways.values():
            for candidate in CANDIDATES:
                if not gateway.loop.is_stopped and gateway.share_of(candidate):
                    self._check_share(gateway, candidate, now)

    def _check_share(self, gateway: Gateway, candidate: str, now: float) -> None:
        gives = f"{gateway.name} gives {candidate} {gateway.share_of(candidate)} % at {now:.3f}"
        assert now - self.compared_at < LEASE_SECONDS + _SETTLED_SECONDS, (
            f"{gives}, and no comparator has run since {self.compared_at:.3f}"
        )
        for what, ban in self.operator.bans.items():
            is_meant = candidate in TAKEN_FROM[what]
            assert not is_meant or now < ban.since, f"{gives}, {what} was acknowledged: {ban}"
        assert self.guard_age < LEASE_SECONDS + _SETTLED_SECONDS, (
            f"{gives} and the last tick of a leader was {self.guard_age:.3f} s ago"
        )

    @property
    def guard_age(self) -> float:
        """Seconds since a control process last renewed the right to write."""
        return self.timeline.now - self.database.renewed_at

    def events(self) -> list[Event]:
        """All events in the store, oldest first."""
        store = Store(self.database.url)
        try:
            return store.events()
        finally:
            store.close()
