"""Upstreams over HTTP against servers on the test's own loop."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from penumbra.router.upstream.http import HttpUpstream

MakeUpstream = Callable[..., HttpUpstream]


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each event loop: processes run on uvloop's, which differs where connections break."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def upstream_at() -> Iterator[MakeUpstream]:
    """(url, arguments of `HttpUpstream`) -> an upstream that is closed at the end."""
    made: list[HttpUpstream] = []

    def make(url: str, **arguments: Any) -> HttpUpstream:
        made.append(HttpUpstream("demo", url, **arguments))
        return made[-1]

    yield make
    for upstream in made:
        upstream.close()
