"""Errors of the control process, and the HTTP status of each.

DeploymentsError
├── ConfigInvalid               a configuration file cannot be used; lists every problem
├── StoredFlagInvalid           the store's flag does not fit the configuration any more
├── Unauthorized (401)          no token, or an unknown one
├── Forbidden (403)             the token's role may not do this
├── NotFound (404)              no such model, pin, rollout or epoch
├── Conflict (409)              the flag was changed in the meantime
│   ├── AlreadyJudged (409)     a request got another judgement before (`feedback`)
│   └── ModelSetAside (409)     an event of the model cannot be read (`model_set_aside`)
├── RequestInvalid (400)        the request cannot be understood
├── RequestTooSlow (408)        the request's body did not come in time
├── RequestTooLarge (413)       the request's body is larger than allowed
├── FlagRefused (422)           the flag does not fit its model; tells why
├── ConfigurationRefused (422)  the proposed configuration cannot be put into force; tells why
├── RolloutRefused (422)        the rollout does not fit its model; tells why
├── ChangeUnfoldable (422)      the change cannot be put into force; nothing was changed
├── ReportRefused (422)         a gateway's or comparator's report cannot be counted
├── PreconditionRequired (428)  a whole flag is replaced without naming the epoch it is based on
├── IssuerUnavailable (503)     the issuer of a token does not tell its keys
├── NotLeader (503)             another control process leads; nothing was changed
└── StoreUnavailable (503)      the store cannot be read or written; nothing was changed
    ├── StoreInDoubt (503)      … or its answer to a commit was lost: look before trying again
    └── StoreAway (503)         … because its server does not answer, or refuses: it may come back
"""

from collections.abc import Iterable
from typing import ClassVar, Self

STATUS: dict[str, int] = {
    "config_invalid": 500,
    "stored_flag_invalid": 500,
    "request_invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "request_timeout": 408,
    "request_too_large": 413,
    "feedback_exists": 409,
    "model_set_aside": 409,
    "flag_invalid": 422,
    "configuration_refused": 422,
    "rollout_invalid": 422,
    "change_unfoldable": 422,
    "report_refused": 422,
    "precondition_required": 428,
    "issuer_unavailable": 503,
    "not_leader": 503,
    "store_unavailable": 503,
    "store_in_doubt": 503,
}


class DeploymentsError(Exception):
    """Base of all errors of the control process.

    Args:
        message: What happened, and what would be right.
        param: The field or header at fault.
    """

    code: ClassVar[str]

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]


class ConfigInvalid(DeploymentsError):
    """A configuration file cannot be used.

    Args:
        file: The file, as it was named.
        problems: Each `path: found X, wanted Y`.
    """

    code = "config_invalid"

    def __init__(self, file: str, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = problems


class StoredFlagInvalid(DeploymentsError):
    """The store's flag does not fit the configuration any more."""

    code = "stored_flag_invalid"


class RequestInvalid(DeploymentsError):
    """The request cannot be understood."""

    code = "request_invalid"


class RequestTooSlow(DeploymentsError):
    """The request's body did not come in time."""

    code = "request_timeout"


class RequestTooLarge(DeploymentsError):
    """The request's body is larger than allowed."""

    code = "request_too_large"


class Unauthorized(DeploymentsError):
    """The request has no token, or an unknown one."""

    code = "unauthorized"


class IssuerUnavailable(DeploymentsError):
    """The issuer of a token does not tell the key by which it could be verified."""

    code = "issuer_unavailable"


class Forbidden(DeploymentsError):
    """The token's role may not do this."""

    code = "forbidden"


class NotFound(DeploymentsError):
    """There is no such model, pin, rollout or epoch."""

    code = "not_found"

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str]) -> Self:
        """Builds the error for a name that is none of the known ones.

        Args:
            kind: The thing that has the name; also the field at fault: `model`.
            name: The name that was given.
            known: The names that would be right.
        """
        names = ", ".join(known) or "none"
        return cls(f"found no {kind} {name!r}, wanted one of: {names}", param=kind)


class Conflict(DeploymentsError):
    """The flag was changed since the epoch that this change is based on."""

    code = "conflict"


class AlreadyJudged(Conflict):
    """The request has been judged differently before."""

    code = "feedback_exists"


class ModelSetAside(Conflict):
    """An event of the model's history cannot be read, so that nothing can be based on it."""

    code = "model_set_aside"


class FlagRefused(DeploymentsError):
    """The flag does not fit its model."""

    code = "flag_invalid"


class ConfigurationRefused(DeploymentsError):
    """The proposed configuration cannot be put into force; nothing was changed.

    Args:
        problems: Each `path: found X, wanted Y`.
    """

    code = "configuration_refused"

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("\n".join(problems), param="models")


class RolloutRefused(DeploymentsError):
    """The rollout does not fit its model."""

    code = "rollout_invalid"


class ChangeUnfoldable(DeploymentsError):
    """A change cannot be folded into the state, so it was not stored; names the field."""

    code = "change_unfoldable"


class ReportRefused(DeploymentsError):
    """A report of observations cannot be counted, so it was not stored; names the field."""

    code = "report_refused"


class PreconditionRequired(DeploymentsError):
    """A request that replaces a whole flag does not name the epoch that it is based on."""

    code = "precondition_required"


class NotLeader(DeploymentsError):
    """Another control process leads, or none; this one may not write, and nothing was changed."""

    code = "not_leader"

    @classmethod
    def because_of(cls, address: str) -> Self:
        """Builds the error that names the leader; `address` is empty if it is not known."""
        leader = f"{address} leads" if address else "another one may lead"
        return cls(f"this control process does not lead the store and changes nothing: {leader}")


class StoreUnavailable(DeploymentsError):
    """The store cannot be read or written; nothing was changed."""

    code = "store_unavailable"


class StoreInDoubt(StoreUnavailable):
    """The store's answer to a commit was lost: the change is in the store, or it is not.

    Args:
        what: What happened.
    """

    code = "store_in_doubt"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: it is not known whether the change was made; look before you make it again"
        )


class StoreAway(StoreUnavailable):
    """The database does not answer, or refuses; it may come back."""
