"""Payload of an event that changes a rollout. Pure."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from penumbra.deployments.rollouts.record import Phase, Rollout
from penumbra.router.flags.routing_table import Flag

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Decided(BaseModel):
    """Basis of a decision of the guard: enough to find the observations and decide again."""

    model_config = _STRICT

    action: Literal["rollback", "quarantine"]
    signal: str | None
    evidence: float | None = None
    boundary: float | None = None
    culprits: tuple[str, ...] = ()
    suspect: str | None = None
    answered_by: str | None = None
    """The `AnsweredBy` of the pairs with the most evidence; None in older stores."""
    detail: str
    pairs: int
    report: tuple[str, str, int]
    """(source, process_start_id, seq) of the deciding report."""
    observed_at: float | None
    """Unix seconds of the last observation in it that has a time."""


class RolloutPayload(BaseModel):
    """A rollout and its model's flag, before and after."""

    model_config = _STRICT

    before: Rollout | None
    after: Rollout
    flag_before: Flag
    flag_after: Flag
    decided: Decided | None = None
    """Basis of the decision, if the guard took traffic away."""


def takes_away(payload: RolloutPayload) -> bool:
    """Whether an event is a rollback, or a quarantine by the guard."""
    was = payload.before.record.phase if payload.before else Phase.OFF
    is_back = payload.after.record.phase is Phase.ROLLED_BACK and was is not Phase.ROLLED_BACK
    return is_back or payload.decided is not None
