"""Opening of a run's evidence: its monitors and calibration buffers, all of them empty. Pure."""

from collections.abc import Mapping

from penumbra.deployments.evidence.calibration_buffer import CalibrationBuffer
from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor, alpha_of, guard_spec
from penumbra.deployments.evidence.kind_guards import PairKinds
from penumbra.deployments.evidence.latency_floors import READING
from penumbra.deployments.rollouts.spec import LATENCY, Calibrate, Guardrail, RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Signal
from penumbra.monitoring.signals.calibration import MOST


def open_monitors(
    spec: RolloutSpec, slices: tuple[str, ...], kinds: PairKinds, *, has_floors: bool = True
) -> dict[Signal, GuardrailMonitor]:
    """Opens the monitors of all guardrails, by signal.

    Args:
        spec: The rollout's specification.
        slices: Every slice of the model.
        kinds: Kinds of pairs that are told apart.
        has_floors: Whether floors of latencies are read, which have a part of their alpha.
    """
    monitors = {}
    for guardrail in spec.guardrails:
        alpha = alpha_of(spec, guardrail)
        if has_floors and guardrail.signal in LATENCY:
            alpha *= 1 - READING
        monitors[guardrail.signal] = _open(spec, slices, guardrail, kinds, alpha)
    return monitors


def open_calibrations(
    spec: RolloutSpec, slices: tuple[str, ...], kinds: PairKinds
) -> dict[AnsweredBy, CalibrationBuffer]:
    """Opens a buffer for each kind of pair; none if no tolerance is to be read.

    Half of the guardrail's alpha is for a mean that exceeds its tolerance, in any slice and kind;
    the guards have the other half.
    """
    for guardrail in spec.guardrails:
        if isinstance(guardrail.tolerance, Calibrate):
            wanted = guardrail.tolerance.calibrate
            to_read = [name for name in slices if name not in guardrail.slices]
            alpha = alpha_of(spec, guardrail) / 2 / len(kinds)
            return {kind: CalibrationBuffer(wanted, alpha, to_read) for kind in kinds}
    return {}


def _open(
    spec: RolloutSpec,
    slices: tuple[str, ...],
    guardrail: Guardrail,
    kinds: PairKinds,
    alpha: float,
) -> GuardrailMonitor:
    default = _default_of(guardrail)
    if isinstance(guardrail.tolerance, Calibrate):
        alpha /= 2  # the other half is for what is read: `open_calibrations`
    tolerances: Mapping[str, float] = {name: guardrail.slices.get(name, default) for name in slices}
    stated = guard_spec(spec, guardrail.signal, tolerances, default, alpha)
    return GuardrailMonitor(guardrail.signal, guardrail.action, stated, kinds)


def _default_of(guardrail: Guardrail) -> float:
    return MOST if isinstance(guardrail.tolerance, Calibrate) else guardrail.tolerance
