"""Lengths of answers and the usual ones, to tell which of two answers has the wrong length. Pure.

If one answer is several times as long as the other, either may be wrong: the long one may ramble,
or the short one may have stopped early. The length that the baseline usually writes in the slice
decides.
"""

import math
from collections import deque
from statistics import median

from penumbra.monitoring.signals.answer import Answer

RATIO = 3.0
"""Answers whose lengths differ by less are equally long."""
LEAST_CHARS = 200
"""If the longer one is shorter than that, neither is wrong."""
LEAST_ANSWERS = 20
"""With fewer, nothing is usual yet."""
_REMEMBERED = 101


class UsualLengths:
    """The median length of the baseline's recent answers, by slice. Constant memory in each."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: dict[str, deque[int]] = {}

    def usual(self, slice_name: str) -> float | None:
        """Characters; None while too few answers are known.

        Ask before the answer in question is noted, or it judges itself.
        """
        recent = self._recent.get(slice_name, ())
        return float(median(recent)) if len(recent) >= LEAST_ANSWERS else None

    def note(self, slice_name: str, answer: Answer) -> None:
        """Count one answer of the baseline."""
        recent = self._recent.setdefault(slice_name, deque(maxlen=_REMEMBERED))
        recent.append(chars(answer))


def chars(answer: Answer) -> int:
    """Characters of an answer, reasoning and tool calls included."""
    return sum(
        len(choice.text)
        + len(choice.reasoning)
        + sum(len(call.arguments) for call in choice.tool_calls)
        for choice in answer.choices
    )


def has_drifted(length: int, other: int, usual: float | None) -> bool:
    """Whether two lengths differ much and the first is further from the usual one.

    Args:
        length: Characters of the answer in question.
        other: Characters of the other build's.
        usual: What `UsualLengths` says; None decides nothing.
    """
    if usual is None or max(length, other) < LEAST_CHARS:
        return False
    if max(length, other) <= RATIO * min(length, other):
        return False
    return _distance(length, usual) > _distance(other, usual)


def _distance(length: int, usual: float) -> float:
    return abs(math.log((length + 1) / (usual + 1)))
