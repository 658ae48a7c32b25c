"""Whether the guard is alive, and so for how long candidates may go on getting live traffic.

A model's lease is what is left of `lease_seconds` since the *oldest* sign of life that its guard
needs:

- the control process went through a whole tick and its store took a write (`ticked`),
- every report that has arrived was made durable (`arrived`, `stored`),
- if the model's traffic is mirrored: the comparator on the gateway's own machine answered (`beat`).

Each is dated from when it was asked for or begun, not from when it was answered. So whatever dies,
hangs, is stopped or cut off, within `lease_seconds` no gateway gives a candidate live traffic.
Nobody has to notice anything for that. Pure: time is passed in, monotonic seconds.
"""

from collections.abc import Iterable, Mapping

from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot

BEATS_A_LEASE = 5
"""How often signs of life are asked for, within one lease."""

OLDEST_SECONDS = 86_400.0
"""No sign of life is said to be older than a day; nor is one that never was."""

_NEVER = float("-inf")


class GuardLiveness:
    """The signs of life of one control process and its comparators.

    Args:
        lease_seconds: How long a candidate may go on without a sign of life.
    """

    def __init__(self, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._ticked_at = _NEVER
        self._beats: dict[str, float] = {}
        self._unstored: dict[object, float] = {}

    @property
    def period_seconds(self) -> float:
        """How often to tick, and to ask comparators."""
        return self.lease_seconds / BEATS_A_LEASE

    def ticked(self, began: float) -> None:
        """A tick that began then has done all its work, a durable write included."""
        self._ticked_at = max(self._ticked_at, began)

    def beat(self, host: str, asked_at: float) -> None:
        """The comparator of a machine answered what it was asked then."""
        self._beats[host] = max(asked_at, self._beats.get(host, _NEVER))
        # Machines come and go; who is long silent is the same as never heard of.
        self._beats = {
            name: at for name, at in self._beats.items() if asked_at - at < self.lease_seconds
        }

    def arrived(self, report: object, at: float) -> None:
        """A report is here and not durable yet."""
        self._unstored[report] = at

    def stored(self, report: object) -> None:
        """It is durable, or whoever sent it is gone and will send it again."""
        self._unstored.pop(report, None)

    def grant(self, snapshot: Snapshot, host: str, now: float) -> dict[str, float]:
        """The leases of one gateway.

        Args:
            snapshot: The newest routing table.
            host: The gateway's machine.
            now: Monotonic seconds.

        Returns:
            Model -> seconds from now.
        """
        own = self._left(min([self._ticked_at, *self._unstored.values()]), now)
        mirrored = min(own, self._left(self._beats.get(host, _NEVER), now))
        return {
            name: mirrored if needs_comparator(model) else own
            for name, model in snapshot.models.items()
        }

    def ages(self, snapshot: Snapshot, hosts: Iterable[str], now: float) -> dict[str, float]:
        """How old the oldest sign of life that each model's guard needs is.

        On the gateway's machine that is worst off: its lease is over when `lease_seconds` is
        reached, there. A comparator that is silent for longer than a lease was never heard of.

        Args:
            snapshot: The newest routing table.
            hosts: The machines of the connected gateways; without any, no comparator is needed.
            now: Monotonic seconds.

        Returns:
            Model -> seconds, at most `OLDEST_SECONDS`.
        """
        own = min([self._ticked_at, *self._unstored.values()])
        mirrored = min([own, *(self._beats.get(host, _NEVER) for host in hosts)])
        return {
            name: min(now - (mirrored if needs_comparator(model) else own), OLDEST_SECONDS)
            for name, model in snapshot.models.items()
        }

    def _left(self, alive_at: float, now: float) -> float:
        return max(0.0, self.lease_seconds - (now - alive_at))


def needs_comparator(model: ModelSnapshot) -> bool:
    """Whether the model's guard judges by what comparators see."""
    return any(watch.mirror > 0 or _is_any_mirrored(watch.mirror_slices) for watch in model.watches)


def _is_any_mirrored(shares: Mapping[str, float]) -> bool:
    return any(share > 0 for share in shares.values())
