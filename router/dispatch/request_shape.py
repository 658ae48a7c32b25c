"""The shape of a request: what its dispatch must know of it. Pure."""

from typing import Any

import msgspec

from penumbra.router.dispatch.answer_check import AnswerKind


class RequestShape(msgspec.Struct, frozen=True):
    """The facts about a request that decide how its answer is checked, kept and waited for."""

    kind: AnswerKind = AnswerKind()
    may_be_continued: bool = True
    """Whether its stream is kept, so that another build can continue it."""
    most_tokens: Any = None
    """The longest answer that it allows, as it says: a number, if it is well-formed."""
    goes_on: bool = False
    """Whether it goes on from a stored response, which only the build that gave it knows."""
