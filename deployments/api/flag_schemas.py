"""Schemas of the flag routes: bodies that they read, and views that they return."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.gateways.link import Link
from penumbra.deployments.history.changes import Arrival, ChangeOutcome
from penumbra.deployments.history.events import ConfigPayload, Event, FlagPayload, Kind
from penumbra.deployments.history.identities import AccessPayload
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Pin
from penumbra.router.flags.slices import OTHER

_STRICT = ConfigDict(extra="forbid", frozen=True)

Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        pattern=r"\S",
        description="Reason of the change; kept for ever.",
        examples=["int8 is within tolerance"],
    ),
]


class ReasonBody(BaseModel):
    """A change that needs a reason only."""

    model_config = _STRICT

    reason: Reason


class SetBody(ReasonBody):
    """A whole flag that replaces the current one."""

    flag: Annotated[Flag, Field(examples=[{"split": {"int8": 5.0}}])]


class SplitBody(ReasonBody):
    """The shares of all candidates."""

    split: Annotated[dict[str, float], Field(examples=[{"int8": 30.0}])]
    """Candidate -> percent."""


class PinBody(ReasonBody):
    """A pin to set: a tenant, or a user or session, always gets one variant."""

    kind: Annotated[Literal["tenant", "key"], Field(examples=["tenant"])]
    subject: str = Field(min_length=1, max_length=256, examples=["acme"])
    variant: Annotated[str, Field(examples=["int8"])]

    def pin(self) -> Pin:
        """Returns the pin."""
        return Pin(kind=self.kind, subject=self.subject, variant=self.variant)


class UnpinBody(ReasonBody):
    """The subject whose pin is removed."""

    kind: Annotated[Literal["tenant", "key"], Field(examples=["tenant"])]
    subject: str = Field(min_length=1, max_length=256, examples=["acme"])


class ImportBody(ReasonBody):
    """A flagd document to import."""

    flagd: dict[str, Any]


class FlagView(BaseModel):
    """One model's flag, with the variants and slices that it may name."""

    model: str
    baseline: str
    variants: list[str]
    slices: list[str]
    flag: Flag
    changed_epoch: int
    """Epoch of the last change of this flag or its model."""

    @classmethod
    def of(cls, name: str, model: ModelSnapshot, changed_epoch: int) -> Self:
        """Makes the view of one model."""
        return cls(
            model=name,
            baseline=model.baseline,
            variants=list(model.variants),
            slices=[*(rule.name for rule in model.slices), OTHER],
            flag=model.flag,
            changed_epoch=changed_epoch,
        )


class FlagsView(BaseModel):
    """The flags of all models."""

    epoch: int
    flags: list[FlagView]

    @classmethod
    def of(cls, state: State) -> Self:
        """Makes the view of a state."""
        flags = [
            FlagView.of(name, model, state.changed[name]) for name, model in state.models.items()
        ]
        return cls(epoch=state.epoch, flags=flags)


class OneFlagView(FlagView):
    """One flag with the epoch to base a change on."""

    epoch: int


class GatewaysReached(BaseModel):
    """Gateways that a change reached before it was answered."""

    connected: int
    acknowledged: int

    @classmethod
    def of(cls, arrival: Arrival) -> Self:
        """Makes the view of an arrival."""
        return cls(connected=arrival.connected, acknowledged=arrival.acknowledged)


class ChangeView(BaseModel):
    """Result of a change."""

    epoch: int
    changed: bool
    """False if everything was already so; then nothing was stored."""
    gateways: GatewaysReached
    durable_ms: float
    """Time from the beginning of the change to its commit."""
    propagation_ms: float | None
    """Time from its commit to the last acknowledgement; null unless every gateway acknowledged."""

    @classmethod
    def of(cls, outcome: ChangeOutcome) -> Self:
        """Makes the view of an outcome."""
        arrival = outcome.arrival
        return cls(
            epoch=outcome.epoch,
            changed=outcome.is_changed,
            gateways=GatewaysReached.of(arrival),
            durable_ms=milliseconds(outcome.durable_seconds) or 0.0,
            propagation_ms=milliseconds(arrival.seconds),
        )


