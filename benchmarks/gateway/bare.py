"""The gateway as it would be without metrics, to be measured beside the real one.

`python -m benchmarks.gateway.bare --settings FILE`: every place that counts or observes for
`/metrics` does nothing; what a rollout watches is still told. For the benchmark only.
"""

from typing import TYPE_CHECKING

from penumbra.monitoring.vocabulary import Outcome, Reason
from penumbra.router.__main__ import main
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.gateway.answer_timing import AnswerTiming
from penumbra.router.metrics import VariantCells

if TYPE_CHECKING:
    from penumbra.router.dispatch.dispatch import Dispatch


def _began(self: AnswerTiming, dispatch: "Dispatch", now: float) -> None:
    self._first_byte_at = now
    watch = dispatch.attempt.watch
    if watch is not None and dispatch.failover is None:
        watch.first_byte(dispatch.slice_name, now - self.started_at)


def _nothing(self: AnswerTiming, dispatch: "Dispatch", now: float) -> None:
    del self, dispatch, now


def _ended(self: Attempt, slice_name: str, outcome: Outcome) -> None:
    if self.watch is not None:
        self.watch.ended(slice_name, outcome)


def _not_counted(self: VariantCells, what: Reason | Outcome) -> None:
    del self, what


if __name__ == "__main__":
    AnswerTiming.began = _began  # type: ignore[method-assign]
    AnswerTiming.streamed = _nothing  # type: ignore[method-assign]
    AnswerTiming.ended = _nothing  # type: ignore[method-assign]
    Attempt.ended = _ended  # type: ignore[method-assign]
    VariantCells.count_decision = _not_counted  # type: ignore[method-assign]
    main()
