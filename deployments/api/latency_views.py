"""Views of latencies: live answers without the baseline's beside them, and the floors for these."""

from collections import Counter
from typing import Any

from penumbra.deployments.api.signal_schemas import FloorView
from penumbra.deployments.evidence.latency_floors import LatencyFloors
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.monitoring.observations import Signal


def latency_fields(signal: Signal, evidence: RunEvidence) -> dict[str, Any]:
    """Makes the fields of a `SignalView` that only latencies have; empty for other signals."""
    sheds = evidence.totals.without_counterpart.get(signal)
    if sheds is None:
        return {}
    judged = evidence.latency.judged.get(signal, Counter[str]())
    return {
        # Gateways count all of them, and the pairs of some come by another way.
        "without_counterpart": {
            name: count - judged.get(name, 0)
            for name, count in sheds.items()
            if count > judged.get(name, 0)
        },
        "beside_shadow": dict(judged),
        "floors": _floors(signal, evidence.latency, {*sheds, *judged}),
    }


def _floors(signal: Signal, latency: LatencyFloors, slices: set[str]) -> list[FloorView]:
    return [
        FloorView(
            slice=name,
            time=field.removesuffix("_ratio"),
            pairs=floor.read.count,
            wanted_pairs=floor.read.wanted,
            latest=floor.latest,
        )
        for (name, field), floor in latency.floors.get(signal, {}).items()
        if name in slices
    ]
