"""Chooses the turn of a conversation that is compared: each with the same chance. Pure.

The turns of a conversation depend on each other, so one of them is bet on. Were it the first that
comes, late turns would never be compared, where long contexts are. How many turns a conversation
will have is not known when one comes; but it is known how many earlier ones had: if `n[k]` of the
requests were the k-th of their conversation, the k-th is taken with the chance
`n[k] / (n[k] + n[k + 1] + ...)`. Then every turn of conversations of equal length has the same
chance, a single question is always taken where all are single, and the last turn always.

A choice depends on the past and on a hash of the gateway's own id, and never on an answer.
"""

MOST_CONVERSATIONS = 65_536
"""Conversations whose turns are counted; the oldest is forgotten, and begins anew if it goes on."""
MOST_TURNS = 64
"""Later turns are not counted, and always taken: one prompt that comes all day is no conversation
whose turns are to be waited for."""
_HALVED_AT = 4_096
"""Requests after which all counts are halved: traffic changes."""


class TurnChoice:
    """The turns of one run's conversations, as they come."""

    __slots__ = ("_counts", "_total", "_turns")

    def __init__(self) -> None:
        self._turns: dict[int, int] = {}
        """Conversation -> turns so far."""
        self._counts = [0.0] * MOST_TURNS
        """Index k -> requests that were the (k + 1)-th of their conversation."""
        self._total = 0.0

    def chooses(self, conversation: int, draw: float) -> bool:
        """Count one more turn of a conversation, and return whether it may be compared.

        Args:
            conversation: Its key.
            draw: A number in [0, 1) that no one can foresee.
        """
        turn = self._turns.pop(conversation, 0)
        self._turns[conversation] = turn + 1
        if len(self._turns) > MOST_CONVERSATIONS:
            del self._turns[next(iter(self._turns))]
        if turn >= MOST_TURNS:
            return True
        self._counts[turn] += 1.0
        self._total += 1.0
        if self._total >= _HALVED_AT:
            self._counts = [count / 2 for count in self._counts]
            self._total /= 2
        later = sum(self._counts[turn:])
        return draw * later < self._counts[turn]
