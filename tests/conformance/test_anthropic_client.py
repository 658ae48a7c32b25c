"""The official `anthropic` client against the gateway over a scripted engine."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam

from tests.support.anthropic_wire import TEXT, message, message_stream
from tests.support.behaviours import raw, respond
from tests.support.gateway_process import GatewayProcess, key_settings
from tests.support.scripted_upstream import ScriptedUpstream

KEY = "sk-of-the-tests"
MESSAGES: list[MessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def full() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream("full", message())
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def url(full: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    demo = {"baseline": "full", "variants": {"full": {"url": full.url}}}
    settings = {
        "keys": [key_settings("acme", KEY)],
        "snapshot": {"epoch": 1, "models": {"demo": demo}},
    }
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("gateway")
        process = stack.enter_context(GatewayProcess(settings, folder))
        yield f"http://127.0.0.1:{process.port}"


@pytest.fixture(autouse=True)
def _fresh_scripts(full: ScriptedUpstream) -> Iterator[None]:
    yield
    full.reset()


@pytest.fixture(params=["x-api-key", "bearer"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[anthropic.Anthropic]:
    keys: dict[str, Any] = {"api_key": KEY} if request.param == "x-api-key" else {"auth_token": KEY}
    with anthropic.Anthropic(base_url=url, max_retries=0, timeout=30.0, **keys) as made:
        yield made


def test_message_is_answered(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model="demo", max_tokens=8, messages=MESSAGES)
    (block,) = answer.content
    assert (block.type, answer.stop_reason, answer.usage.output_tokens) == ("text", "end_turn", 2)


def test_stream_is_assembled(client: anthropic.Anthropic, full: ScriptedUpstream) -> None:
    full.always(message_stream())
    with client.messages.stream(model="demo", max_tokens=8, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream) == TEXT
        assert stream.get_final_message().stop_reason == "end_turn"


def test_tokens_are_counted(client: anthropic.Anthropic, full: ScriptedUpstream) -> None:
    full.always(respond(200, b'{"input_tokens":7}'))
    counted = client.messages.count_tokens(model="demo", messages=MESSAGES)
    assert counted.input_tokens == 7
    assert full.requests[-1].target == "/v1/messages/count_tokens"


def test_unknown_model_raises_the_clients_own_error(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="unknown", max_tokens=8, messages=MESSAGES)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "not_found_error"
    assert "demo" in caught.value.body["error"]["message"]


@pytest.mark.parametrize("keys", [{"api_key": "sk-wrong"}, {"auth_token": "sk-wrong"}])
def test_wrong_key_raises_the_clients_own_error(url: str, keys: dict[str, Any]) -> None:
    with (
        anthropic.Anthropic(base_url=url, max_retries=0, **keys) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="demo", max_tokens=8, messages=MESSAGES)


def test_engine_that_is_gone_raises_a_server_error(
    client: anthropic.Anthropic, full: ScriptedUpstream
) -> None:
    full.always(raw(b"", then="fin"))
    with pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(model="demo", max_tokens=8, messages=MESSAGES)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == "api_error"
