"""Webhook notifications as Alertmanager 0.25 sends them."""

from typing import Any

FINGERPRINT = "c9b0b2f1d3a4e5f6"
START = "2026-01-01T10:00:00.123456789Z"


def alert(
    *,
    fingerprint: str = FINGERPRINT,
    starts_at: str = START,
    status: str = "firing",
    summary: str = "int8 is worse than full",
    **labels: str | None,
) -> dict[str, Any]:
    """One alert that asks to roll back int8 of demo; a label that is None is left out."""
    given = {
        "alertname": "PenumbraQualityRegression",
        "severity": "page",
        "penumbra_action": "rollback",
        "model": "demo",
        "candidate": "int8",
        **labels,
    }
    return {
        "status": status,
        "labels": {name: value for name, value in given.items() if value is not None},
        "annotations": {"summary": summary},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": fingerprint,
    }


def notification(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A notification of some alerts."""
    return {
        "receiver": "penumbra",
        "status": "firing",
        "alerts": list(alerts),
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        **changes,
    }
