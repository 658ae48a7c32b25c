"""Events from the fleet process to the supervisor: one JSON object a line on standard output."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class VariantState(StrEnum):
    """State of a hosted variant."""

    STARTING = "starting"
    """Ray is placing it, or its engine is loading."""
    RUNNING = "running"
    """Its replicas run and HAProxy routes to them."""
    UNHEALTHY = "unhealthy"
    """It ran, and now has too few replicas; Ray is bringing one back."""
    FAILED = "failed"
    """It could not be started."""


class VariantEvent(BaseModel):
    """A hosted variant's state, sent when it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    app: str
    definition: str
    """Digest of the settings that it was deployed with (`HostedVariant.definition`)."""
    state: VariantState
    replicas: int
    """Replicas that run now."""
    addresses: dict[str, str] = {}
    """Number of a replica -> `HOST:PORT` of its own; those that are known."""
    message: str = ""
    """Ray Serve's own words, where it has any."""
