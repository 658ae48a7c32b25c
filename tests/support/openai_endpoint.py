"""Requests and endpoint that both halves of the `openai` client's suite share."""

from dataclasses import dataclass

from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Add: 12 + 7"}]
PROMPT = "Add: 12 + 7"
TOKENS = 8


@dataclass(frozen=True)
class Endpoint:
    """Address, model and key for requests."""

    base_url: str
    """Base URL, with `/v1`."""
    model: str
    api_key: str = "none"


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
