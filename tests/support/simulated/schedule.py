"""Random schedules of faults and of operators' changes, and what must hold when all is well again.

Reading order: Schedule, simulate.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.simulated.at_rest import check_at_rest
from tests.support.simulated.installation import (
    COMPARATOR,
    CONTROLS,
    GATEWAYS,
    Installation,
)
from tests.support.simulated.processes import SECOND

BEGIN_SECONDS = 1.5
FAULTY_SECONDS = 16.0
LONGEST_SECONDS = 10.0
"""Of one fault: longer than a lease."""
SETTLE_SECONDS = 10.0
"""After the last fault: the longest retry, a takeover, a lease."""
MOST_FAULTS = 5
_FOLLOWED = 0.4
"""Share of faults, and of their ends, that an operator's change follows within seconds."""
_BAD = 0.3
_SECOND = 0.4
"""Share of schedules with a rollout of a second candidate."""
_CHANGES = ("kill", "kill", "rollback", "rollback", "unkill", "rearm", "apply")
_DAY = 86_400.0


@dataclass(frozen=True)
class Step:
    """One thing that is done to an installation."""

    at: float
    """Seconds from the beginning."""
    text: str
    do: Callable[[Installation], None]


class Schedule:
    """Faults and changes of one simulation, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(f"schedule {seed}")
        self.steps: list[Step] = []
        self._add(0.0, "apply", lambda i: _ask_all(i, "apply"))
        for _ in range(self._chance.randint(1, MOST_FAULTS)):
            self._chance.choice(self._faults())()
        for fault in list(self.steps[1:]):
            if self._chance.random() < _FOLLOWED:
                self._add_change(fault.at)
        if self._chance.random() < _BAD:
            self._add(self._chance.uniform(2.0, 9.0), "the candidate goes bad", _spoil)
        self._add_second(random.Random(f"second {seed}"))
        self.steps.sort(key=lambda step: step.at)

    def _faults(self) -> list[Callable[[], None]]:
        return [
            self._add_kill,
            self._add_kill,
            self._add_stop,
            self._add_stop,
            self._add_partition,
            self._add_partition,
            self._add_store_away,
            self._add_store_away,
            self._add_full_disk,
            self._add_lost_answers,
            self._add_clock_step,
            self._add_lost_tail,
            self._add_slow_network,
        ]

    def _time(self) -> float:
        return self._chance.uniform(0.5, FAULTY_SECONDS - 2.0)

    def _span(self) -> tuple[float, float]:
        begin = self._time()
        return begin, min(FAULTY_SECONDS, begin + self._chance.uniform(0.2, LONGEST_SECONDS))

    def _add(self, at: float, text: str, do: Callable[[Installation], None]) -> None:
        self.steps.append(Step(at, text, do))

    def _process(self) -> str:
        return self._chance.choice((*CONTROLS, *CONTROLS, *GATEWAYS, COMPARATOR))

    def _add_kill(self) -> None:
        name, (begin, end) = self._process(), self._span()
        self._add(begin, f"kill {name}", lambda i: i.kill(name))
        self._add(end, f"start {name}", lambda i: i.process(name) or i.start(name))

    def _add_stop(self) -> None:
        name, (begin, end) = self._process(), self._span()
        self._add(begin, f"stop {name}", lambda i: _stop(i, name, is_stopped=True))
        self._add(end, f"continue {name}", lambda i: _stop(i, name, is_stopped=False))

    def _add_partition(self) -> None:
        controls = self._chance.choice((CONTROLS[:1], CONTROLS[1:], CONTROLS))
        other = self._chance.choice((*GATEWAYS, COMPARATOR))
        begin, end = self._span()
        for control in controls:
            self._cut(control, other, begin, end)

    def _cut(self, control: str, other: str, begin: float, end: float) -> None:
        pair = frozenset((control, other))
        self._add(begin, f"cut {control} and {other}", lambda i: i.network.partitions.add(pair))
        self._add(end, f"join {control} and {other}", lambda i: _join(i, pair))

    def _add_store_away(self) -> None:
        name, (begin, end) = self._chance.choice(CONTROLS), self._span()
        how = self._chance.choice(("is_silent", "is_cut"))
        self._add(begin, f"store {how} for {name}", lambda i: _line(i, name, how, value=True))
        self._add(end, f"store is back for {name}", lambda i: _line(i, name, how, value=False))

    def _add_full_disk(self) -> None:
        begin, end = self._span()
        self._add(begin, "the disk is full", lambda i: setattr(i.database, "is_full", True))
        self._add(end, "the disk has room", lambda i: setattr(i.database, "is_full", False))

    def _add_lost_answers(self) -> None:
        name, count = self._chance.choice(CONTROLS), self._chance.randint(1, 3)
        text = f"{name} loses the answers of {count} commits"
        self._add(self._time(), text, lambda i: _line(i, name, "loses_answers", value=count))

    def _add_clock_step(self) -> None:
        step = self._chance.choice((-_DAY, -3.0, 1.0, 3.0, _DAY))
        name = self._chance.choice((*CONTROLS, "database"))
        self._add(self._time(), f"clock of {name} {step:+g} s", lambda i: _step(i, name, step))

    def _add_lost_tail(self) -> None:
        seconds = self._chance.uniform(0.5, 6.0)
        self._add(self._time(), f"the store loses {seconds:.1f} s", lambda i: _lose(i, seconds))

    def _add_slow_network(self) -> None:
        (begin, end), late = self._span(), self._chance.choice((0.05, 0.5))
        self._add(
            begin, f"network {late} s slow", lambda i: setattr(i.network, "slow_seconds", late)
        )
        self._add(end, "network quick", lambda i: setattr(i.network, "slow_seconds", 0.0))

    def _add_second(self, chance: random.Random) -> None:
        """Begin a rollout of a second candidate, and perhaps take it back."""
        if chance.random() >= _SECOND:
            return
        begin = chance.uniform(0.0, 4.0)
        whats = [("apply", begin)]
        if chance.random() < _FOLLOWED:
            whats.append(("rollback", begin + chance.uniform(3.0, 8.0)))
            whats.append(("rearm", begin + chance.uniform(4.0, 11.0)))
        for what, at in whats:
            text = f"{what} {SECOND}"
            self._add(at, f"ask for {text}", lambda i, text=text: _ask_all(i, text))

    def _add_change(self, after: float) -> None:
        what = self._chance.choice(_CHANGES)
        at = min(FAULTY_SECONDS - 0.1, after + self._chance.expovariate(1.0))
        asked = self._chance.choice((CONTROLS, CONTROLS[:1], CONTROLS[1:]))
        text = f"ask {' and '.join(asked)} for {what}"
        self._add(at, text, lambda i: _ask_all(i, what, asked))


def simulate(seed: int, folder: Path, template: Path) -> Installation:
    """Run one schedule to its end, checking all along.

    Args:
        seed: Decides everything.
        folder: Empty.
        template: An empty store.

    Raises:
        AssertionError: Something did not hold; tells the seed and all that happened.
    """
    schedule = Schedule(seed)
    with Installation(folder, seed, template) as installation:
        try:
            _play(schedule, installation)
            _heal(installation)
            installation.run(SETTLE_SECONDS)
            check_at_rest(installation)
        except AssertionError as error:
            story = "\n".join(installation.log)
            raise AssertionError(f"seed {seed}: {error}\n{story}") from error
    return installation


def _play(schedule: Schedule, installation: Installation) -> None:
    installation.run(BEGIN_SECONDS)
    begin = installation.timeline.now
    for step in schedule.steps:
        _run_until(installation, begin + step.at)
        installation.note(step.text)
        step.do(installation)
    _run_until(installation, begin + FAULTY_SECONDS)


def _run_until(installation: Installation, until: float) -> None:
    """Let time pass, with a backup of the store every half second."""
    while installation.timeline.now < until:
        installation.database.note_copy()
        installation.run(min(0.5, until - installation.timeline.now))


def _heal(installation: Installation) -> None:
    installation.note("all is well again")
    for name in (*CONTROLS, *GATEWAYS, COMPARATOR):
        _stop(installation, name, is_stopped=False)
        if installation.process(name) is None:
            installation.start(name)
    for control in installation.controls.values():
        control.line.is_silent = control.line.is_cut = False
        control.line.loses_answers = 0
    installation.database.is_full = False
    installation.network.slow_seconds = 0.0
    installation.network.partitions.clear()
    installation.network.deliver_held()


def _ask_all(installation: Installation, what: str, asked: Sequence[str] = CONTROLS) -> None:
    for name in asked:
        installation.ask(what, name)


def _spoil(installation: Installation) -> None:
    installation.displacement = 0.9


def _stop(installation: Installation, name: str, *, is_stopped: bool) -> None:
    process = installation.process(name)
    if process is not None:
        process.loop.is_stopped = is_stopped


def _join(installation: Installation, pair: frozenset[str]) -> None:
    installation.network.partitions.discard(pair)
    installation.network.deliver_held()


def _line(installation: Installation, name: str, what: str, *, value: bool | int) -> None:
    control = installation.controls.get(name)
    if control is not None:
        setattr(control.line, what, value)


def _step(installation: Installation, name: str, step: float) -> None:
    if name == "database":
        installation.database.clock_offset += step
    elif name in installation.controls:
        installation.controls[name].wall_offset += step


def _lose(installation: Installation, seconds: float) -> None:
    at = installation.database.restore(seconds)
    if at is not None:
        installation.losses.append((installation.timeline.now, at))
