"""Replies of a scripted engine to a comparator: scores, gauges, health, identity."""

import json

from penumbra.router.upstream.fake import scored
from tests.support.behaviours import full_response, respond
from tests.support.engine_wire import encode
from tests.support.scripted_connection import Behaviour, Exchange
from tests.support.scripted_upstream import ScriptedUpstream

METRICS = """\
vllm:num_requests_running{{engine="0",model_name="demo"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="demo"}} {waiting}
vllm:kv_cache_usage_perc{{engine="0",model_name="demo"}} 0.1
"""


def scoring(shift: float = 0.0) -> Behaviour:
    """The completions API for prompts of token ids: log-probabilities that depend on the prefix.

    Args:
        shift: Added to each of them: a build that differs.
    """

    async def behave(exchange: Exchange) -> None:
        answer = scored(json.loads(exchange.request.body), shift)
        await exchange.send(full_response(200, encode(answer)))

    return behave


def probed(
    upstream: ScriptedUpstream, shift: float = 0.0, running: int = 0, waiting: int = 0
) -> None:
    """Have an engine answer every call of a comparator.

    Args:
        upstream: The engine; its chat answers stay what they are.
        shift: See `scoring`.
        running: Requests in its batch, as its gauges tell.
        waiting: Requests that wait for a place in it.
    """
    gauges = METRICS.format(running=running, waiting=waiting).encode()
    card = {"id": "demo", "root": upstream.name, "max_model_len": 1024}
    upstream.on("/v1/completions", scoring(shift))
    upstream.on("/penumbra/v1/score", respond(404, b"{}"))
    upstream.on("/metrics", respond(200, gauges, [("content-type", "text/plain")]))
    upstream.on("/health", respond(200, b""))
    upstream.on("/version", respond(200, encode({"version": "scripted-1"})))
    upstream.on("/v1/models", respond(200, encode({"object": "list", "data": [card]})))
