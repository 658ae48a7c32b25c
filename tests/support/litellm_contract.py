"""Suite for litellm as a client behind one base URL, for any engine.

A test module subclasses `LitellmContract` and has the fixtures `endpoint` and `litellm`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_installs import python_clients
from tests.support.client_worker import ClientWorker, Outcome
from tests.support.openai_endpoint import MESSAGES, PROMPT, TOKENS, Endpoint

SCRIPT = Path(__file__).parent / "clients" / "litellm_worker.py"
# By default litellm asks the network for the prices of models.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
CHAT_FUNCTIONS = ("completion", "acompletion")
EXACT = {"temperature": 0, "user": "u"}
"""One build answers, and always alike."""


class Litellm:
    """litellm's functions, by name, before one endpoint."""

    def __init__(self, worker: ClientWorker, endpoint: Endpoint) -> None:
        self._worker = worker
        self._endpoint = endpoint

    def __call__(self, function: str, provider: str = "openai", **arguments: Any) -> Outcome:
        """Call a function.

        Args:
            function: Its name in litellm.
            provider: litellm's prefix of the model, which chooses the API that it speaks.
            arguments: The function's; model, address and key are the endpoint's unless given.
        """
        base = self._endpoint.base_url
        common = {
            "api_base": base.removesuffix("/v1") if provider == "anthropic" else base,
            "api_key": self._endpoint.api_key,
            "max_retries": 0,
        }
        model = f"{provider}/{arguments.pop('model', self._endpoint.model)}"
        return self._worker.call(
            function=function, arguments={**common, **arguments, "model": model}
        )


@contextmanager
def litellm_for(endpoint: Endpoint, folder: Path) -> Iterator[Litellm]:
    """Run litellm as a process of its own, before an endpoint."""
    command = [python_clients(), SCRIPT]
    with ClientWorker(command, folder / "litellm.log", ENVIRONMENT) as worker:
        yield Litellm(worker, endpoint)


def content_of(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["delta"]["content"] or "" for choice in choices)


class LitellmContract:
    """The suite."""

    @pytest.fixture
    def chat(self) -> dict[str, Any]:
        """Arguments of a chat."""
        return {"messages": MESSAGES, "max_tokens": TOKENS, **EXACT}

    # Chat

    @pytest.mark.parametrize("function", CHAT_FUNCTIONS)
    def test_chat_is_answered(
        self, litellm: Litellm, endpoint: Endpoint, chat: dict[str, Any], function: str
    ) -> None:
        answer = litellm(function, **chat).whole
        (choice,) = answer["choices"]
        assert answer["model"] == endpoint.model
        assert choice["message"]["role"] == "assistant"
        assert choice["message"]["content"]
        assert choice["finish_reason"] in ("stop", "length")
        usage = answer["usage"]
        assert usage["prompt_tokens"] > 0
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    @pytest.mark.parametrize("function", CHAT_FUNCTIONS)
    def test_chat_stream_says_the_same_as_the_whole_answer(
        self, litellm: Litellm, chat: dict[str, Any], function: str
    ) -> None:
        whole = litellm(function, **chat).whole["choices"][0]
        chunks = litellm(function, **chat, stream=True).parts
        assert content_of(chunks) == whole["message"]["content"]
        assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
        assert len({chunk["id"] for chunk in chunks}) == 1

    def test_chat_stream_brings_usage_where_asked(
        self, litellm: Litellm, chat: dict[str, Any]
    ) -> None:
        whole = litellm("completion", **chat).whole
        asked: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = litellm("completion", **chat, **asked).parts
        assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == []
        for name in ("prompt_tokens", "completion_tokens"):
            assert last["usage"][name] == whole["usage"][name]

    def test_headers_of_an_answer_say_which_build_and_why(
        self, litellm: Litellm, chat: dict[str, Any]
    ) -> None:
        outcome = litellm("completion", **chat, extra_headers={"x-request-id": "from-litellm"})
        assert outcome.error is None
        assert outcome.headers["x-request-id"] == "from-litellm"
        assert outcome.headers["x-penumbra-variant"]
        assert outcome.headers["x-penumbra-reason"]

    def test_litellms_own_provider_for_vllm_is_answered(
        self, litellm: Litellm, chat: dict[str, Any]
    ) -> None:
        pinned = {"x-penumbra-variant": "int8"}
        outcome = litellm("completion", "hosted_vllm", **chat, extra_headers=pinned)
        assert outcome.whole["choices"][0]["message"]["content"]
        assert outcome.headers["x-penumbra-variant"] == "int8"

    # Completions and responses

    def test_completion_stream_says_the_same_as_the_whole_answer(self, litellm: Litellm) -> None:
        arguments: dict[str, Any] = {"prompt": PROMPT, "max_tokens": TOKENS, **EXACT}
        provider = "text-completion-openai"
        whole = litellm("text_completion", provider, **arguments).whole
        parts = litellm("text_completion", provider, **arguments, stream=True).parts
        text = "".join(part["choices"][0]["text"] or "" for part in parts)
        assert text == whole["choices"][0]["text"]

    def test_response_is_answered(self, litellm: Litellm) -> None:
        answer = litellm("responses", input=PROMPT, max_output_tokens=16).whole
        assert answer["status"] in ("completed", "incomplete")
        assert answer["output"][0]["content"][0]["text"]

    def test_response_stream_ends_with_the_whole_response(self, litellm: Litellm) -> None:
        events = litellm("responses", input=PROMPT, max_output_tokens=16, stream=True).parts
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] in ("response.completed", "response.incomplete")
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        (item,) = events[-1]["response"]["output"]
        assert "".join(event["delta"] for event in deltas) == item["content"][0]["text"]

    # Errors

    @pytest.mark.parametrize("function", CHAT_FUNCTIONS)
    @pytest.mark.parametrize("is_stream", [False, True])
    def test_unknown_model_is_refused(
        self, litellm: Litellm, chat: dict[str, Any], function: str, is_stream: bool
    ) -> None:
        error = litellm(function, **chat, model="no-such-model", stream=is_stream).failure
        assert error.is_a("NotFoundError")
        assert error.status == 404
        assert "no-such-model" in error.message

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_refusal_of_the_engine_reaches_the_client(
        self, litellm: Litellm, chat: dict[str, Any], is_stream: bool
    ) -> None:
        error = litellm("completion", **{**chat, "max_tokens": -1}, stream=is_stream).failure
        assert error.is_a("BadRequestError")
        assert error.status == 400
        assert "max_tokens" in error.message
