"""What both halves of the `openai` client's suite send, and where."""

from dataclasses import dataclass

from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Add: 12 + 7"}]
PROMPT = "Add: 12 + 7"
TOKENS = 8


@dataclass(frozen=True)
class Endpoint:
    """Where to send requests."""

    base_url: str
    """With `/v1`."""
    model: str
    api_key: str = "none"


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
