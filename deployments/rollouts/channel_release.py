"""Releases slices, and those of their channels that are proven by themselves. Pure.

Reading order: release_channels, release_slices.
"""

from collections.abc import Mapping

from penumbra.deployments.rollouts.findings import Findings
from penumbra.deployments.rollouts.record import RolloutRecord, join_names
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.deployments.rollouts.transitions import DecisionStep, StepKind, replace_fields

_Channels = Mapping[str, tuple[str, ...]]


def release_channels(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    """Release the channels that are proven for the first time."""
    known = record.released
    is_late = findings.pairs >= spec.gates.horizon and not record.is_passed
    if known is None or record.frozen is not None or is_late:
        return record, []
    # A slice whose proof is stale gets no more traffic until it is proven anew.
    current = {name: each for name, each in findings.covered.items() if name not in findings.stale}
    fresh = _fresh(known, current)
    if not fresh:
        return record, []
    after = {name: (*known.get(name, ()), *channels) for name, channels in fresh.items()}
    told = "; ".join(f"{name} by {', '.join(channels)}" for name, channels in fresh.items())
    return replace_fields(record, released={**known, **after}), [
        DecisionStep(StepKind.RELEASE, f"compared and within tolerance: {told}")
    ]


def release_slices(
    spec: RolloutSpec, record: RolloutRecord, findings: Findings
) -> tuple[RolloutRecord, list[DecisionStep]]:
    """Release the slices that are proven for the first time and have a channel to release."""
    is_late = findings.pairs >= spec.gates.horizon and not record.is_passed
    known = {*record.proven, *record.quarantined, *findings.stale}
    fresh = [
        name
        for name in findings.proven
        if name not in known and _has_channel(record, findings, name)
    ]
    if not fresh or record.frozen is not None or is_late:
        return record, []
    record = replace_fields(record, proven=join_names(record.proven, fresh))
    return record, [DecisionStep(StepKind.RELEASE, f"within tolerance: {', '.join(fresh)}")]


def _has_channel(record: RolloutRecord, findings: Findings, slice_name: str) -> bool:
    known = record.released
    return known is None or bool(known.get(slice_name) or findings.covered.get(slice_name))


def _fresh(known: _Channels, covered: _Channels) -> dict[str, tuple[str, ...]]:
    found = {
        name: tuple(channel for channel in channels if channel not in known.get(name, ()))
        for name, channels in covered.items()
    }
    return {name: channels for name, channels in found.items() if channels}
