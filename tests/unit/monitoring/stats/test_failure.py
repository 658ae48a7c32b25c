import pytest

from penumbra.monitoring.stats.failure import FailureProcess
from penumbra.monitoring.stats.guard import Guard, GuardSpec


def requests_to_trip(failures: list[bool]) -> int | None:
    process = FailureProcess(tolerance=0.005, alpha=0.002)
    for number, is_failure in enumerate(failures, start=1):
        if process.observe(is_failure):
            return number
    return None


def test_failure_process_trips_after_two_requests_that_all_fail() -> None:
    assert requests_to_trip([True, True, True]) == 2


def test_failure_process_stays_quiet_without_failures() -> None:
    assert requests_to_trip([False] * 10_000) is None


def test_failure_process_is_not_shielded_by_a_long_good_past() -> None:
    assert requests_to_trip([False] * 20_000 + [True] * 4) == 20_004


def test_failure_process_latches() -> None:
    process = FailureProcess(0.005, 0.002)
    for is_failure in (True, True, *([False] * 100)):
        process.observe(is_failure)
    assert process.is_tripped


def test_failure_process_is_the_evidence_of_a_guard() -> None:
    process = FailureProcess(0.1, 1e-6)
    guard = Guard(GuardSpec({}, 0.1, low=0.0, high=1.0, alpha=1e-6))
    for is_failure in (True, False, False, True, False):
        process.observe(is_failure)
        guard.observe("any", float(is_failure))
        assert process.evidence == pytest.approx(guard.evidence, rel=1e-12)


@pytest.mark.parametrize(("tolerance", "alpha"), [(0.0, 0.01), (1.0, 0.01), (0.1, 0.0), (0.1, 1.0)])
def test_failure_process_refuses_what_promises_nothing(tolerance: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="found"):
        FailureProcess(tolerance, alpha)


@pytest.mark.parametrize(
    "passes", [[], [0], [0, 0], [3, 0], [400, 0, 0], [50, 50, 0, 0, 0], [0] * 9]
)
def test_would_trip_foresees_what_observing_would_find(passes: list[int]) -> None:
    foreseeing, observing = FailureProcess(0.005, 0.002), FailureProcess(0.005, 0.002)
    for process in (foreseeing, observing):
        for _ in range(25):
            process.observe(is_failure=False)
    has_tripped = False
    for count in passes:
        for _ in range(count):
            observing.observe(is_failure=False)
        has_tripped = observing.observe(is_failure=True)
    evidence = foreseeing.evidence
    assert foreseeing.would_trip(passes) is has_tripped
    assert foreseeing.evidence == evidence


def test_longer_horizon_lets_less_wealth_in_after_a_good_past() -> None:
    short, long = (FailureProcess(0.005, 0.002, horizon) for horizon in (10_000, 1_000_000))
    for process in (short, long):
        for _ in range(20_000):
            process.observe(False)
    assert short.evidence > long.evidence > 0.0
    with pytest.raises(ValueError, match="horizon"):
        FailureProcess(0.005, 0.002, 0)
