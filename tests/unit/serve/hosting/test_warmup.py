"""Warm-up: a variant is ready when it decodes and scores."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penumbra.serve.errors import WarmUpFailed
from penumbra.serve.hosting.warmup import warm_up

TOKENS = [7, 8, 9]


class Variant:
    """A variant that answers, unless a test says otherwise."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.not_yet = 0
        self.override: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/v1/models"):
            self.not_yet -= 1
            return httpx.Response(500 if self.not_yet >= 0 else 200, json={})
        body = json.loads(request.content)
        self.bodies.append(body)
        overridden = self.override(request)
        if overridden is not None:
            return overridden
        if request.url.path.endswith("/tokenize"):
            return httpx.Response(200, json={"tokens": TOKENS})
        scores = [None, *({"8": {}} for _ in TOKENS[1:])] if "prompt_logprobs" in body else None
        return httpx.Response(200, json={"choices": [{"prompt_logprobs": scores}]})


async def warm(variant: Variant, replicas: int = 1) -> None:
    transport = httpx.MockTransport(variant)
    await warm_up("http://host/demo-full", "demo", replicas, transport=transport)


async def test_each_replica_decodes_and_scores() -> None:
    variant = Variant()
    await warm(variant, replicas=3)
    completions = [body for body in variant.bodies if body["prompt"] == TOKENS]
    scoring = [body for body in completions if "prompt_logprobs" in body]
    assert (len(completions) - len(scoring), len(scoring)) == (3, 3)
    assert all(body["model"] == "demo" for body in variant.bodies)


async def test_waits_until_haproxy_routes() -> None:
    variant = Variant()
    variant.not_yet = 2
    await warm(variant)
    assert variant.not_yet == -1


async def test_refuses_an_engine_that_fails() -> None:
    variant = Variant()
    variant.override = lambda request: (
        httpx.Response(500, text="no kernel") if request.url.path.endswith("completions") else None
    )
    with pytest.raises(WarmUpFailed, match="500: no kernel"):
        await warm(variant)


async def test_refuses_an_engine_that_does_not_score() -> None:
    variant = Variant()
    variant.override = lambda request: (
        httpx.Response(200, json={"choices": [{"prompt_logprobs": None}]})
        if b"prompt_logprobs" in request.content
        else None
    )
    with pytest.raises(WarmUpFailed, match="scored 0 of the 3 tokens"):
        await warm(variant)


async def test_refuses_an_engine_that_breaks_the_connection() -> None:
    variant = Variant()

    def drop(request: httpx.Request) -> httpx.Response | None:
        raise httpx.ReadError("gone", request=request)

    variant.override = drop
    with pytest.raises(WarmUpFailed, match="gone"):
        await warm(variant)
