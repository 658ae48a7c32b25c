"""The gateway as it would be without metrics, to be measured beside the real one.

`python -m benchmarks.gateway.bare --settings FILE`: every place that counts or observes for
`/metrics` does nothing; what a rollout watches is still told. For the benchmark only.
"""

from penumbra.monitoring.vocabulary import Outcome, Reason
from penumbra.router.__main__ import main
from penumbra.router.dispatch.admissions import Admission
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.gateway.answer_timing import Answered, AnswerTiming
from penumbra.router.metrics import VariantCells


def _begin(self: AnswerTiming, answered: Answered, now: float) -> None:
    self._first_byte_at = now
    watch = answered.attempt.watch
    if watch is not None and answered.failover is None:
        seconds = now - self.started_at
        is_stream = answered.is_event_stream
        watch.record_first_byte(answered.slice_name, seconds, is_stream=is_stream)


def _complete_stream(
    self: AnswerTiming, answered: Answered, now: float, tapped_tokens: int | None
) -> None:
    del self, answered, now, tapped_tokens


def _end(self: AnswerTiming, answered: Answered, now: float) -> None:
    del self, answered, now


def _record_end(
    self: Attempt, slice_name: str, outcome: Outcome, admission: Admission | None = None
) -> None:
    if self.watch is not None:
        self.watch.record_end(slice_name, outcome, admission)


def _not_counted(self: VariantCells, what: Reason | int) -> None:
    del self, what


if __name__ == "__main__":
    AnswerTiming.begin = _begin  # type: ignore[method-assign]
    AnswerTiming.complete_stream = _complete_stream  # type: ignore[method-assign]
    AnswerTiming.end = _end  # type: ignore[method-assign]
    Attempt.record_end = _record_end  # type: ignore[method-assign]
    VariantCells.count_decision = _not_counted  # type: ignore[method-assign]
    VariantCells.count_answer = _not_counted  # type: ignore[method-assign]
    main()
