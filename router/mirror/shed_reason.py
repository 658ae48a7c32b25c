"""Reasons why a request that was chosen for mirroring was not compared. Pure."""

from enum import StrEnum


class ShedReason(StrEnum):
    """Reason why a request was shed. A closed set: the values label metrics of both processes.

    A failure of the candidate is no reason to shed: it is counted as a failure of the candidate.
    """

    # In the gateway, before the hand-over
    NO_COMPARATOR = "no_comparator"
    """No comparator is connected."""
    BUFFER_FULL = "buffer_full"
    """Too much waits for the comparator."""
    ROUTE = "route"
    """Requests of its route are not compared; the rollout gives the candidate none of them."""
    NOT_TAPPABLE = "not_tappable"
    """The client has its own wish about token ids, or one that they would interfere with; the
    rollout gives the candidate no such request either."""
    REFUSED = "refused"
    """The server does not take the field that asks for token ids."""
    TOO_LARGE = "too_large"
    """The answer is longer than what is stored, or than what a comparator reads."""
    ERROR = "error"
    """The answer is an error of the engine's or of the gateway's. In the comparator: the baseline
    failed, and the candidate was not asked, or failed as well."""
    BROKEN_OFF = "broken_off"
    """The answer broke off."""
    CONTINUED = "continued"
    """Two variants answered, each a part."""
    CLIENT_GONE = "client_gone"
    """The client left before a token of a stream had come that could be compared."""
    OTHER_VARIANT = "other_variant"
    """In the end a variant answered that the run does not compare."""

    # In the comparator
    QUEUE_ITEMS = "queue_items"
    """The queue holds as many requests as it may."""
    QUEUE_BYTES = "queue_bytes"
    """The queue holds as many bytes as it may."""
    BUSY = "busy"
    """It grew too old while an engine had no room."""
    BUDGET = "budget"
    """It grew too old while the budget was spent."""
    AGE = "age"
    """It grew too old while all comparisons that may run at once were running."""
    NOT_WATCHED = "not_watched"
    """No rollout watches its candidate any more, or it was decided before this one began."""
    REPEATED_PROMPT = "repeated_prompt"
    """The run has compared this prompt, or another turn of its conversation, before."""
    OTHER_TURN = "other_turn"
    """Another turn of its conversation is to be compared."""
    REPEATED_SESSION = "repeated_session"
    """The run has compared a request of this session before."""
    UNREADABLE = "unreadable"
    """The answer cannot be read, or came without token ids."""
    IDS_MISSING = "ids_missing"
    """The answer came with fewer token ids than tokens, by the engine's own count."""
    NOT_TEXT = "not_text"
    """The prompt holds content of a kind that is not known."""
    NOT_DRAWN = "not_drawn"
    """It can be compared by harm only, and is none of those that the other arm answers as well."""
    TOO_LONG = "too_long"
    """The prompt alone fills the context."""
    BASELINE_SCORE = "baseline_score"
    """The baseline gave no score: nothing to compare with, and no evidence either way."""
    OTHER_ARM = "other_arm"
    """Another candidate answered it."""
    STOPPING = "stopping"
    """The comparator ends."""

    # In either
    FAULT = "fault"
    """The gateway, or the comparator, itself failed; see its log."""


GATEWAY_REASONS = frozenset(
    {
        ShedReason.NO_COMPARATOR,
        ShedReason.BUFFER_FULL,
        ShedReason.ROUTE,
        ShedReason.NOT_TAPPABLE,
        ShedReason.REFUSED,
        ShedReason.TOO_LARGE,
        ShedReason.ERROR,
        ShedReason.BROKEN_OFF,
        ShedReason.CONTINUED,
        ShedReason.CLIENT_GONE,
        ShedReason.OTHER_VARIANT,
        ShedReason.FAULT,
    }
)
"""Reasons that a gateway counts (`penumbra_mirror_sheds_total`)."""

COMPARATOR_REASONS = (frozenset(ShedReason) - GATEWAY_REASONS) | {
    ShedReason.ERROR, ShedReason.FAULT,
}  # fmt: skip
"""Reasons that a comparator counts (`penumbra_shadow_sheds_total`)."""
