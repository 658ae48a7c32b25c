"""Builds for the comparator's tests with real processes."""

from collections.abc import Iterator

import pytest

from tests.support.alike_builds import alike_builds
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    """Two scripted builds that answer alike, and every call of a comparator."""
    with alike_builds() as found:
        yield found
