"""The answers of the last minute, from counters that only grow."""

from penumbra.monitoring.answers import AnswerCode, AnswerCount
from penumbra.monitoring.vocabulary import Role
from penumbra.router.gateway.recent_answers import RecentAnswers
from penumbra.router.metrics import GatewayMetrics


class Clock:
    """Tells the time that it is set to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds


def test_an_answer_is_told_for_a_minute_and_no_longer() -> None:
    clock, metrics = Clock(), GatewayMetrics()
    cells = metrics.variant("demo", "full", Role.BASELINE)
    recent = RecentAnswers(metrics.answers, clock.now)
    recent.copy()
    assert recent.counts() == ()
    cells.count_answer(500)
    for second in range(1, 61):
        assert recent.counts() == (AnswerCount("demo", "full", "5xx", 1),), second
        clock.seconds = second
        recent.copy()
    clock.seconds = 61.0
    recent.copy()
    assert recent.counts() == ()


def test_only_copies_of_the_last_minute_are_kept() -> None:
    clock, metrics = Clock(), GatewayMetrics()
    cells = metrics.variant("demo", "full", Role.BASELINE)
    recent = RecentAnswers(metrics.answers, clock.now)
    for second in range(1000):
        clock.seconds = float(second)
        cells.count_answer(200)
        recent.copy()
    assert len(recent._copies) == 61
    assert recent.counts() == (AnswerCount("demo", "full", "2xx", 60),)


def test_answers_are_told_by_variant_and_code() -> None:
    clock, metrics = Clock(), GatewayMetrics()
    recent = RecentAnswers(metrics.answers, clock.now)
    recent.copy()
    cells = metrics.variant("demo", "full", Role.BASELINE)  # a model that is added under way
    cells.count_answer(200)
    cells.count_answer(401)
    cells.answers[AnswerCode.UNANSWERED].value += 2
    metrics.variant("demo", "int8", Role.CANDIDATE).count_answer(422)
    assert set(recent.counts()) == {
        AnswerCount("demo", "full", "2xx", 1),
        AnswerCount("demo", "full", "401", 1),
        AnswerCount("demo", "full", "unanswered", 2),
        AnswerCount("demo", "int8", "4xx", 1),
    }


def test_a_new_routing_table_keeps_what_was_counted() -> None:
    metrics = GatewayMetrics()
    metrics.variant("demo", "full", Role.BASELINE).count_answer(200)
    metrics.variant("demo", "full", Role.BASELINE).count_answer(200)
    assert metrics.answers.cell("demo", "full", "baseline", "2xx").value == 2
