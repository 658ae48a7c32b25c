"""Words for the plan of a proposed configuration, as `penumbra apply` and `up` show it."""

from collections.abc import Mapping, Sequence
from typing import Any

_SIGNS = {"add": "+", "remove": "-", "change": "~", "effect": ">", "note": " ", "later": " "}
_QUIET = ("note", "later")


def is_empty(plan: Mapping[str, Any]) -> bool:
    """Whether a plan changes nothing now."""
    return all(step["action"] in _QUIET for step in plan["steps"])


def hurting(plan: Mapping[str, Any]) -> list[str]:
    """The steps by which clients may get other answers, or evidence is lost."""
    return [step["text"] for step in plan["steps"] if step["hurts"]]


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """A plan for people, a line for each step; `!` marks what hurts."""
    steps: Sequence[Mapping[str, Any]] = plan["steps"]
    lines = [_line(step) for step in steps if step["action"] not in _QUIET]
    if not lines:
        lines = [f"Nothing to change: epoch {plan['epoch']} has all of it in force already."]
    lines += [f"    note: {step['text']}" for step in steps if step["action"] == "note"]
    later = [f"    {step['text']}" for step in steps if step["action"] == "later"]
    if later:
        lines += ["Settings of the machine, which take effect at the next start:", *later]
    return lines


def _line(step: Mapping[str, Any]) -> str:
    mark = "!" if step["hurts"] else " "
    return f"{mark} {_SIGNS[step['action']]} {step['text']}"
