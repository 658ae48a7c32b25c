"""Scripted builds that answer alike, and a rollout that is soon live on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.behaviours import engine
from tests.support.engine_probe import probed
from tests.support.engine_wire import Engine
from tests.support.scripted_upstream import ScriptedUpstream

QUICK_PAIRS = 20
QUICK_SPEC: dict[str, Any] = {
    "model": "demo",
    "candidate": "int8",
    "stages": ["shadow", 100],
    "gates": {
        "pairs": QUICK_PAIRS,
        "slice_pairs": QUICK_PAIRS,
        "stage_seconds": 0,
        "horizon": 5000,
    },
    "mirror": {"generate": 1, "aa": 0},
    "guardrails": [
        {"signal": "displacement", "tolerance": 0.4, "action": "rollback", "share": 0.5},
        {"signal": "harm", "tolerance": 0.2, "action": "rollback", "share": 0.5},
    ],
}


@contextmanager
def alike_builds(*candidates: str) -> Iterator[dict[str, ScriptedUpstream]]:
    """Run `full` and other builds, by default `int8`, which know every call of a comparator."""
    names = ("full", *(candidates or ("int8",)))
    found = {name: ScriptedUpstream(name, engine(Engine("same"))) for name in names}
    for upstream in found.values():
        upstream.start()
        probed(upstream)
    yield found
    for upstream in found.values():
        upstream.stop()
