"""Evidence of a run that goes on in place of one whose evidence was lost. Pure."""

from penumbra.deployments.evidence.calibration_buffer import readings_of
from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.record import Carried
from penumbra.monitoring.observations import Signal


def carry_on(evidence: RunEvidence, carried: Carried) -> None:
    """Take over builds and tolerances from the record into evidence that is empty.

    Args:
        evidence: The empty evidence.
        carried: Facts that the record has of the run before.
    """
    evidence.builds.expect(carried.fingerprints)
    for kind, readings in readings_of(carried.calibration).items():
        buffer = evidence.calibrations.get(kind)
        for name, reading in readings.items():
            if buffer is not None and buffer.adopt(name, reading):
                monitor = evidence.monitors[Signal.DISPLACEMENT]
                monitor.set_tolerance(name, reading.tolerance, kind)
