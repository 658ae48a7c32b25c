"""Node's official `openai` client against the gateway over a scripted engine."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.behaviours import dying_stream, respond
from tests.support.engine_wire import TEXT
from tests.support.node_openai_contract import (
    CHAT,
    NodeClient,
    NodeOpenAIContract,
    node_for,
    text_of,
)
from tests.support.openai_endpoint import MESSAGES, Endpoint
from tests.support.scripted_connection import Exchange
from tests.support.scripted_endpoint import (
    DOWN,
    INT8,
    PINNED,
)
from tests.support.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.timeout(600)
"""The first run installs the client."""


@pytest.fixture(scope="module")
def node(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeClient]:
    with node_for(endpoint, tmp_path_factory.mktemp("node")) as client:
        yield client


class TestNodeOpenAIClient(NodeOpenAIContract):
    """The suite, and what only a scripted engine can show."""

    @pytest.fixture
    def hello(self, endpoint: Endpoint) -> dict[str, Any]:
        """A chat request without a limit on tokens."""
        return {"model": endpoint.model, "messages": MESSAGES}

    def test_wrong_key_is_refused(self, node: NodeClient, hello: dict[str, Any]) -> None:
        error = node(CHAT, hello, key="sk-wrong").failure
        assert error.is_a("AuthenticationError")
        assert (error.status, error.code) == (401, "invalid_api_key")

    def test_engine_that_is_gone_raises_a_server_error(
        self, node: NodeClient, hello: dict[str, Any]
    ) -> None:
        error = node(CHAT, {**hello, "model": DOWN}).failure
        assert error.is_a("InternalServerError")
        assert (error.status, error.code) == (503, "upstream_unavailable")

    @pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}])
    def test_embedding_is_answered(
        self, node: NodeClient, endpoint: Endpoint, encoding: dict[str, str]
    ) -> None:
        # Without an encoding the client asks for base64 and decodes it.
        answer = node("embeddings.create", {"model": endpoint.model, "input": "x", **encoding})
        assert answer.whole["data"][0]["embedding"] == [0.25, -0.5, 0.125]

    def test_failing_candidate_is_not_seen(
        self, node: NodeClient, hello: dict[str, Any], int8: ScriptedUpstream
    ) -> None:
        int8.always(respond(500, b"boom"))
        outcome = node(CHAT, hello, headers=PINNED)
        assert outcome.whole["choices"][0]["message"]["content"] == TEXT
        assert outcome.headers["x-penumbra-variant"] == "full"
        assert outcome.headers["x-penumbra-failover"] == "server_error"

    def test_dying_candidate_is_not_seen(
        self, node: NodeClient, hello: dict[str, Any], int8: ScriptedUpstream
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        outcome = node(CHAT, {**hello, "stream": True}, headers=PINNED)
        assert text_of(outcome.parts) == TEXT
        assert len({chunk["id"] for chunk in outcome.parts}) == 1

    def test_stream_that_cannot_be_continued_raises(
        self, node: NodeClient, hello: dict[str, Any], int8: ScriptedUpstream
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        error = node(CHAT, {**hello, "stream": True, "n": 2}, headers=PINNED).failure
        assert error.is_a("APIError")
        assert error.code == "upstream_died"

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_aborted_request_ends_at_the_engine(
        self, node: NodeClient, hello: dict[str, Any], int8: ScriptedUpstream, is_stream: bool
    ) -> None:
        is_let_go = threading.Event()

        async def be_silent(exchange: Exchange) -> None:
            await exchange.peer_closed()
            is_let_go.set()

        int8.always(be_silent)
        error = node(CHAT, {**hello, "stream": is_stream}, headers=PINNED, abortAfterMs=300).failure
        assert error.is_a("APIUserAbortError")
        assert is_let_go.wait(30.0)
