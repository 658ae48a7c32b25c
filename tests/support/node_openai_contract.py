"""Suite for Node's official `openai` client behind one base URL, for any engine.

It makes the promises of `openai_contract` to clients in TypeScript and JavaScript. A test module
subclasses `NodeOpenAIContract` and has the fixtures `endpoint` and `node`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_installs import node_client, program
from tests.support.client_worker import ClientWorker, Outcome
from tests.support.openai_endpoint import MESSAGES, PROMPT, TOKENS, Endpoint

CHAT = "chat.completions.create"
COMPLETION = "completions.create"
RESPONSE = "responses.create"
EXACT = {"temperature": 0, "user": "u"}
"""One build answers, and always alike."""
VERDICT = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        },
    },
}


class NodeClient:
    """The client, by the names of its methods: `node("models.retrieve", "demo")`."""

    def __init__(self, worker: ClientWorker) -> None:
        self._worker = worker

    def __call__(self, method: str, *args: Any, **options: Any) -> Outcome:
        """Call a method.

        Args:
            method: Its name below the client, with dots.
            args: Its arguments without the options.
            options: `headers`, `key`, `leaveAfter` (chunks), `abortAfterMs`; and `final`, the name
                of a stream helper's method that returns the whole.
        """
        return self._worker.call(method=method, args=args, **options)

    def together(self, method: str, bodies: list[dict[str, Any]]) -> list[Outcome]:
        """Call a method with several bodies at once."""
        return self._worker.call_together([{"method": method, "args": [body]} for body in bodies])


@contextmanager
def node_for(endpoint: Endpoint, folder: Path) -> Iterator[NodeClient]:
    """The client as a process of its own, before an endpoint."""
    script = str(node_client() / "openai_worker.js")
    command = [program("node", "nodejs"), script, endpoint.base_url, endpoint.api_key]
    with ClientWorker(command, folder / "node.log") as worker:
        yield NodeClient(worker)


def text_of(chunks: list[Any]) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


class NodeOpenAIContract:
    """The suite."""

    @pytest.fixture
    def chat(self, endpoint: Endpoint) -> dict[str, Any]:
        """A chat request."""
        return {"model": endpoint.model, "messages": MESSAGES, "max_tokens": TOKENS, **EXACT}

    @pytest.fixture
    def completion(self, endpoint: Endpoint) -> dict[str, Any]:
        """A text completion request."""
        return {"model": endpoint.model, "prompt": PROMPT, "max_tokens": TOKENS, **EXACT}

    @pytest.fixture
    def response(self, endpoint: Endpoint) -> dict[str, Any]:
        """A request of the Responses API."""
        return {"model": endpoint.model, "input": PROMPT, "max_output_tokens": 16}

    # Models

    def test_models_list_has_the_model(self, node: NodeClient, endpoint: Endpoint) -> None:
        assert endpoint.model in {model["id"] for model in node("models.list").parts}

    def test_model_can_be_retrieved(self, node: NodeClient, endpoint: Endpoint) -> None:
        model = node("models.retrieve", endpoint.model).whole
        assert (model["id"], model["object"]) == (endpoint.model, "model")

    def test_unknown_model_cannot_be_retrieved(self, node: NodeClient) -> None:
        error = node("models.retrieve", "no-such-model").failure
        assert error.is_a("NotFoundError")
        assert (error.status, error.code) == (404, "model_not_found")

    # Chat

    def test_chat_is_answered(self, node: NodeClient, chat: dict[str, Any]) -> None:
        answer = node(CHAT, chat).whole
        (choice,) = answer["choices"]
        assert (answer["object"], answer["model"]) == ("chat.completion", chat["model"])
        assert choice["message"]["role"] == "assistant"
        assert choice["message"]["content"]
        assert choice["finish_reason"] in ("stop", "length")
        usage = answer["usage"]
        assert usage["prompt_tokens"] > 0
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_headers_of_an_answer_say_which_build_and_why(
        self, node: NodeClient, chat: dict[str, Any], is_stream: bool
    ) -> None:
        named = {"x-request-id": "from-the-client"}
        outcome = node(CHAT, {**chat, "stream": is_stream}, headers=named)
        assert outcome.error is None
        assert outcome.headers["x-request-id"] == "from-the-client"
        assert outcome.headers["x-penumbra-variant"]
        assert outcome.headers["x-penumbra-reason"]
        assert int(outcome.headers["x-penumbra-epoch"]) >= 0

    def test_chat_stream_says_the_same_as_the_whole_answer(
        self, node: NodeClient, chat: dict[str, Any]
    ) -> None:
        whole = node(CHAT, chat).whole["choices"][0]
        chunks = node(CHAT, {**chat, "stream": True}).parts
        assert text_of(chunks) == whole["message"]["content"]
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
        assert len({chunk["id"] for chunk in chunks}) == 1

    def test_chat_stream_is_assembled_by_the_clients_helper(
        self, node: NodeClient, chat: dict[str, Any]
    ) -> None:
        whole = node(CHAT, chat).whole["choices"][0]
        final = node("chat.completions.stream", chat, final="finalChatCompletion").whole
        (choice,) = final["choices"]
        assert choice["message"]["content"] == whole["message"]["content"]
        assert choice["finish_reason"] == whole["finish_reason"]

    def test_chat_stream_brings_usage_where_asked(
        self, node: NodeClient, chat: dict[str, Any]
    ) -> None:
        asked = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = node(CHAT, {**chat, **asked}).parts
        assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == []
        assert last["choices"] == []
        assert 0 < last["usage"]["completion_tokens"] <= TOKENS

    def test_chat_gives_as_many_choices_as_asked(
        self, node: NodeClient, chat: dict[str, Any]
    ) -> None:
        answer = node(CHAT, {**chat, "n": 2, "temperature": 1}).whole
        assert [choice["index"] for choice in answer["choices"]] == [0, 1]

    def test_chat_gives_logprobs(self, node: NodeClient, chat: dict[str, Any]) -> None:
        answer = node(CHAT, {**chat, "logprobs": True}).whole
        rows = answer["choices"][0]["logprobs"]["content"]
        assert rows
        assert [row for row in rows if row["logprob"] > 0] == []

    def test_chat_follows_a_json_schema(self, node: NodeClient, chat: dict[str, Any]) -> None:
        answer = node(CHAT, {**chat, "max_tokens": 100, "response_format": VERDICT}).whole
        verdict = json.loads(answer["choices"][0]["message"]["content"])
        assert list(verdict) == ["ok"]
        assert isinstance(verdict["ok"], bool)

    def test_chat_takes_fields_of_the_engine(self, node: NodeClient, chat: dict[str, Any]) -> None:
        assert node(CHAT, {**chat, "top_k": 5, "repetition_penalty": 1.0}).whole["choices"]

    def test_chat_stream_that_is_left_leaves_the_client_usable(
        self, node: NodeClient, chat: dict[str, Any]
    ) -> None:
        left = node(CHAT, {**chat, "max_tokens": 100, "stream": True}, leaveAfter=1)
        assert len(left.parts) == 1
        assert node(CHAT, chat).whole["choices"]

    def test_chat_streams_at_once_stay_apart(
        self, node: NodeClient, endpoint: Endpoint, chat: dict[str, Any]
    ) -> None:
        prompts = [{"role": "user", "content": f"Add: {number} + 1"} for number in range(16)]
        bodies = [{**chat, "messages": [prompt], "stream": True} for prompt in prompts]
        ids = [{chunk["id"] for chunk in each.parts} for each in node.together(CHAT, bodies)]
        assert [len(each) for each in ids] == [1] * 16
        assert len(set.union(*ids)) == 16

    # Completions

    def test_completion_stream_says_the_same_as_the_whole_answer(
        self, node: NodeClient, completion: dict[str, Any]
    ) -> None:
        whole = node(COMPLETION, completion).whole
        parts = node(COMPLETION, {**completion, "stream": True}).parts
        assert whole["object"] == "text_completion"
        text = "".join(part["choices"][0]["text"] for part in parts)
        assert text == whole["choices"][0]["text"]

    def test_completion_gives_logprobs(self, node: NodeClient, completion: dict[str, Any]) -> None:
        answer = node(COMPLETION, {**completion, "logprobs": 1}).whole
        assert answer["choices"][0]["logprobs"]["token_logprobs"]

    # Responses

    def test_response_is_answered(self, node: NodeClient, response: dict[str, Any]) -> None:
        answer = node(RESPONSE, response).whole
        assert answer["object"] == "response"
        assert answer["status"] in ("completed", "incomplete")
        assert answer["output_text"]

    def test_response_stream_ends_with_the_whole_response(
        self, node: NodeClient, response: dict[str, Any]
    ) -> None:
        events = node(RESPONSE, {**response, "stream": True}).parts
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] in ("response.completed", "response.incomplete")
        deltas = [event for event in events if event["type"] == "response.output_text.delta"]
        (item,) = events[-1]["response"]["output"]
        assert "".join(event["delta"] for event in deltas) == item["content"][0]["text"]

    def test_response_stream_is_assembled_by_the_clients_helper(
        self, node: NodeClient, response: dict[str, Any]
    ) -> None:
        final = node("responses.stream", {**response, "temperature": 0}, final="finalResponse")
        assert final.whole["output_text"]

    # Errors

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_unknown_model_is_refused(
        self, node: NodeClient, chat: dict[str, Any], is_stream: bool
    ) -> None:
        error = node(CHAT, {**chat, "model": "no-such-model", "stream": is_stream}).failure
        assert error.is_a("NotFoundError")
        assert (error.status, error.code, error.param) == (404, "model_not_found", "model")

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_refusal_of_the_engine_reaches_the_client(
        self, node: NodeClient, chat: dict[str, Any], is_stream: bool
    ) -> None:
        error = node(CHAT, {**chat, "max_tokens": -1, "stream": is_stream}).failure
        assert error.is_a("BadRequestError")
        assert error.status == 400
        assert "max_tokens" in error.message

    def test_unknown_route_is_refused(self, node: NodeClient) -> None:
        error = node("moderations.create", {"input": "x"}).failure
        assert error.is_a("NotFoundError")
        assert (error.status, error.code) == (404, "route_not_found")

    def test_unknown_build_is_refused(self, node: NodeClient, chat: dict[str, Any]) -> None:
        error = node(CHAT, chat, headers={"x-penumbra-variant": "int9"}).failure
        assert error.is_a("BadRequestError")
        assert (error.status, error.code) == (400, "unknown_variant")
