"""Every implementation of the `Upstream` port."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from penumbra.router.upstream.fake import FakeUpstream
from penumbra.router.upstream.http import HttpUpstream
from penumbra.router.upstream.port import Upstream
from tests.support.script_server import Answer, script_server
from tests.support.upstreams import Make


@contextlib.asynccontextmanager
async def fake_upstream(answer: Answer | None = None) -> AsyncIterator[Upstream]:
    yield FakeUpstream("demo", answer)


@contextlib.asynccontextmanager
async def http_upstream(answer: Answer | None = None) -> AsyncIterator[Upstream]:
    async with script_server(answer) as url:
        upstream = HttpUpstream("demo", url)
        try:
            yield upstream
        finally:
            upstream.close()


@pytest.fixture(params=[fake_upstream, http_upstream], ids=["fake", "http"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen
