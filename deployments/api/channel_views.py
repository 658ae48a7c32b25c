"""Views of the channels of a rollout's slices: what is released, and what stays and why."""

from collections.abc import Iterator

from penumbra.deployments.api.rollout_schemas import ChannelView
from penumbra.deployments.evidence.coverage import ChannelView as Channel
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.record import Rollout, RolloutRecord

_REASONS = {
    "route": "requests of this route cannot be compared",
    "not_tappable": "requests that ask for what a comparison would change",
}
"""Reason of a shed -> why such requests stay on the baseline."""
_BY_DEFAULT = ("chat", "completions")


def channel_views(rollout: Rollout, evidence: RunEvidence) -> list[ChannelView]:
    """Make the views of all channels that had traffic, in the order in which they came."""
    return [*_compared(rollout, evidence), *_uncompared(evidence)]


def _compared(rollout: Rollout, evidence: RunEvidence) -> Iterator[ChannelView]:
    for channel in evidence.coverage.channels(evidence.proofs.alpha):
        why = _obstacle(channel, rollout)
        yield ChannelView(
            slice=channel.slice,
            channel=channel.channel,
            pairs=channel.pairs,
            signals=list(channel.signals),
            is_released=why is None,
            why=why,
        )


def _uncompared(evidence: RunEvidence) -> Iterator[ChannelView]:
    for (slice_name, route, reason), count in evidence.totals.uncompared.items():
        yield ChannelView(
            slice=slice_name,
            channel=route,
            pairs=0,
            signals=[],
            is_released=False,
            why=f"{_REASONS.get(reason, reason)}: {count} so far",
        )


def _obstacle(channel: Channel, rollout: Rollout) -> str | None:
    """Why a channel is not released; None: it is."""
    record, least = rollout.record, rollout.spec.gates.slice_pairs
    if channel.slice in record.quarantined:
        return "the slice is quarantined"
    if channel.channel in _released_of(record, channel.slice):
        return None if channel.slice in record.proven else "the slice as a whole is not proven"
    if record.released is None:
        return "the run began before channels were told apart"
    if channel.pairs < least:
        return f"{channel.pairs} of {least} pairs"
    if not channel.signals:
        return "no guardrail judges it"
    if channel.unproven:
        return f"not proven by itself yet: {', '.join(channel.unproven)}"
    return "nothing is released while the instrument is broken or the horizon is over"


def _released_of(record: RolloutRecord, slice_name: str) -> tuple[str, ...]:
    return _BY_DEFAULT if record.released is None else record.released.get(slice_name, ())
