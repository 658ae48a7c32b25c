"""Words that all packages share: reasons, roles and outcomes.

Pure. The values are on the wire (headers, metrics, events); renaming one is a breaking change.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Reasons for which a request got its variant; an earlier one precedes a later one."""

    GUARD = "GUARD"
    """The guard took the chosen candidate out of service (rolled back)."""
    LEASE_EXPIRED = "LEASE_EXPIRED"
    """No fresh heartbeat of the guard: no live candidate share."""
    KILL_SWITCH = "KILL_SWITCH"
    """An operator sent all traffic to the baseline."""
    QUARANTINE = "QUARANTINE"
    """The request's slice is pinned to the baseline."""
    UNCOMPARED = "UNCOMPARED"
    """The rollout of the chosen candidate has not compared such requests, or cannot."""
    PIN = "PIN"
    """The request asked for the variant and its key may, or an operator pinned its subject."""
    TARGETING_MATCH = "TARGETING_MATCH"
    """A targeting rule matched."""
    SPLIT = "SPLIT"
    """The targeting key fell into a share of the split."""
    DEFAULT = "DEFAULT"
    """Nothing else applied: the baseline."""
    ERROR = "ERROR"
    """Evaluation met something it cannot handle: the baseline, with an error code."""


class Role(StrEnum):
    """Role of a variant in its model."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


def role_of(variant: str, baseline: str) -> Role:
    """The role of a variant in a model with this baseline."""
    return Role.BASELINE if variant == baseline else Role.CANDIDATE


class Outcome(StrEnum):
    """Outcome of one attempt at an upstream."""

    OK = "ok"
    REFUSED = "refused"
    """No connection could be made, or it was closed before a response began."""
    TIMEOUT = "timeout"
    """No first byte, or no further byte, within the limit."""
    SERVER_ERROR = "server_error"
    """A 5xx status, or an error event in place of the first one."""
    GARBAGE = "garbage"
    """Not HTTP, not the promised content, or a broken first event."""
    DIED = "died"
    """The response broke off after it had begun."""
    REJECTED = "rejected"
    """A 4xx of a candidate to a request that the baseline answered properly."""
    CLIENT_ERROR = "client_error"
    """A 4xx of the baseline, or of a candidate and the baseline alike: the request's fault."""
    UNSUPPORTED = "unsupported"
    """The candidate lacks a route, a parameter or the context length that the baseline has."""
    OVERTIME = "overtime"
    """A whole answer was not complete within its limit: slow, which latency guardrails judge."""
    SHARED = "shared"
    """Candidate and baseline failed alike: the request or the surroundings are at fault."""
    GATEWAY_LIMIT = "gateway_limit"
    """A limit or a fault of the gateway's own: file descriptors, connections, its pace."""
    CLIENT_GONE = "client_gone"
    """The client went away first."""
    ROLLED_BACK = "rolled_back"
    """The variant was taken out of service meanwhile, and the baseline went on in its place."""


FAILURES = frozenset(
    {
        Outcome.REFUSED,
        Outcome.TIMEOUT,
        Outcome.SERVER_ERROR,
        Outcome.GARBAGE,
        Outcome.DIED,
        Outcome.REJECTED,
    }
)
"""The outcomes that count against a variant."""
