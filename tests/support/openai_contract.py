"""Suite for the official `openai` client behind one base URL, for any engine.

`OpenAIContract` is a suite: a test module subclasses it and has a fixture `endpoint`. It says
nothing of what the model answers, so it holds for the scripted engine and for a real one. It
holds the asynchronous half, `AsyncOpenAIContract`, as well.
"""

from collections.abc import Iterator

import openai
import pytest
from pydantic import BaseModel

from tests.support.openai_async_contract import AsyncOpenAIContract
from tests.support.openai_endpoint import MESSAGES, PROMPT, TOKENS, Endpoint, text_of

__all__ = ["Endpoint", "OpenAIContract"]


class Verdict(BaseModel):
    """A structured answer that any model can be forced to give in a few tokens."""

    ok: bool


class OpenAIContract(AsyncOpenAIContract):
    """The suite. Temperature 0 and one user, so that one build answers, and always alike."""

    @pytest.fixture
    def client(self, endpoint: Endpoint) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(
            base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0, timeout=60.0
        ) as client:
            yield client

    # Models

    def test_models_list_has_the_model(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        assert endpoint.model in {model.id for model in client.models.list()}

    def test_model_can_be_retrieved(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        model = client.models.retrieve(endpoint.model)
        assert (model.id, model.object) == (endpoint.model, "model")

    def test_unknown_model_cannot_be_retrieved(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("no-such-model")
        assert caught.value.code == "model_not_found"

    # Chat

    def test_chat_is_answered(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=TOKENS, temperature=0
        )
        (choice,) = answer.choices
        assert answer.object == "chat.completion"
        assert answer.model == endpoint.model
        assert choice.message.role == "assistant"
        assert choice.message.content
        assert choice.finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 0
        total = answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.usage.total_tokens == total

    def test_chat_answer_says_which_build_and_why(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        answer = client.chat.completions.with_raw_response.create(
            model=endpoint.model,
            messages=MESSAGES,
            max_tokens=1,
            extra_headers={"x-request-id": "from-the-client"},
        )
        assert answer.headers["x-request-id"] == "from-the-client"
        assert answer.headers["x-penumbra-variant"]
        assert answer.headers["x-penumbra-reason"]
        assert int(answer.headers["x-penumbra-epoch"]) >= 0
        assert answer.parse().choices

    def test_chat_stream_says_the_same_as_the_whole_answer(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        whole = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=TOKENS, temperature=0, user="u"
        )
        chunks = list(
            client.chat.completions.create(
                model=endpoint.model,
                messages=MESSAGES,
                max_tokens=TOKENS,
                temperature=0,
                user="u",
                stream=True,
            )
        )
        assert text_of(chunks) == whole.choices[0].message.content
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == (
            whole.choices[0].finish_reason
        )
        assert len({chunk.id for chunk in chunks}) == 1

    def test_chat_stream_brings_usage_where_asked(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        chunks = list(
            client.chat.completions.create(
                model=endpoint.model,
                messages=MESSAGES,
                max_tokens=TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert [chunk.usage for chunk in chunks[:-1] if chunk.usage] == []
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert 0 < chunks[-1].usage.completion_tokens <= TOKENS

    def test_chat_gives_as_many_choices_as_asked(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        answer = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=2, n=2, temperature=1
        )
        assert [choice.index for choice in answer.choices] == [0, 1]

    def test_chat_gives_logprobs(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=3, logprobs=True, temperature=0
        )
        assert answer.choices[0].logprobs is not None
        rows = answer.choices[0].logprobs.content
        assert rows
        assert [row for row in rows if row.logprob > 0] == []

    def test_chat_follows_a_json_schema(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.chat.completions.parse(
            model=endpoint.model,
            messages=MESSAGES,
            max_tokens=100,
            temperature=0,
            response_format=Verdict,
        )
        assert isinstance(answer.choices[0].message.parsed, Verdict)

    def test_chat_takes_fields_of_the_engine(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        answer = client.chat.completions.create(
            model=endpoint.model,
            messages=MESSAGES,
            max_tokens=2,
            extra_body={"top_k": 5, "repetition_penalty": 1.0},
        )
        assert answer.choices

    def test_chat_stream_that_is_left_leaves_the_client_usable(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        with client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=100, stream=True
        ) as stream:
            next(iter(stream))
        answer = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=1
        )
        assert answer.choices

    # Completions

    def test_completion_stream_says_the_same_as_the_whole_answer(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        whole = client.completions.create(
            model=endpoint.model, prompt=PROMPT, max_tokens=TOKENS, temperature=0, user="u"
        )
        stream = client.completions.create(
            model=endpoint.model,
            prompt=PROMPT,
            max_tokens=TOKENS,
            temperature=0,
            user="u",
            stream=True,
        )
        assert whole.object == "text_completion"
        assert "".join(part.choices[0].text for part in stream) == whole.choices[0].text

    def test_completion_gives_logprobs(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.completions.create(
            model=endpoint.model, prompt=PROMPT, max_tokens=3, logprobs=1, temperature=0
        )
        assert answer.choices[0].logprobs is not None
        assert answer.choices[0].logprobs.token_logprobs

    # Responses

    def test_response_is_answered(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.responses.create(model=endpoint.model, input=PROMPT, max_output_tokens=16)
        assert answer.object == "response"
        assert answer.status in ("completed", "incomplete")
        assert answer.output_text

    def test_response_stream_ends_with_the_whole_response(
        self, client: openai.OpenAI, endpoint: Endpoint
    ) -> None:
        events = list(
            client.responses.create(
                model=endpoint.model, input=PROMPT, max_output_tokens=16, stream=True
            )
        )
        assert events[0].type == "response.created"
        assert events[-1].type in ("response.completed", "response.incomplete")
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == events[-1].response.output_text

    # Errors

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_unknown_model_is_refused(self, client: openai.OpenAI, is_stream: bool) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(
                model="no-such-model", messages=MESSAGES, stream=is_stream
            )
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_refusal_of_the_engine_reaches_the_client(
        self, client: openai.OpenAI, endpoint: Endpoint, is_stream: bool
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model=endpoint.model, messages=MESSAGES, max_tokens=-1, stream=is_stream
            )
        assert "max_tokens" in caught.value.message

    def test_unknown_route_is_refused(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            client.moderations.create(input="x")
