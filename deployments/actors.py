"""Reserved actor names: the parts of the system that make changes without a person. Pure."""

GUARD = "guard"
"""The guard, which decides by the evidence."""
ALERTMANAGER = "alertmanager"
"""Alertmanager, which decides by Prometheus's alerts, through the webhook."""
CONFIGURATION = "configuration"
"""A start with a changed configuration file."""
RECOVERY = "store-recovery"
"""The recovery of a store that has lost events."""

RESERVED = frozenset({GUARD, ALERTMANAGER, CONFIGURATION, RECOVERY})
"""Names that no caller may give: in the history they must mean these parts only."""


def actor_class(actor: str) -> str:
    """The value of the label `actor`: `guard`, `alertmanager`, or `operator` for every person."""
    return actor if actor in {GUARD, ALERTMANAGER} else "operator"
