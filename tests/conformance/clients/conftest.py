"""The gateway over scripted engines that the suites of the OpenAI clients share, one a module."""

from collections.abc import Iterator

import pytest

from tests.support.openai_endpoint import Endpoint
from tests.support.scripted_endpoint import scripted_candidate, scripted_endpoint
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def int8() -> Iterator[ScriptedUpstream]:
    """The candidate."""
    with scripted_candidate() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def endpoint(
    int8: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """The gateway."""
    with scripted_endpoint(int8, tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(autouse=True)
def _fresh_scripts(int8: ScriptedUpstream) -> Iterator[None]:
    yield
    int8.reset()
