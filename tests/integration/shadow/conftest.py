"""Builds for the comparator's tests with real processes."""

from collections.abc import Iterator

import pytest

from tests.support.behaviours import engine
from tests.support.engine_probe import probed
from tests.support.engine_wire import Engine
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    """Two scripted builds that answer alike, and every call of a comparator."""
    found = {name: ScriptedUpstream(name, engine(Engine("same"))) for name in ("full", "int8")}
    for upstream in found.values():
        upstream.start()
        probed(upstream)
    yield found
    for upstream in found.values():
        upstream.stop()
