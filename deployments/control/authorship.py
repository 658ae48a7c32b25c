"""Authorship: every event of a request is stored with the right by which it was made.

The caller is known where a request comes in. Events are drafted far below, by code that knows only
a name. So the request's task carries its caller, and the one place that commits looks there: no
route can forget to hand it on. In the same commit there may be events of another part of the
system, for the guard decides what is pending whenever something is committed: they have that part's
name, and no authority.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from penumbra.deployments.history.events import Authority, Draft


@dataclass(frozen=True, slots=True)
class Author:
    """Caller of the request under way."""

    name: str
    """Actor of its events."""
    authority: Authority
    still_may: Callable[[], None]
    """Checks that its right is still in force; raises the error that is the answer."""


_author: ContextVar[Author | None] = ContextVar("author", default=None)


@contextmanager
def request() -> Iterator[None]:
    """Begin a request that has no author yet; forget its author at the end."""
    token = _author.set(None)
    try:
        yield
    finally:
        _author.reset(token)


def begin(author: Author) -> None:
    """Note the author of the request under way."""
    _author.set(author)


def signed(drafts: Sequence[Draft]) -> list[Draft]:
    """Add the authority of the request under way to the events that its author makes.

    Raises:
        Unauthorized: Its token was revoked, or has expired, since the request came.
        Forbidden: Its role is another one since.
    """
    author = _author.get()
    if author is None:
        return [*drafts]
    own = [draft.actor == author.name and draft.authority is None for draft in drafts]
    if any(own):
        author.still_may()
    return [
        draft.model_copy(update={"authority": author.authority}) if is_own else draft
        for draft, is_own in zip(drafts, own, strict=True)
    ]
