"""Schemas of the configuration's routes: the body that they read, and views that they return."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.api.flag_schemas import GatewaysReached, ReasonBody, milliseconds
from penumbra.deployments.control.configuration_service import ProposalOutcome
from penumbra.deployments.history.config_plan import Action
from penumbra.deployments.history.state import State
from penumbra.router.flags.routing_table import SliceRule, Variant
from penumbra.router.flags.tenant_keys import KeySettings, TenantLimits

_MOST_EPOCH = 2**63 - 1


class ConfigurationBody(ReasonBody):
    """A configuration that is proposed: the parts of `penumbra.yaml` that all machines share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, dict[str, Any]] = Field(min_length=1)
    """As in the file; a model's `flag` counts for a new model only."""
    keys: list[dict[str, Any]] | None = None
    """As in the file; null leaves them as they are."""
    local: dict[str, Any] | None = None
    """The other settings of the file by their path, to be compared: `{"gateway.port": 8080}`."""
    dry_run: bool = False
    """Only return the plan."""
    expected_epoch: int | None = Field(default=None, ge=0, le=_MOST_EPOCH)
    """409 if what the proposal touches was changed after this epoch."""


class StepView(BaseModel):
    """One step of a plan."""

    action: Action
    text: str
    hurts: bool
    """Whether clients may get other answers, or evidence is lost."""
    model: str | None


class PlanView(BaseModel):
    """The plan of a proposal, and what came of it."""

    epoch: int
    changed: bool
    """False for a dry run, and if all was so already; then nothing was stored."""
    steps: list[StepView]
    gateways: GatewaysReached
    propagation_ms: float | None

    @classmethod
    def of(cls, outcome: ProposalOutcome) -> Self:
        """Makes the view of an outcome."""
        steps = [
            StepView(action=step.action, text=step.text, hurts=step.hurts, model=step.model)
            for step in outcome.plan.steps
        ]
        return cls(
            epoch=outcome.epoch,
            changed=outcome.is_changed,
            steps=steps,
            gateways=GatewaysReached.of(outcome.arrival),
            propagation_ms=milliseconds(outcome.arrival.seconds),
        )


class RevocationView(BaseModel):
    """The revocation of a key."""

    epoch: int
    gateways: GatewaysReached
    propagation_ms: float | None
    """Time from its commit to the last acknowledgement; null unless every gateway acknowledged."""


class KeyView(BaseModel):
    """One API key, named by the first characters of its digest."""

    key_id: str
    tenant: str
    may_pin: bool
    limits: TenantLimits

    @classmethod
    def of(cls, key: KeySettings) -> Self:
        """Makes the view of a key."""
        return cls(key_id=key.key_id, tenant=key.tenant, may_pin=key.may_pin, limits=key.limits)


class ConfiguredModelView(BaseModel):
    """One model of the configuration; its flag is a resource of its own."""

    baseline: str
    variants: dict[str, Variant]
    slices: list[SliceRule]
    sticky_headers: list[str]


class ConfigurationView(BaseModel):
    """The configuration in force."""

    epoch: int
    """Newest epoch, to send as `expected_epoch`."""
    configured_epoch: int
    """Epoch in which the configuration was changed last."""
    models: dict[str, ConfiguredModelView]
    keys: list[KeyView] | None
    """null: each gateway has those of its own file."""

    @classmethod
    def of(cls, state: State) -> Self:
        """Makes the view of a state."""
        models = {
            name: ConfiguredModelView(
                baseline=model.baseline,
                variants=model.variants,
                slices=list(model.slices),
                sticky_headers=list(model.sticky_headers),
            )
            for name, model in state.models.items()
        }
        keys = None if state.keys is None else [KeyView.of(key) for key in state.keys]
        return cls(epoch=state.epoch, configured_epoch=state.configured, models=models, keys=keys)
