"""Timing: holds the latencies of a client's answer against the shadow answer's of the same request.

Both are measured from outside the engine: a client's by its gateway, a shadow one by the
comparator. Their ratio depends little on the length of the prompt, but it does depend on which of
them was the shadow one: that ran later, alone, when the engines had room. The control process reads
how much from pairs in which the two builds had each other's part.
"""

import msgspec

from penumbra.monitoring.observations import Pair, Signal
from penumbra.monitoring.signals.answer import Answer
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.generation import GenerationResult

PACED_TOKENS = 4
"""The least tokens of an answer whose pace is measured."""


def with_timing(
    pair: Pair, mirrored: MirrorFrame, answer: Answer, shadow: GenerationResult | None
) -> Pair:
    """Add the ratios of the client's latencies to the shadow answer's.

    Args:
        pair: The pair.
        mirrored: The request, with the times of the client's answer and those that may be compared.
        answer: The client's answer.
        shadow: The shadow answer; None if there is none.
    """
    if shadow is None or shadow.answer is None or not mirrored.latencies:
        return pair
    is_timed, is_paced = (
        signal.value in mirrored.latencies for signal in (Signal.TTFT, Signal.TPOT)
    )
    first, shadow_first = mirrored.first_byte_seconds, shadow.first_seconds
    if not mirrored.is_stream and shadow_first is None:
        whole_ratio = _ratio(first, shadow.seconds) if is_timed else None
        return msgspec.structs.replace(pair, whole_ratio=whole_ratio)
    if not mirrored.is_stream or shadow_first is None:  # one is a stream, the other is not
        return pair
    own = _pace(answer, mirrored.total_seconds - first)
    other = _pace(shadow.answer, shadow.seconds - shadow_first)
    return msgspec.structs.replace(
        pair,
        first_ratio=_ratio(first, shadow_first) if is_timed else None,
        pace_ratio=_ratio(own, other) if is_paced else None,
    )


def _pace(answer: Answer, seconds: float) -> float:
    """Seconds per token after the first; 0 if there are too few, or the answer tells none."""
    tokens = answer.completion_tokens or sum(len(choice.token_ids) for choice in answer.choices)
    return seconds / (tokens - 1) if tokens >= PACED_TOKENS else 0.0


def _ratio(seconds: float, other: float) -> float | None:
    return seconds / other if seconds > 0 and other > 0 else None
