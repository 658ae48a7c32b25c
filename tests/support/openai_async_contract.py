"""The asynchronous half of the suite in `openai_contract`."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest

from tests.support.openai_endpoint import MESSAGES, PROMPT, TOKENS, Endpoint, text_of


class AsyncOpenAIContract:
    """Suite for the official asynchronous client; it wants a fixture `endpoint`."""

    @pytest.fixture
    async def async_client(self, endpoint: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
        async with openai.AsyncOpenAI(
            base_url=endpoint.base_url, api_key=endpoint.api_key, max_retries=0, timeout=60.0
        ) as client:
            yield client

    async def test_async_chat_is_answered(
        self, async_client: openai.AsyncOpenAI, endpoint: Endpoint
    ) -> None:
        answer = await async_client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=TOKENS
        )
        assert answer.choices[0].message.content

    async def test_async_chat_streams(
        self, async_client: openai.AsyncOpenAI, endpoint: Endpoint
    ) -> None:
        stream = await async_client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, max_tokens=TOKENS, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert text_of(chunks)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")

    async def test_async_completion_and_response_stream(
        self, async_client: openai.AsyncOpenAI, endpoint: Endpoint
    ) -> None:
        parts = await async_client.completions.create(
            model=endpoint.model, prompt=PROMPT, max_tokens=TOKENS, stream=True
        )
        events = await async_client.responses.create(
            model=endpoint.model, input=PROMPT, max_output_tokens=16, stream=True
        )
        assert [part async for part in parts]
        kinds = [event.type async for event in events]
        assert kinds[0] == "response.created"

    async def test_async_streams_at_once_stay_apart(
        self, async_client: openai.AsyncOpenAI, endpoint: Endpoint
    ) -> None:
        async def one(number: int) -> set[str]:
            stream = await async_client.chat.completions.create(
                model=endpoint.model,
                messages=[{"role": "user", "content": f"Add: {number} + 1"}],
                max_tokens=4,
                stream=True,
            )
            return {chunk.id async for chunk in stream}

        ids = await asyncio.gather(*(one(number) for number in range(16)))
        assert [len(each) for each in ids] == [1] * 16
        assert len(set.union(*ids)) == 16

    async def test_async_unknown_model_is_refused(self, async_client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError):
            await async_client.chat.completions.create(model="no-such-model", messages=MESSAGES)
