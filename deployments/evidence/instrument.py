"""State of a run's measurement: the baseline against itself, and the comparators' self-tests. Pure.

Reading order: Instrument.take_pair, Instrument.broken.
"""

from penumbra.deployments.evidence import baseline_noise
from penumbra.deployments.evidence.guardrail_monitor import in_range
from penumbra.deployments.evidence.kind_guards import PairKinds
from penumbra.deployments.evidence.self_tests import SelfTests
from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.monitoring.observations import AnsweredBy, Pair, Signal


class Instrument:
    """State of the measurement itself: the A/A arm, and self-tests.

    Args:
        spec: The rollout's specification.
        slices: Every slice of the model.
        kinds: Kinds of pairs that are told apart.
    """

    def __init__(self, spec: RolloutSpec, slices: tuple[str, ...], kinds: PairKinds) -> None:
        self._slices = slices
        self.aa = baseline_noise.open_monitors(spec, slices, kinds)
        """Monitors of the baseline against itself, by signal."""
        self.aa_alarm: str | None = None
        """The alarm of the A/A arm, in words; None: the baseline agrees with itself so far."""
        self.self_tests = SelfTests()

    def take_pair(self, pair: Pair, kind: AnsweredBy) -> None:
        """Bet on a pair of the baseline with itself."""
        for signal, value in (
            (Signal.DISPLACEMENT, pair.displacement),
            (Signal.HARM, pair.harm),
            (Signal.DECODE_GAP, pair.decode_gap),
        ):
            if value is not None and signal in self.aa:
                self.aa[signal].observe(pair.slice, in_range(signal, value), kind)
                if self.aa_alarm is None and self.aa[signal].tripped is not None:
                    self.aa_alarm = baseline_noise.alarm_of(self.aa[signal])

    @property
    def broken(self) -> str | None:
        """Reason why the measurement cannot be trusted; None if it can."""
        if self.aa_alarm is not None:
            return self.aa_alarm
        return self.self_tests.failure

    @property
    def noise(self) -> str | None:
        """Noise that is probably over a tolerance, in words; None: there is none."""
        return baseline_noise.noise_of(self.aa)

    @property
    def pairs(self) -> dict[str, dict[str, int]]:
        """Signal -> slice -> pairs of the baseline with itself."""
        return {
            signal.value: {name: monitor.guard.slice(name).count for name in self._slices}
            for signal, monitor in self.aa.items()
        }

    def proven(self) -> dict[str, tuple[str, ...]]:
        """Signal -> slices in which the baseline is proven to agree with itself.

        Nothing but the baseline answers after a rollback, so its answers are what is looked at.
        """
        return {signal.value: each.proven(AnsweredBy.BASELINE) for signal, each in self.aa.items()}
