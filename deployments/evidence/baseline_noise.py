"""Noise of the measurement: how far the baseline is from itself, beside the tolerances. Pure.

A tolerance below the noise condemns equal builds: both arms differ by more than the candidate may.

Reading order: open_monitors, noise_of, alarm_of.
"""

from collections.abc import Iterable, Mapping

from penumbra.deployments.evidence.guardrail_monitor import GuardrailMonitor, guard_spec
from penumbra.deployments.evidence.kind_guards import PairKinds
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import Signal

AA_ALPHA = 0.01
"""Bound on the probability that a working instrument is called broken."""
NOISE_ALPHA = 0.05
"""The same for a hold of the next stage, which costs time only."""
HARM_TOLERANCE = 0.02
"""Tolerance of the baseline against itself where harm has no guardrail."""


def open_monitors(
    spec: RolloutSpec, slices: Iterable[str], kinds: PairKinds
) -> dict[Signal, GuardrailMonitor]:
    """Open the monitors of the baseline against itself.

    In no slice may the baseline differ from itself by more than the candidate may from it, and in
    displacement not by more than `aa_tolerance`.
    """
    names = tuple(slices)
    defaults = {Signal.DISPLACEMENT: spec.mirror.aa_tolerance, Signal.HARM: HARM_TOLERANCE}
    decode_gap = spec.guardrail(Signal.DECODE_GAP)
    if decode_gap is not None and isinstance(decode_gap.tolerance, float):
        defaults[Signal.DECODE_GAP] = decode_gap.tolerance
    found = {}
    for signal, default in defaults.items():
        own = {name: _tolerance(spec, signal, name, default) for name in names}
        # An alpha of its own: a tripped A/A monitor takes no traffic away.
        whole = _tolerance(spec, signal, None, default)
        guard = guard_spec(spec, signal, own, whole, AA_ALPHA / len(defaults))
        found[signal] = GuardrailMonitor(signal, "hold", guard, kinds)
    return found


def noise_of(monitors: Mapping[Signal, GuardrailMonitor]) -> str | None:
    """Describe noise that is probably over a tolerance; None: there is none.

    Without such noise it is found within the horizon with probability at most `NOISE_ALPHA`, over
    all signals together. It is no alarm yet, and goes away with later evidence.
    """
    for monitor in monitors.values():
        if monitor.evidence >= len(monitors) / NOISE_ALPHA:
            return _describe(monitor)
    return None


def alarm_of(monitor: GuardrailMonitor) -> str:
    """Describe the alarm of a monitor that has tripped, and the tolerance that would be right."""
    view = monitor.guard.slice(name) if (name := _worst(monitor)) else monitor.guard.aggregate()
    wanted = (
        f"wanted a tolerance over the noise ({view.lower:.3g} to {view.upper:.3g}), or less noise"
    )
    return f"the baseline differs from itself in {_describe(monitor)}; {wanted}"


def _describe(monitor: GuardrailMonitor) -> str:
    """`harm, tolerance below noise in json: found 0.041 by 900 pairs, tolerance 0.03`."""
    name = _worst(monitor)
    view = monitor.guard.slice(name) if name else monitor.guard.aggregate()
    return (
        f"{monitor.signal.value}, tolerance below noise in {name or 'all slices'}:"
        f" found {view.mean or 0.0:.3g} by {view.count} pairs, tolerance {view.tolerance:.3g}"
    )


def _worst(monitor: GuardrailMonitor) -> str | None:
    culprits = monitor.guard.culprits()
    return culprits[0] if culprits else monitor.guard.suspect()


def _tolerance(spec: RolloutSpec, signal: Signal, name: str | None, default: float) -> float:
    guardrail = spec.guardrail(signal)
    if guardrail is None:
        return default
    whole = guardrail.tolerance if isinstance(guardrail.tolerance, float) else None
    own = whole if name is None else guardrail.slices.get(name, whole)
    if own is None:  # It is read: never below the noise.
        return default
    return min(default, own) if signal is Signal.DISPLACEMENT else own
