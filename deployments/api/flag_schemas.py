"""What the admin API reads and writes, as its OpenAPI document shows it."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.gateways.link import Link
from penumbra.deployments.history.changes import ChangeOutcome
from penumbra.deployments.history.events import ConfigPayload, Event, FlagPayload, Kind
from penumbra.deployments.history.state import State
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Pin
from penumbra.router.flags.slices import OTHER

_STRICT = ConfigDict(extra="forbid", frozen=True)

Reason = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=r"\S", description="Why; kept for ever.")
]


class ReasonBody(BaseModel):
    """A change that needs no more than a reason."""

    model_config = _STRICT

    reason: Reason


class SetBody(ReasonBody):
    """A whole flag."""

    flag: Flag


class SplitBody(ReasonBody):
    """All shares."""

    split: dict[str, float]


class PinBody(ReasonBody):
    """A pin."""

    kind: Literal["tenant", "key"]
    subject: str = Field(min_length=1, max_length=256)
    variant: str

    def pin(self) -> Pin:
        """The pin."""
        return Pin(kind=self.kind, subject=self.subject, variant=self.variant)


class UnpinBody(ReasonBody):
    """Whose pin goes."""

    kind: Literal["tenant", "key"]
    subject: str = Field(min_length=1, max_length=256)


class ImportBody(ReasonBody):
    """A flagd document."""

    flagd: dict[str, Any]


class FlagView(BaseModel):
    """One model's flag, and what it may name."""

    model: str
    baseline: str
    variants: list[str]
    slices: list[str]
    flag: Flag
    changed_epoch: int
    """The last change of this flag or its model."""

    @classmethod
    def of(cls, name: str, model: ModelSnapshot, changed_epoch: int) -> Self:
        """The view of one model."""
        return cls(
            model=name,
            baseline=model.baseline,
            variants=list(model.variants),
            slices=[*(rule.name for rule in model.slices), OTHER],
            flag=model.flag,
            changed_epoch=changed_epoch,
        )


class FlagsView(BaseModel):
    """All flags."""

    epoch: int
    flags: list[FlagView]

    @classmethod
    def of(cls, state: State) -> Self:
        """The view of a state."""
        flags = [
            FlagView.of(name, model, state.changed[name]) for name, model in state.models.items()
        ]
        return cls(epoch=state.epoch, flags=flags)


class OneFlagView(FlagView):
    """One flag with the epoch to base a change on."""

    epoch: int


class GatewaysReached(BaseModel):
    """How far a change got while its answer was waited for."""

    connected: int
    acknowledged: int


class ChangeView(BaseModel):
    """What came of a change."""

    epoch: int
    changed: bool
    """False: everything was already so, and nothing was stored."""
    gateways: GatewaysReached
    durable_ms: float
    """From the beginning of the change to its commit."""
    propagation_ms: float | None
    """From its commit to the last acknowledgement; null unless every gateway acknowledged."""

    @classmethod
    def of(cls, applied: ChangeOutcome) -> Self:
        """The view of an outcome."""
        arrival = applied.arrival
        return cls(
            epoch=applied.epoch,
            changed=applied.is_changed,
            gateways=GatewaysReached(
                connected=arrival.connected, acknowledged=arrival.acknowledged
            ),
            durable_ms=_milliseconds(applied.durable_seconds) or 0.0,
            propagation_ms=_milliseconds(arrival.seconds),
        )


class HistoryItem(BaseModel):
    """One change."""

    epoch: int
    at: datetime
    actor: str
    reason: str
    kind: Kind
    model: str | None
    before: Flag | None = None
    after: Flag | None = None
    models: dict[str, ModelSnapshot] | None = None
    """For `config`: the models as configured from then on."""
    candidate: str | None = None
    """For `rollout`: whose."""
    stage: str | None = None
    """For `rollout`: where it stood from then on."""

    @classmethod
    def of(cls, event: Event) -> Self:
        """The view of an event."""
        fields: dict[str, Any] = {}
        match event.payload:
            case FlagPayload(before=before, after=after):
                fields = {"before": before, "after": after}
            case ConfigPayload(models=models):
                fields = {"models": models}
            case RolloutPayload():
                payload = event.payload
                fields = {
                    "before": payload.flag_before,
                    "after": payload.flag_after,
                    "candidate": payload.after.spec.candidate,
                    "stage": payload.after.stage,
                }
        return cls(
            epoch=event.epoch,
            at=event.at,
            actor=event.actor,
            reason=event.reason,
            kind=event.kind,
            model=event.model,
            **fields,
        )


class HistoryView(BaseModel):
    """Changes, oldest first."""

    items: list[HistoryItem]


class GatewayView(BaseModel):
    """One connected gateway."""

    gateway: str
    pid: int
    epoch: int
    """The last one that it acknowledged."""
    connected_seconds: float
    last_propagation_ms: float | None
    refusal: str | None

    @classmethod
    def of(cls, link: Link, now: float) -> Self:
        """The view of a link."""
        return cls(
            gateway=link.hello.gateway,
            pid=link.hello.pid,
            epoch=link.epoch,
            connected_seconds=round(now - link.connected_at, 3),
            last_propagation_ms=_milliseconds(link.last_propagation_seconds),
            refusal=link.refusal,
        )


class GatewaysView(BaseModel):
    """All connected gateways."""

    epoch: int
    """The newest."""
    gateways: list[GatewayView]


class ErrorDetail(BaseModel):
    """What went wrong, as OpenAI's API says it."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Body of every answer that is an error."""

    error: ErrorDetail


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
