"""Renders what is known of live answers that have none of the baseline beside them."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text


def latency_text(signal: Mapping[str, Any]) -> Text:
    """`no counterpart, not judged: ...` and `beside shadow answers: ...`; empty without any."""
    text = Text()
    floors = signal.get("floors") or []
    unjudged = signal.get("without_counterpart") or {}
    if unjudged:
        told = (f"{name} {count}{_reason(name, floors)}" for name, count in unjudged.items())
        text.append(f"  no counterpart, not judged: {', '.join(told)}", "yellow")
    judged = signal.get("beside_shadow") or {}
    if judged:
        told = (f"{name} {count}{_limits(name, floors)}" for name, count in judged.items())
        text.append(f"  judged beside shadow answers: {', '.join(told)}", "")
    return text


def _reason(name: str, floors: Iterable[Mapping[str, Any]]) -> str:
    """Say why shadow answers did not help in a slice."""
    own = [floor for floor in floors if floor["slice"] == name]
    unknown = [floor for floor in own if floor["latest"] is None]
    if unknown:
        read = ", ".join(f"{floor['time']} {floor['pairs']}" for floor in unknown)
        return f" (floor not known: {read} of {unknown[0]['wanted_pairs']} pairs)"
    return " (no shadow answer beside them)" if own else ""


def _limits(name: str, floors: Iterable[Mapping[str, Any]]) -> str:
    known = [
        f"{floor['time']} over {floor['latest']:.2g} times"
        for floor in floors
        if floor["slice"] == name and floor["latest"] is not None
    ]
    return f" (late: {', '.join(known)})" if known else ""
