"""The shape of a request: what its dispatch must know of it. Pure."""

import msgspec

from penumbra.router.dispatch.answer_check import AnswerKind


class RequestShape(msgspec.Struct, frozen=True):
    """The facts about a request that decide how its answer is checked, kept and waited for."""

    kind: AnswerKind = AnswerKind()
    may_be_continued: bool = True
    """Whether its stream is kept, so that another build can continue it."""
    most_tokens: int | None = None
    """The longest answer that it allows, if it says so."""
    goes_on: bool = False
    """Whether it goes on from a stored response, which only the build that gave it knows."""
