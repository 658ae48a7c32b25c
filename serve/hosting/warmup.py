"""Warms a variant up over HTTP by decoding and scoring, as it will be used.

A variant counts as ready only after this. The first request of each kind pays for whatever the
engine still does lazily, and a build that loads but cannot answer must not get traffic.
"""

import asyncio
from typing import Any

import httpx

from penumbra.serve.errors import WarmUpFailed

_PROMPT = "Warming up."
_DECODE_TOKENS = 8
_REQUEST_SECONDS = 120.0
_RETRY_SECONDS = 0.1


async def warm_up(
    url: str,
    model: str,
    replicas: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Decode and score on every replica.

    HAProxy gives each request to the replica with the fewest open ones, so `replicas` requests at
    a time reach them all.

    Args:
        url: Base URL of the variant.
        model: Public model name.
        replicas: How many replicas there are.
        transport: How requests are sent; None opens connections.

    Raises:
        WarmUpFailed: The variant answers, but not as it must.
    """
    async with httpx.AsyncClient(
        base_url=url, timeout=_REQUEST_SECONDS, trust_env=False, transport=transport
    ) as client:
        await _wait_until_routed(client)
        tokens = await _tokens(client, model)
        for step in (_decode, _score):
            await asyncio.gather(*(step(client, model, tokens) for _ in range(max(1, replicas))))


async def _wait_until_routed(client: httpx.AsyncClient) -> None:
    """HAProxy learns of a new replica a moment after Ray Serve calls it running."""
    while True:
        try:
            if (await client.get("/v1/models")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(_RETRY_SECONDS)


async def _tokens(client: httpx.AsyncClient, model: str) -> list[int]:
    answer = await _post(client, "/tokenize", {"model": model, "prompt": _PROMPT})
    tokens = answer.get("tokens")
    if not isinstance(tokens, list) or len(tokens) < 2:
        raise WarmUpFailed(f"{client.base_url} tokenized {_PROMPT!r} into {tokens!r}")
    return tokens


async def _decode(client: httpx.AsyncClient, model: str, tokens: list[int]) -> None:
    body = {"model": model, "prompt": tokens, "max_tokens": _DECODE_TOKENS, "temperature": 0}
    answer = await _post(client, "/v1/completions", body)
    if not answer.get("choices"):
        raise WarmUpFailed(f"{client.base_url} completed the warm-up prompt without a choice")


async def _score(client: httpx.AsyncClient, model: str, tokens: list[int]) -> None:
    body = {"model": model, "prompt": tokens, "max_tokens": 1, "prompt_logprobs": 0}
    answer = await _post(client, "/v1/completions", body)
    choices = answer.get("choices") or [{}]
    found = choices[0].get("prompt_logprobs") or []
    if len(found) != len(tokens):
        raise WarmUpFailed(
            f"{client.base_url} scored {len(found)} of the {len(tokens)} tokens of the warm-up"
            " prompt: it cannot be compared with the baseline"
        )


async def _post(client: httpx.AsyncClient, path: str, body: dict[str, object]) -> dict[str, Any]:
    try:
        response = await client.post(path, json=body)
    except httpx.TransportError as error:
        raise WarmUpFailed(f"{client.base_url}{path} failed: {error!r}") from error
    if response.status_code != 200:
        raise WarmUpFailed(
            f"{client.base_url}{path} answered {response.status_code}: {response.text[:500]}"
        )
    answer: dict[str, Any] = response.json()
    return answer
