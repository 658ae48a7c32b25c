import pytest

from penumbra.router.shadow.admission import EngineBudget, Gauges, has_headroom, read_gauges
from penumbra.router.shadow.settings import Budget, HeadroomSettings

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="demo"} 3.0
vllm:num_requests_running{engine="1",model_name="demo"} 4.0
vllm:num_requests_waiting{engine="0",model_name="demo"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="demo"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="demo"} 0.5
"""
IDLE = Gauges(0, 0, 0.0)


def test_gauges_are_summed_over_engines_and_the_fullest_cache_counts() -> None:
    assert read_gauges(VLLM) == Gauges(running=7, waiting=1, kv_ratio=0.5)


@pytest.mark.parametrize("prefix", ["vllm_", "ray_vllm_", "ray_vllm:"])
def test_gauges_are_read_under_rays_names_too(prefix: str) -> None:
    assert read_gauges(VLLM.replace("vllm:", prefix)) == Gauges(7, 1, 0.5)


@pytest.mark.parametrize(
    "text",
    ["", "up 1\n", 'vllm:num_requests_running{engine="0"} 3.0\n', "vllm:num_requests_running x"],
)
def test_a_page_without_the_gauges_tells_nothing(text: str) -> None:
    assert read_gauges(text) is None


@pytest.mark.parametrize(
    ("gauges", "in_flight", "expected"),
    [
        ([IDLE, IDLE], 3, True),
        ([IDLE, Gauges(16, 0, 0.0)], 0, False),
        ([Gauges(15, 0, 0.0), IDLE], 0, True),
        ([IDLE, Gauges(0, 1, 0.0)], 0, False),
        ([IDLE, Gauges(0, 0, 0.8)], 0, False),
        ([IDLE, None], 0, True),
        ([IDLE, None], 1, False),
        ([Gauges(16, 0, 0.0), None], 0, False),
    ],
)
def test_headroom_is_that_of_the_busiest_engine(
    gauges: list[Gauges | None], in_flight: int, expected: bool
) -> None:
    assert has_headroom(gauges, HeadroomSettings(), in_flight) is expected


def test_the_budget_closes_at_zero_and_opens_when_a_debt_is_refilled() -> None:
    budget = EngineBudget(Budget(engine_seconds_per_minute=6.0), now=100.0)
    assert budget.is_open(100.0)
    budget.charge(7.0)
    assert budget.balance(100.0) == pytest.approx(-1.0)
    assert not budget.is_open(109.9)
    assert budget.is_open(110.1)
    assert budget.spent == 7.0


def test_the_budget_saves_one_minute_at_most() -> None:
    budget = EngineBudget(Budget(engine_seconds_per_minute=6.0), now=0.0)
    assert budget.balance(1_000_000.0) == pytest.approx(6.0)


def test_over_an_hour_the_budget_is_spent_and_no_more() -> None:
    budget = EngineBudget(Budget(engine_seconds_per_minute=30.0), now=0.0)
    for second in range(3600):
        while budget.is_open(float(second)):
            budget.charge(0.7)
    # The hour's budget, the first minute's saving, and the last debt.
    assert budget.spent == pytest.approx(30.0 * 60 + 30.0, abs=1.5)
