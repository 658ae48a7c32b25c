"""Reading the facts of a build, over every implementation of the `Upstream` port."""

from typing import Any

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.build_probe import BUILD_PATH, probe_build
from penumbra.router.upstream.calls import UpstreamError
from penumbra.router.upstream.fake import Body, End, Fail, Head, Script, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.upstreams import Make

CARD = {"id": "demo", "root": "weights", "parent": None, "max_model_len": 64}
ADAPTER = {"id": "adapter", "root": "/adapter", "parent": "demo", "max_model_len": None}
METRICS = (
    b"# TYPE vllm:cache_config_info gauge\n"
    b'vllm:cache_config_info{block_size="16",cache_dtype="%s",enable_prefix_caching="True",'
    b'num_gpu_blocks="%d",engine="0"} 1.0\n'
)
NOT_FOUND: Script = whole({"detail": "Not Found"}, status=404)


class Server:
    """A server of another make, or an older replica of ours."""

    def __init__(self) -> None:
        self.version: Any = {"version": "1"}
        self.cards: list[dict[str, Any]] = [CARD]
        self.metrics = METRICS % (b"auto", 100)
        self.tokens: list[int] = [1, 2, 3]
        self.answers: dict[bytes, Script] = {BUILD_PATH.encode(): NOT_FOUND}

    def __call__(self, request: UpstreamRequest) -> Script:
        if request.path in self.answers:
            return self.answers[request.path]
        match request.path:
            case b"/version":
                return whole(self.version)
            case b"/v1/models":
                return whole({"data": self.cards})
            case b"/metrics":
                return [Head(200, ((b"content-type", b"text/plain"),)), Body(self.metrics), End()]
            case _:
                return whole({"count": 3, "tokens": self.tokens})


async def probed(make: Make, server: Server) -> dict[str, str]:
    async with make(server) as upstream:
        return await probe_build(upstream, "demo")


async def test_a_replica_of_ours_tells_all_by_itself(make: Make) -> None:
    server = Server()
    server.answers[BUILD_PATH.encode()] = whole({"weights": "abc", "kv_cache_dtype": "fp8"})
    assert await probed(make, server) == {"weights": "abc", "kv_cache_dtype": "fp8"}


async def test_any_other_server_tells_version_card_cache_and_tokenizer(make: Make) -> None:
    facts = await probed(make, Server())
    tokenizer = facts.pop("tokenizer")
    assert len(tokenizer) == 64
    assert facts == {
        "engine": '{"version": "1"}',
        "model": "demo",
        "root": "weights",
        "parent": "None",
        "max_model_len": "64",
        "kv_cache_dtype": "auto",
        "prefix_caching": "True",
        "block_size": "16",
    }


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("version", {"version": "2"}, "engine"),
        ("cards", [CARD | {"root": "other"}], "root"),
        ("metrics", METRICS % (b"fp8_e4m3", 100), "kv_cache_dtype"),
        ("tokens", [1, 2, 4], "tokenizer"),
    ],
)
async def test_a_change_changes_its_fact_alone(
    make: Make, name: str, value: Any, fact: str
) -> None:
    server = Server()
    before = await probed(make, server)
    setattr(server, name, value)
    after = await probed(make, server)
    assert {name for name in before if before[name] != after[name]} == {fact}


async def test_what_a_start_or_an_adapter_changes_is_no_fact(make: Make) -> None:
    server = Server()
    before = await probed(make, server)
    server.metrics = METRICS % (b"auto", 77)
    server.cards = [ADAPTER, CARD]
    assert await probed(make, server) == before


@pytest.mark.parametrize("path", [b"/metrics", b"/tokenize"])
async def test_a_route_that_is_not_there_leaves_its_facts_out(make: Make, path: bytes) -> None:
    server = Server()
    whole_facts = await probed(make, server)
    server.answers[path] = NOT_FOUND
    facts = await probed(make, server)
    assert facts.items() < whole_facts.items()


@pytest.mark.parametrize("path", [BUILD_PATH.encode(), b"/metrics", b"/tokenize", b"/version"])
@pytest.mark.parametrize(
    "answer", [[Fail(Outcome.REFUSED)], whole({}, status=503), whole({}, status=429)]
)
async def test_a_server_that_fails_now_gives_no_facts(
    make: Make, path: bytes, answer: Script
) -> None:
    server = Server()
    server.answers[path] = answer
    with pytest.raises(UpstreamError):
        await probed(make, server)


@pytest.mark.parametrize("told", [[], {"weights": 5}, "x", None])
async def test_a_server_that_answers_any_path_is_none_of_ours(make: Make, told: Any) -> None:
    server = Server()
    before = await probed(make, server)
    server.answers[BUILD_PATH.encode()] = whole(told)
    assert await probed(make, server) == before


@pytest.mark.parametrize(
    "answer",
    [whole([1]), whole({"tokens": None}), whole("x"), [Head(), Body(b"\xff"), End()]],
)
async def test_an_odd_answer_about_tokens_is_no_error(make: Make, answer: Script) -> None:
    server = Server()
    server.answers[b"/tokenize"] = answer
    assert "kv_cache_dtype" in await probed(make, server)
