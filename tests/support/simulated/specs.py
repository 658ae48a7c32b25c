"""Rollouts of a simulated installation: of two candidates, with stages of a second or more."""

from penumbra.deployments.rollouts.spec import AdvanceRules, Guardrail, MirrorRates, RolloutSpec
from penumbra.monitoring.observations import Signal
from penumbra.router.flags.routing_table import Scope
from tests.support.simulated.processes import CANDIDATE, MODEL, SECOND

STAGE_PAIRS = 8
SPEC = RolloutSpec(
    model=MODEL,
    candidate=CANDIDATE,
    stages=("shadow", 20.0, 30.0, 40.0),
    required_slices=(),
    gates=AdvanceRules(
        pairs=12, slice_pairs=6, stage_seconds=1.0, stage_pairs=STAGE_PAIRS, horizon=1000
    ),
    mirror=MirrorRates(rate=1.0, aa=0.0),
    guardrails=(
        Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.3, action="rollback", share=0.5),
        Guardrail(signal=Signal.HARM, tolerance=0.3, action="rollback", share=0.4),
    ),
)
SECOND_SPEC = SPEC.model_copy(
    update={
        "candidate": SECOND,
        "stages": ("shadow", 15.0, 25.0),
        "candidates": 2,
        "scope": Scope(slices=("other",)),
    }
)
SPECS = {spec.candidate: spec for spec in (SPEC, SECOND_SPEC)}
"""By candidate."""
