"""Messages of Alertmanager's webhook, and the outcomes of alerts. Pure.

Only the fields that are used are checked, and those strictly. Other fields are ignored, so that
newer versions of Alertmanager work.

Reading order: Notification, Alert, AlertOutcome.
"""

from collections.abc import Iterator
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from penumbra.router.flags.routing_table import Flag

ACTION_LABEL = "penumbra_action"
ROLLBACK = "rollback"

_MOST_ALERTS = 1000
_REASON_CHARS = 300
_LABEL_CHARS = 1024

_LOOSE = ConfigDict(extra="ignore", frozen=True)


class Result(StrEnum):
    """Result of an alert; the values of the label `result`."""

    ACTED = "acted"
    """The candidate was taken out of service."""
    ALREADY_ACTED = "already_acted"
    """It was out of service, or this firing was dealt with before."""
    NO_ACTION = "no_action"
    """The alert asks for nothing, or its candidate gets nothing that could be taken away."""
    RESOLVED = "resolved"
    """The alert is over; that puts nothing back."""
    NOT_APPLICABLE = "not_applicable"
    """It asks for the rollback of a candidate that does not exist."""
    FAILED = "failed"
    """The action failed; it is tried again when the alert is sent again."""


class Alert(BaseModel):
    """One alert of a notification."""

    model_config = _LOOSE

    status: Literal["firing", "resolved"]
    labels: dict[str, Annotated[str, Field(max_length=_LABEL_CHARS)]]
    annotations: dict[str, str] = {}
    starts_at: AwareDatetime = Field(alias="startsAt")
    """When it began to fire; an alert that was resolved and fires again has another."""
    fingerprint: str = Field(pattern=r"^[0-9a-f]{1,64}$")
    """Digest of the labels."""

    @property
    def firing(self) -> tuple[str, str]:
        """Identity of a firing, which is acted upon once: (fingerprint, start)."""
        return self.fingerprint, self.starts_at.astimezone(UTC).isoformat()

    @property
    def asks_for_rollback(self) -> bool:
        """Whether its rule asks for a rollback."""
        return self.labels.get(ACTION_LABEL) == ROLLBACK

    @property
    def mark(self) -> str:
        """The end of its `reason`, by which the firing can be found in the history."""
        fingerprint, start = self.firing
        return f"[alert {fingerprint} since {start}]"

    @property
    def reason(self) -> str:
        """The reason for the history: its name and summary, made printable and short."""
        name = self.labels.get("alertname", "unnamed alert")
        summary = self.annotations.get("summary", "")
        text = _printable(f"{name}: {summary}" if summary else name)
        return f"{text} {self.mark}"


class Notification(BaseModel):
    """Body of a webhook request of Alertmanager, version 4."""

    model_config = _LOOSE

    version: Literal["4"]
    alerts: tuple[Alert, ...] = Field(max_length=_MOST_ALERTS)
    truncated: int = Field(default=0, ge=0, alias="truncatedAlerts")
    """Number of alerts left out because there are more than the receiver's max_alerts."""


class AlertOutcome(BaseModel):
    """Outcome of one alert."""

    fingerprint: str
    result: Result
    detail: str
    """The outcome in words."""
    epoch: int | None = None
    """Epoch of the change, if one was made."""


class AlertsView(BaseModel):
    """Outcomes of the alerts of one request, in their order."""

    results: list[AlertOutcome]


def ways_to(flag: Flag, candidate: str) -> tuple[str, ...]:
    """Parts of a flag that give requests to a candidate; none while it is blocked.

    Returns:
        Of `split`, `pins` and `rules`.
    """
    return () if candidate in flag.blocked else tuple(_ways(flag, candidate))


def _ways(flag: Flag, candidate: str) -> Iterator[str]:
    if flag.split.get(candidate, 0.0) > 0:
        yield "split"
    if any(pin.variant == candidate for pin in flag.pins):
        yield "pins"
    rules = flag.rules
    if any(rule.variant == candidate or (rule.split or {}).get(candidate, 0.0) for rule in rules):
        yield "rules"


def _printable(text: str) -> str:
    words = "".join(char if char.isprintable() else " " for char in text).split()
    whole = " ".join(words)
    return whole if len(whole) <= _REASON_CHARS else f"{whole[: _REASON_CHARS - 1]}…"
