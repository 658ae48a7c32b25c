"""litellm as a client of the gateway, over a scripted engine."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import anthropic_wire
from tests.support.behaviours import dying_stream, respond
from tests.support.engine_wire import TEXT
from tests.support.litellm_contract import Litellm, LitellmContract, content_of, litellm_for
from tests.support.openai_endpoint import MESSAGES, Endpoint
from tests.support.scripted_endpoint import (
    DOWN,
    INT8,
    PINNED,
)
from tests.support.scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.timeout(600)
"""The first run installs litellm."""


@pytest.fixture(scope="module")
def litellm(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Litellm]:
    with litellm_for(endpoint, tmp_path_factory.mktemp("litellm")) as client:
        yield client


class TestLitellmClient(LitellmContract):
    """The suite, and what only a scripted engine can show."""

    HELLO: dict[str, Any] = {"messages": MESSAGES, "extra_headers": PINNED}  # noqa: RUF012

    @pytest.mark.parametrize("function", ["completion", "acompletion"])
    def test_wrong_key_is_refused(self, litellm: Litellm, function: str) -> None:
        error = litellm(function, **self.HELLO, api_key="sk-wrong").failure
        assert error.is_a("AuthenticationError")
        assert error.status == 401

    @pytest.mark.parametrize("function", ["completion", "acompletion"])
    def test_engine_that_is_gone_raises_a_server_error(
        self, litellm: Litellm, function: str
    ) -> None:
        error = litellm(function, model=DOWN, messages=MESSAGES).failure
        assert error.is_a("ServiceUnavailableError")
        assert error.status == 503

    def test_embedding_is_answered(self, litellm: Litellm) -> None:
        answer = litellm("embedding", input=["text"]).whole
        assert answer["data"][0]["embedding"] == [0.25, -0.5, 0.125]

    def test_failing_candidate_is_not_seen(self, litellm: Litellm, int8: ScriptedUpstream) -> None:
        int8.always(respond(500, b"boom"))
        outcome = litellm("completion", **self.HELLO)
        assert outcome.whole["choices"][0]["message"]["content"] == TEXT
        assert outcome.headers["x-penumbra-variant"] == "full"

    def test_dying_candidate_is_not_seen(self, litellm: Litellm, int8: ScriptedUpstream) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        chunks = litellm("completion", **self.HELLO, stream=True).parts
        assert content_of(chunks) == TEXT
        assert len({chunk["id"] for chunk in chunks}) == 1

    @pytest.mark.parametrize("function", ["completion", "acompletion"])
    def test_stream_that_cannot_be_continued_raises(
        self, litellm: Litellm, int8: ScriptedUpstream, function: str
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        error = litellm(function, **self.HELLO, stream=True, n=2).failure
        assert error.is_a("APIError")
        assert "could not be continued" in error.message

    # The API of Anthropic

    def test_message_is_answered(self, litellm: Litellm, int8: ScriptedUpstream) -> None:
        int8.always(anthropic_wire.message())
        answer = litellm("completion", "anthropic", **self.HELLO, max_tokens=8).whole
        assert answer["choices"][0]["message"]["content"] == anthropic_wire.TEXT
        assert answer["usage"]["completion_tokens"] == 2
        assert int8.requests[-1].target == "/v1/messages"

    def test_message_stream_is_assembled(self, litellm: Litellm, int8: ScriptedUpstream) -> None:
        int8.always(anthropic_wire.message_stream())
        stream = litellm("completion", "anthropic", **self.HELLO, max_tokens=8, stream=True)
        assert content_of(stream.parts) == anthropic_wire.TEXT

    def test_unknown_model_of_anthropics_api_is_refused(self, litellm: Litellm) -> None:
        error = litellm("completion", "anthropic", **self.HELLO, model="no-such-model").failure
        assert error.is_a("NotFoundError")
        assert error.status == 404
