"""Coverage of a run: the channels of each slice that were compared, and their own proofs. Pure.

A channel is a route with a modality (`penumbra.router.flags.released_channels`). A slice's proof is
one of all its pairs together, so chats could prove a slice for responses that were never compared,
or that are worse. Each channel of a slice therefore has a proof of its own, by the same bets.

The j-th channel of a slice, in the order in which they came, has 2^-j of the run's alpha of proof.
They sum up to less than the whole, so the probability that any channel beyond tolerance is released
in a slice is at most that alpha. The order does not depend on any value that was observed.

Reading order: Coverage.observe, Coverage.proven, Coverage.channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from penumbra.deployments.evidence.guardrail_monitor import LOW
from penumbra.deployments.rollouts.spec import PROVED
from penumbra.monitoring.observations import Pair, Signal
from penumbra.monitoring.stats.betting import Table
from penumbra.monitoring.stats.wealth import Proof
from penumbra.router.flags.modality import TEXT
from penumbra.router.flags.released_channels import channel_of
from penumbra.router.flags.request_routes import MESSAGES


@dataclass(frozen=True, slots=True)
class ChannelView:
    """Present figures of one channel of a slice."""

    slice: str
    channel: str
    pairs: int
    signals: tuple[str, ...]
    """Signals that it is judged by."""
    unproven: tuple[str, ...]
    """Those of them that are not proven yet."""
    is_proven: bool
    """Whether it has enough pairs and every signal of it is proven."""


class _Channel:
    """One channel of one slice."""

    __slots__ = ("name", "pairs", "proofs", "share")

    def __init__(self, name: str, share: float, signals: tuple[Signal, ...]) -> None:
        self.name = name
        self.share = share
        self.pairs = 0
        self.proofs = {signal: Proof() for signal in signals}

    def unproven(self, alpha: float) -> tuple[str, ...]:
        boundary = 1.0 / (alpha * self.share)
        return tuple(name for name, proof in self.proofs.items() if proof.value < boundary)


class Coverage:
    """The channels of a run's slices.

    H0 of each proof: the mean of each observation of the channel, given the past, is at least the
    tolerance of its slice. At n = 0 nothing is proven.

    Args:
        signals: Quality signals that have a guardrail.
        least_pairs: Pairs of a channel in a slice before it can be proven.
    """

    def __init__(self, signals: frozenset[Signal], least_pairs: int) -> None:
        self._signals = tuple(sorted(signals & PROVED))
        self._least_pairs = least_pairs
        self._by_slice: dict[str, dict[str, _Channel]] = {}
        self._tables: dict[tuple[Signal, float], Table] = {}

    def count(self, pair: Pair) -> None:
        """Count a candidate pair that is bet on."""
        self._channel(pair).pairs += 1

    def observe(self, pair: Pair, signal: Signal, value: float | None, tolerance: float) -> None:
        """Bet on one signal of a candidate pair.

        Args:
            pair: The pair.
            signal: The signal; one that the channel is not judged by is ignored.
            value: Its value; None: there is none.
            tolerance: The tolerance that it is judged by.
        """
        proof = self._channel(pair).proofs.get(signal)
        if proof is None or value is None:
            return
        table = self._tables.get((signal, tolerance))
        if table is None:
            table = self._tables[signal, tolerance] = Table(tolerance, LOW.get(signal, 0.0), 1.0)
        proof.take(table.bet(float(value)))

    def proven(self, alpha: float) -> Mapping[str, tuple[str, ...]]:
        """List the channels of each slice that are proven, in the order in which they came.

        Args:
            alpha: Bound on the probability that any channel beyond tolerance is proven in a slice.
        """
        found = {
            slice_name: tuple(
                channel.name for channel in channels.values() if self._is_proven(channel, alpha)
            )
            for slice_name, channels in self._by_slice.items()
        }
        return {slice_name: names for slice_name, names in found.items() if names}

    def channels(self, alpha: float) -> tuple[ChannelView, ...]:
        """List the figures of all channels that had pairs.

        Args:
            alpha: As `proven` takes it.
        """
        return tuple(
            ChannelView(
                slice=slice_name,
                channel=channel.name,
                pairs=channel.pairs,
                signals=tuple(channel.proofs),
                unproven=channel.unproven(alpha),
                is_proven=self._is_proven(channel, alpha),
            )
            for slice_name, channels in self._by_slice.items()
            for channel in channels.values()
        )

    def _is_proven(self, channel: _Channel, alpha: float) -> bool:
        has_enough = channel.pairs >= self._least_pairs
        return has_enough and bool(channel.proofs) and not channel.unproven(alpha)

    def _channel(self, pair: Pair) -> _Channel:
        channels = self._by_slice.setdefault(pair.slice, {})
        name = channel_of(pair.route, pair.modality)
        channel = channels.get(name)
        if channel is None:
            share = 0.5 ** (len(channels) + 1)
            channel = channels[name] = _Channel(name, share, self._signals_of(pair))
        return channel

    def _signals_of(self, pair: Pair) -> tuple[Signal, ...]:
        has_tokens = pair.modality == TEXT and pair.route != MESSAGES  # there no engine tells ids
        return tuple(
            signal for signal in self._signals if has_tokens or signal is not Signal.DISPLACEMENT
        )
