"""Who changes something without being a person: names that nobody else may have. Pure."""

GUARD = "guard"
"""Decides by the evidence."""
ALERTMANAGER = "alertmanager"
"""Decides by Prometheus's alerts, through the webhook."""
CONFIGURATION = "configuration"
"""The file was another one at the last start."""

RESERVED = frozenset({GUARD, ALERTMANAGER, CONFIGURATION})
"""What the history means by them must not depend on what a caller says it is."""


def actor_class(actor: str) -> str:
    """A value of the label `actor`: who decided, without naming a person."""
    return actor if actor in {GUARD, ALERTMANAGER} else "operator"
