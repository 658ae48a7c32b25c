"""Reads the facts of the build that a server runs.

Our own replicas have a route that tells all (`penumbra.serve.hosting.build_route`). Any other
server is asked for its version, its model card, the settings of its KV cache among its metrics, and
the tokens of a fixed text. A server that lacks one of these leaves its facts out; one that fails to
answer now gives none at all, so that a busy server is no other build.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from penumbra.monitoring.build_facts import digest, read_facts, short
from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.calls import (
    UpstreamError,
    fetch,
    fetch_json,
    get_request,
    json_request,
)
from penumbra.router.upstream.port import Upstream, UpstreamRequest

BUILD_PATH: Final = "/penumbra/v1/build"
_OK = 200
_FIRST_SERVER_ERROR = 500
_NOT_IMPLEMENTED = 501
_BUSY = frozenset({408, 425, 429})
_PROBE = "Penumbra 42: naïve façade, 日本語, {}[]();\n\t0x1F"
_CACHE_INFO = re.compile(rb"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(?<!\w)(\w{1,64})="((?:[^"\\]|\\.)*)"')
_LONGEST_LINE = 16 * 1024
_CACHE_FACTS = {
    "cache_dtype": "kv_cache_dtype",
    "enable_prefix_caching": "prefix_caching",
    "block_size": "block_size",
    "sliding_window": "sliding_window",
    "calculate_kv_scales": "kv_scales",
}
"""Label -> fact; the others follow from the machine's memory, and change at each start."""
_CARD_FACTS = ("root", "parent", "max_model_len")


async def probe_build(upstream: Upstream, model: str) -> dict[str, str]:
    """Read the facts of the build behind `upstream`.

    Args:
        upstream: The server.
        model: The model's name there.

    Raises:
        UpstreamError: It gives no answer now, or one that cannot be read.
    """
    told = await _fetch_if_there(upstream, get_request(BUILD_PATH.encode()))
    if told is not None:
        # Some servers answer any path; only an object of texts is of our own replicas.
        with contextlib.suppress(ValueError, msgspec.DecodeError):
            return read_facts(msgspec.json.decode(told))
    facts = await _card_facts(upstream, model)
    metrics = await _fetch_if_there(upstream, get_request(b"/metrics"))
    facts.update(_cache_facts(metrics or b""))
    probe = json_request("/tokenize", {"model": model, "prompt": _PROBE})
    facts.update(_tokenizer_fact(await _fetch_if_there(upstream, probe)))
    return facts


async def _fetch_if_there(upstream: Upstream, request: UpstreamRequest) -> bytes | None:
    """The body of a 200 answer; None where the server has no such route.

    Raises:
        UpstreamError: It fails now.
    """
    answer = await fetch(upstream, request)
    if answer.status == _OK:
        return answer.body
    is_server_error = answer.status >= _FIRST_SERVER_ERROR and answer.status != _NOT_IMPLEMENTED
    if is_server_error or answer.status in _BUSY:
        raise UpstreamError(Outcome.SERVER_ERROR, f"status {answer.status}")
    return None


async def _card_facts(upstream: Upstream, model: str) -> dict[str, str]:
    version: Any = await fetch_json(upstream, get_request(b"/version"))
    models: Any = await fetch_json(upstream, get_request(b"/v1/models"))
    try:
        # Adapters come and go beside the build.
        cards = [card for card in models["data"] if card["id"] == model] or [
            card for card in models["data"] if card.get("parent") is None
        ]
        told = {name: ", ".join(str(card.get(name)) for card in cards) for name in _CARD_FACTS}
        told["model"] = ", ".join(str(card["id"]) for card in cards)
    except (KeyError, TypeError, AttributeError) as error:
        raise UpstreamError(Outcome.GARBAGE, "no model card in the answer") from error
    told["engine"] = json.dumps(version, sort_keys=True)
    return {name: short(text) for name, text in told.items()}


def _cache_facts(metrics: bytes) -> dict[str, str]:
    found = _CACHE_INFO.search(metrics)
    if found is None or len(found.group(1)) > _LONGEST_LINE:
        return {}
    return dict(_labels(found.group(1).decode("utf-8", "replace")))


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for label, value in _LABEL.findall(text):
        if label in _CACHE_FACTS:
            yield _CACHE_FACTS[label], short(value)


def _tokenizer_fact(told: bytes | None) -> dict[str, str]:
    try:
        tokens = msgspec.json.decode(told or b"", type=dict[str, Any])["tokens"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        return {}
    return {"tokenizer": digest({"tokens": json.dumps(tokens)})}
