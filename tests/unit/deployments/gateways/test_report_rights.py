"""Each kind of link may report its own observations only."""

import pytest

from penumbra.deployments.gateways.report_rights import foreign_part
from penumbra.monitoring.observations import (
    Counts,
    Pair,
    Report,
    Run,
    RunReport,
    ScorerTest,
    SelfTest,
    Shed,
    Signal,
    Trip,
)

RUN = Run("demo", "int8", "run-1")
PAIRS = RunReport(RUN, pairs=(Pair("r", "facts", 1),))
SELF_TESTS = RunReport(RUN, self_tests=(SelfTest(True, 0.0, "", 1.0),))
SCORER_TESTS = RunReport(RUN, scorer_tests=(ScorerTest(1.0),))
FINGERPRINTS = RunReport(RUN, fingerprints={"int8": "abc"})
BUILDS = RunReport(RUN, builds={"int8": {"weights": "abc"}})
UNHEALTHY = RunReport(RUN, trips=(Trip("unhealthy", "no answer", 1.0),))
FAILED = RunReport(RUN, trips=(Trip("failure", "too many", 1.0),))
FEEDBACK = RunReport(RUN, counts=(Counts("facts", Signal.FEEDBACK, 0, 9),))
HARM = RunReport(RUN, counts=(Counts("facts", Signal.HARM, 0, 9),))
COUNTED = RunReport(
    RUN,
    counts=tuple(
        Counts("facts", each, 1, 0) for each in (Signal.FAILURE, Signal.TTFT, Signal.TPOT)
    ),
)
SHEDS = RunReport(RUN, sheds=(Shed("facts", "busy", 3),))


def report(*runs: RunReport) -> Report:
    return Report("gateway-0", "life-1", 1, runs)


@pytest.mark.parametrize(
    ("run", "field"),
    [
        (PAIRS, "pairs"),
        (SELF_TESTS, "self_tests"),
        (SCORER_TESTS, "scorer_tests"),
        (FINGERPRINTS, "fingerprints"),
        (BUILDS, "builds"),
        (UNHEALTHY, "trips"),
        (FEEDBACK, "counts"),
        (HARM, "counts"),
    ],
)
def test_gateway_may_not_report_what_a_comparator_finds(run: RunReport, field: str) -> None:
    found = foreign_part(report(COUNTED, run), is_comparator=False)
    assert found is not None
    assert found.startswith(f"runs[1].{field}")


@pytest.mark.parametrize(
    ("run", "field"), [(COUNTED, "counts"), (FEEDBACK, "counts"), (FAILED, "trips")]
)
def test_comparator_may_not_report_what_a_gateway_sees(run: RunReport, field: str) -> None:
    found = foreign_part(report(run), is_comparator=True)
    assert found is not None
    assert found.startswith(f"runs[0].{field}")


def test_each_may_report_its_own() -> None:
    assert foreign_part(report(COUNTED, FAILED, SHEDS), is_comparator=False) is None
    own = (PAIRS, SELF_TESTS, SCORER_TESTS, FINGERPRINTS, BUILDS, UNHEALTHY, SHEDS)
    assert foreign_part(report(*own), is_comparator=True) is None
