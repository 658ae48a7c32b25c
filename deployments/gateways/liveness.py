"""The guard's signs of life, and the leases that follow from them. Pure: time is passed in.

A model's lease is the rest of `lease_seconds` since the *oldest* sign of life that its guard needs:

- the control process finished a whole tick and its store took a write (`note_tick`),
- every report that has arrived was made durable (`note_arrival`, `note_stored`),
- if the model's traffic is mirrored: the comparator on the gateway's own machine answered
  (`note_beat`).

A gateway that tells, or whose comparator tells, that the evidence about a candidate that may get a
model's traffic has stopped (`note_stopped`), has no lease for that candidate. Where it has stopped
for all such candidates of the model, or the gateway is older than leases of single candidates, it
has none for the model.

Leases are granted only in a term of leadership, and while its renewal is younger than the term's
lease in the store (`may_grant`): a process that was stopped and comes back grants nothing, whatever
has happened meanwhile.

Each is dated from when it was asked for or begun, not from when it was answered. So if a process
dies, hangs, is stopped or cut off, no gateway gives a candidate live traffic after `lease_seconds`.
That needs no process to detect the failure. All times are monotonic seconds.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot

BEATS_A_LEASE = 5
"""Times that signs of life are asked for within one lease."""

OLDEST_SECONDS = 86_400.0
"""Largest age that is reported: a day. A sign of life that never came has this age."""

_NEVER = float("-inf")


def _do_nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class _Stopped:
    """Evidence that has stopped in one process."""

    host: str | None
    """The machine of a comparator; None for a gateway."""
    since: dict[tuple[str, str], float]
    """(model, candidate) -> when it was told first; monotonic seconds."""


class GuardLiveness:
    """The signs of life of one control process and its comparators.

    Args:
        lease_seconds: Time for which a candidate may get live traffic without a sign of life.
        fence_seconds: Time for which this process may lead without a renewal, which is a part of
            each tick. None: it leads for good, and needs no terms.
    """

    def __init__(self, lease_seconds: float, fence_seconds: float | None = None) -> None:
        self.lease_seconds = lease_seconds
        self.is_asked = False
        """Whether a gateway has asked for a lease in this term."""
        self.on_first_question: Callable[[], None] = _do_nothing
        """Called when the first gateway of a term asks for a lease."""
        self._fence_seconds = fence_seconds
        self._is_allowed = fence_seconds is None
        self._settled_at = _NEVER
        self._ticked_at = _NEVER
        self._beats: dict[str, float] = {}
        self._stopped: dict[object, _Stopped] = {}
        """Connected process -> what it told last, if evidence has stopped there."""
        self._leases: dict[object, float] = {}
        """Connected gateway -> until when it may give a candidate traffic; monotonic seconds."""
        self._cut_off: dict[object, float] = {}
        """Name of a gateway that is away without having ended -> the same."""
        self._unstored: dict[object, float] = {}

    @property
    def period_seconds(self) -> float:
        """Seconds between two probes of a comparator."""
        return self.lease_seconds / BEATS_A_LEASE

    def begin_term(self, now: float, inherited_seconds: float) -> None:
        """Begin to lead.

        Args:
            now: Monotonic seconds.
            inherited_seconds: Time for which gateways may have leases of the leader before.
        """
        self.end_term()
        self._settled_at = now + min(inherited_seconds, self.lease_seconds / 2)

    def ask(self) -> None:
        """Record that a gateway asks for a lease."""
        is_first, self.is_asked = not self.is_asked, True
        if is_first:
            self.on_first_question()

    def allow_grants(self) -> None:
        """Record that the store knows that leases are granted in this term."""
        self._is_allowed = True

    def end_term(self) -> None:
        """End all that was granted or is still to be granted in this term."""
        self.is_asked = False
        self._is_allowed = self._fence_seconds is None
        self._ticked_at = _NEVER

    def may_grant(self, now: float) -> bool:
        """Whether a question for leases may be answered now; else it stays without an answer."""
        fence = self._fence_seconds
        return self._is_allowed and (fence is None or now - self._ticked_at < fence)

    def is_settled(self, now: float) -> bool:
        """Whether comparators have had the time to find this leader.

        Until then no model's lease is ended for lack of one: what the leader before granted goes
        on until it is out.
        """
        return now >= self._settled_at

    def note_tick(self, began: float) -> None:
        """Record that a tick which began then has done all its work, the durable write included."""
        self._ticked_at = max(self._ticked_at, began)

    def note_beat(self, host: str, asked_at: float) -> None:
        """Record that the comparator of a machine answered a probe that was sent then."""
        self._beats[host] = max(asked_at, self._beats.get(host, _NEVER))
        # Machines come and go: one that is silent for a lease is forgotten.
        self._beats = {
            name: at for name, at in self._beats.items() if asked_at - at < self.lease_seconds
        }

    def note_stopped(
        self, process: object, host: str | None, told: Mapping[str, tuple[str, ...]], now: float
    ) -> bool:
        """Record the candidates whose evidence has stopped in a process.

        Args:
            process: Identifies it.
            host: The machine, of a comparator: it tells of all gateways there. None: a gateway.
            told: Model -> these candidates.
            now: Monotonic seconds.

        Returns:
            Whether they are other candidates than before.
        """
        before = self._stopped.pop(process, None)
        known = {} if before is None else before.since
        names = {(model, name) for model, candidates in told.items() for name in candidates}
        if names:
            since = {name: known.get(name, now) for name in names}
            self._stopped[process] = _Stopped(host, since)
        return names != known.keys()

    def forget(self, process: object, name: object = None) -> None:
        """Forget what a process told that is gone.

        Args:
            process: Identifies its connection.
            name: Identifies the process itself, if it may serve on; None: it has ended.
        """
        self._stopped.pop(process, None)
        until = self._leases.pop(process, None)
        if name is not None and until is not None:
            self._cut_off[name] = max(until, self._cut_off.get(name, until))

    def welcome(self, name: object) -> None:
        """Take note that a process is here again: it acknowledges changes by itself."""
        self._cut_off.pop(name, None)

    def cut_off_until(self, now: float) -> float:
        """Until when gateways that are cut off may have leases; the past if none is."""
        self._cut_off = {name: until for name, until in self._cut_off.items() if until > now}
        return max(self._cut_off.values(), default=_NEVER)

    def note_arrival(self, report: object, at: float) -> None:
        """Record that a report has arrived and is not durable yet."""
        self._unstored[report] = at

    def note_stored(self, report: object) -> None:
        """Record that a report is durable, or that its sender is gone and will send it again."""
        self._unstored.pop(report, None)

    def grant(
        self,
        snapshot: Snapshot,
        host: str,
        now: float,
        gateway: object = None,
        *,
        is_by_candidate: bool = False,
    ) -> dict[str, float]:
        """Grant the leases of one gateway.

        Args:
            snapshot: The newest routing table.
            host: The gateway's machine.
            now: Monotonic seconds.
            gateway: Identifies it, as in `note_stopped`.
            is_by_candidate: Whether it is told too which candidates have none (`without`).

        Returns:
            Model -> seconds from now.
        """
        own = self._left(min([self._ticked_at, *self._unstored.values()]), now)
        mirrored = min(own, self._left(self._beats.get(host, _NEVER), now))
        stopped = self.stopped(host, gateway)
        found = {
            name: 0.0
            if _has_ended(live_candidates(model), stopped.get(name, set()), is_by_candidate)
            else (mirrored if needs_comparator(model) else own)
            for name, model in snapshot.models.items()
        }
        live = (found[name] for name, model in snapshot.models.items() if _in_traffic(model))
        self._leases[gateway] = now + max(live, default=0.0)
        return found

    def without(self, snapshot: Snapshot, host: str, gateway: object) -> dict[str, tuple[str, ...]]:
        """Model -> the live candidates that its lease is not for, in one gateway; see `grant`."""
        found = {}
        for name, names in self.stopped(host, gateway).items():
            model = snapshot.models.get(name)
            ended = () if model is None else tuple(sorted(names & live_candidates(model)))
            if ended:
                found[name] = ended
        return found

    def stopped(self, host: str, gateway: object) -> dict[str, set[str]]:
        """Model -> candidates whose evidence has stopped, for one gateway; see `grant`."""
        found: dict[str, set[str]] = {}
        for process, told in self._stopped.items():
            if process is gateway or told.host == host:
                for model, candidate in told.since:
                    found.setdefault(model, set()).add(candidate)
        return found

    def ages(self, snapshot: Snapshot, hosts: Iterable[str], now: float) -> dict[str, float]:
        """Ages of the oldest sign of life that each model's guard needs.

        The machine whose comparator has been silent longest counts; its gateways' lease is over at
        `lease_seconds`. A comparator that is silent for longer than a lease is as one that never
        answered. Where the evidence about a live candidate has stopped, no sign of life is newer.

        Args:
            snapshot: The newest routing table.
            hosts: The machines of the connected gateways; without any, no comparator is needed.
            now: Monotonic seconds.

        Returns:
            Model -> seconds, at most `OLDEST_SECONDS`.
        """
        own = min([self._ticked_at, *self._unstored.values()])
        mirrored = min([own, *(self._beats.get(host, _NEVER) for host in hosts)])
        found = {}
        for name, model in snapshot.models.items():
            alive_at = mirrored if needs_comparator(model) else own
            for candidate in live_candidates(model):
                ends = (told.since.get((name, candidate)) for told in self._stopped.values())
                alive_at = min([alive_at, *(end for end in ends if end is not None)])
            found[name] = min(now - alive_at, OLDEST_SECONDS)
        return found

    def _left(self, alive_at: float, now: float) -> float:
        return max(0.0, self.lease_seconds - (now - alive_at))


def _has_ended(live: set[str], stopped: set[str], is_by_candidate: bool) -> bool:
    """Whether a model has no lease for the evidence that has stopped."""
    ended = live & stopped
    return bool(ended) and (not is_by_candidate or ended == live)


def live_candidates(model: ModelSnapshot) -> set[str]:
    """The watched candidates that get traffic by a split or a rule; a pin is a person's wish."""
    return _in_traffic(model) & {watch.candidate for watch in model.watches}


def _in_traffic(model: ModelSnapshot) -> set[str]:
    """All candidates that do."""
    flag = model.flag
    return flag.in_traffic - {model.baseline} - set(flag.blocked)


def needs_comparator(model: ModelSnapshot) -> bool:
    """Whether the model's guard needs the observations of comparators."""
    return any(watch.mirror > 0 or _is_any_mirrored(watch.mirror_slices) for watch in model.watches)


def _is_any_mirrored(shares: Mapping[str, float]) -> bool:
    return any(share > 0 for share in shares.values())
