"""Answers of the probes and metrics routes, for the OpenAPI document: statuses, types, schemas."""

from typing import Any

from pydantic import BaseModel

Answers = dict[int | str, dict[str, Any]]

_TEXT = {"schema": {"type": "string"}}


class HealthView(BaseModel):
    """Whether the process is alive and its store answers."""

    status: str
    """`ok` or `stuck`."""
    reason: str | None = None
    """What is stuck, and for how long."""


class ReadyView(BaseModel):
    """Whether the process leads and knows what the store holds."""

    status: str
    """`ready`, `standby`, `beginning to lead` or `behind the store`."""
    epoch: int
    """Epoch of the newest routing table."""
    gateways: int
    """Gateways that are connected."""
    set_aside: dict[str, str] | None = None
    """Model (`*`: all) -> the event that cannot be read, so that it gets the baseline alone."""


class TargetGroup(BaseModel):
    """One process, as Prometheus's HTTP service discovery names it."""

    targets: list[str]
    """Host and port of its metrics."""
    labels: dict[str, str]
    """Labels of all its series."""


HEALTH_ANSWERS: Answers = {
    200: {"model": HealthView},
    503: {"model": HealthView, "description": "The store does not answer."},
}
READY_ANSWERS: Answers = {
    200: {"model": ReadyView},
    503: {"model": ReadyView, "description": "It stands by, begins to lead, or is behind."},
}
METRICS_ANSWERS: Answers = {
    200: {"content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}},
}
PAGE_ANSWERS: Answers = {200: {"content": {"text/plain": _TEXT}}}
TARGETS_ANSWERS: Answers = {200: {"model": list[TargetGroup]}}
