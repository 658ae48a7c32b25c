"""Releases the channels of slices that were compared and are proven by themselves. Pure."""

from collections.abc import Mapping

from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.record import RolloutRecord
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, replace_fields

_Channels = Mapping[str, tuple[str, ...]]


def has_channel(record: RolloutRecord, findings: Findings, slice_name: str) -> bool:
    """Whether a proven slice has anything to release.

    Args:
        record: The rollout's record.
        findings: Findings of its run.
        slice_name: The slice.
    """
    known = record.released
    return known is None or bool(known.get(slice_name) or findings.covered.get(slice_name))


def release_channels(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    """Release the channels that are proven for the first time."""
    known = record.released
    is_late = findings.pairs >= spec.gates.horizon and not record.is_passed
    if known is None or record.frozen is not None or is_late:
        return record, []
    fresh = _fresh(known, findings.covered)
    if not fresh:
        return record, []
    after = {name: (*known.get(name, ()), *channels) for name, channels in fresh.items()}
    told = "; ".join(f"{name} by {', '.join(channels)}" for name, channels in fresh.items())
    return replace_fields(record, released={**known, **after}), [
        DecisionStep(StepKind.RELEASE, f"compared and within tolerance: {told}")
    ]


def _fresh(known: _Channels, covered: _Channels) -> dict[str, tuple[str, ...]]:
    found = {
        name: tuple(channel for channel in channels if channel not in known.get(name, ()))
        for name, channels in covered.items()
    }
    return {name: channels for name, channels in found.items() if channels}
