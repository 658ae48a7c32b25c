"""The official `openai` client against the gateway over a scripted engine."""

import openai
import pytest

from tests.support.behaviours import dying_stream, respond
from tests.support.engine_wire import TEXT
from tests.support.openai_contract import OpenAIContract
from tests.support.openai_endpoint import MESSAGES, Endpoint, text_of
from tests.support.scripted_endpoint import (
    INT8,
    PINNED,
)
from tests.support.scripted_upstream import ScriptedUpstream


class TestOpenAIClient(OpenAIContract):
    """The suite, and what only a scripted engine can show."""

    def test_wrong_key_is_refused(self, endpoint: Endpoint) -> None:
        with (
            openai.OpenAI(base_url=endpoint.base_url, api_key="sk-wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            client.chat.completions.create(model=endpoint.model, messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"

    def test_embedding_is_answered(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.embeddings.create(model=endpoint.model, input="text")
        assert answer.data[0].embedding == [0.25, -0.5, 0.125]

    def test_failing_candidate_is_not_seen(
        self, client: openai.OpenAI, endpoint: Endpoint, int8: ScriptedUpstream
    ) -> None:
        int8.always(respond(500, b"boom"))
        answer = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, extra_headers=PINNED
        )
        assert answer.choices[0].message.content == TEXT

    def test_dying_candidate_is_not_seen(
        self, client: openai.OpenAI, endpoint: Endpoint, int8: ScriptedUpstream
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        chunks = list(
            client.chat.completions.create(
                model=endpoint.model, messages=MESSAGES, stream=True, extra_headers=PINNED
            )
        )
        assert text_of(chunks) == TEXT
        assert len({chunk.id for chunk in chunks}) == 1

    def test_stream_that_cannot_be_continued_raises(
        self, client: openai.OpenAI, endpoint: Endpoint, int8: ScriptedUpstream
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        stream = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, stream=True, n=2, extra_headers=PINNED
        )
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "upstream_died"