class HistoryItem(BaseModel):
    """One change in the history."""

    epoch: int
    at: datetime
    actor: str
    reason: str
    kind: Kind
    model: str | None
    before: Flag | None = None
    after: Flag | None = None
    models: dict[str, ModelSnapshot] | None = None
    """For `config`: the models as configured from this epoch on."""
    keys: list[str] | None = None
    """For `config`: the API keys from this epoch on, each `ID of TENANT`; null: as before."""
    candidate: str | None = None
    """For `rollout`: the candidate."""
    stage: str | None = None
    """For `rollout`: the stage from this epoch on."""
    access: str | None = None
    """For `access`: what became of which identity: `NAME (ROLE) added`."""
    role: str | None = None
    """Role of the caller; null: a part of the system, or a release of before that did not tell."""
    identity: str | None = None
    """Identity whose token was shown; null: a token of the environment, and `actor` is a claim."""
    note: str | None = None
    """Name that the client of an identity gave besides: a claim."""

    @classmethod
    def of(cls, event: Event) -> Self:
        """Makes the view of an event."""
        fields: dict[str, Any] = {}
        match event.payload:
            case FlagPayload(before=before, after=after):
                fields = {"before": before, "after": after}
            case ConfigPayload(models=models, keys=keys):
                told = None if keys is None else [f"{key.key_id} of {key.tenant}" for key in keys]
                fields = {"models": models, "keys": told}
            case RolloutPayload():
                payload = event.payload
                fields = {
                    "before": payload.flag_before,
                    "after": payload.flag_after,
                    "candidate": payload.after.spec.candidate,
                    "stage": payload.after.stage,
                }
            case AccessPayload():
                fields = {"access": _access_text(event.payload)}
        if event.authority is not None:
            fields |= {
                "role": event.authority.role,
                "identity": event.authority.identity,
                "note": event.authority.note or None,
            }
        return cls(
            epoch=event.epoch,
            at=event.at,
            actor=event.actor,
            reason=event.reason,
            kind=event.kind,
            model=None if event.kind is Kind.ACCESS else event.model,
            **fields,
        )


def _access_text(payload: AccessPayload) -> str:
    found = payload.after or payload.before
    role = f" ({found.role})" if found else ""
    return f"{payload.name}{role} {payload.change}"


class HistoryView(BaseModel):
    """Changes, oldest first."""

    items: list[HistoryItem]


class GatewayView(BaseModel):
    """One connected gateway."""

    gateway: str
    pid: int
    epoch: int
    """Last epoch that it acknowledged."""
    connected_seconds: float
    last_propagation_ms: float | None
    refusal: str | None
    takes_keys: bool
    """Whether it takes the installation's API keys; one of an older release has those of its file.
    """
    stopped: dict[str, list[str]] = {}
    """Model -> candidates whose evidence has stopped: they have no lease there."""
    kills: dict[str, str] = {}
    """Model -> why an operator killed it at that gateway itself."""

    @classmethod
    def of(cls, link: Link, now: float) -> Self:
        """Makes the view of a link."""
        return cls(
            gateway=link.hello.gateway,
            pid=link.hello.pid,
            epoch=link.epoch,
            connected_seconds=round(now - link.connected_at, 3),
            last_propagation_ms=milliseconds(link.last_propagation_seconds),
            refusal=link.refusal,
            takes_keys=link.hello.processes > 0,
            stopped={model: sorted(names) for model, names in link.stopped.items()},
            kills=link.kills,
        )


class GatewaysView(BaseModel):
    """All connected gateways."""

    epoch: int
    """Newest epoch."""
    gateways: list[GatewayView]


class ErrorDetail(BaseModel):
    """Description of an error, in the form of OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Body of every error response."""

    error: ErrorDetail


def milliseconds(seconds: float | None) -> float | None:
    """Convert seconds to milliseconds, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)
