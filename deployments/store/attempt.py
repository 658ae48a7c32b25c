"""Attempt: one piece of the store's work, whose caller may stop waiting for it.

What a caller was told to have failed must not be committed later. So the thread that does the work
asks right before each commit whether its caller still waits, and the caller learns whether a commit
had begun when it gave up. Only then may the change be in the store or not; in all other cases
nothing is changed, however late the work ends.
"""

import threading
from contextvars import ContextVar

from penumbra.deployments.errors import StoreUnavailable


class Attempt:
    """One piece of work, seen by its caller and by the thread that does it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_given_up = False
        self._is_committing = False

    @property
    def is_given_up(self) -> bool:
        """Whether its caller has stopped waiting."""
        return self._is_given_up

    def give_up(self) -> bool:
        """Stop waiting for it; called by the caller.

        Returns:
            Whether it is certain that it changes nothing any more.
        """
        with self._lock:
            self._is_given_up = True
            return not self._is_committing

    def begin_commit(self) -> None:
        """Note that a commit begins; called by the thread that does the work.

        Raises:
            StoreUnavailable: Its caller was told that nothing is changed.
        """
        with self._lock:
            if self._is_given_up:
                raise StoreUnavailable("the store answered too late; nothing was changed")
            self._is_committing = True

    def work_here(self) -> None:
        """Make it the piece of work that the calling thread does."""
        _current.set(self)


_current: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def begin_commit() -> None:
    """Note that the calling thread begins a commit.

    Raises:
        StoreUnavailable: The caller of its piece of work was told that nothing is changed.
    """
    attempt = _current.get()
    if attempt is not None:
        attempt.begin_commit()
