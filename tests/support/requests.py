"""The requests that the gateway's tests send, and a view of the streams that they get back."""

import json
from dataclasses import dataclass
from typing import Any

from tests.support.raw_client import RawResponse

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
HOT_ROUTES = (CHAT, COMPLETIONS, RESPONSES, "/v1/embeddings", "/tokenize", "/detokenize")

PROMPT = "Tell me about cities ."
MESSAGES = [{"role": "system", "content": "Be brief ."}, {"role": "user", "content": PROMPT}]


def chat(model: str = "demo", **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": MESSAGES, **more}


def completion(model: str = "demo", **more: Any) -> dict[str, Any]:
    """A text completion request."""
    return {"model": model, "prompt": PROMPT, **more}


def request_for(path: str, model: str = "demo", **more: Any) -> dict[str, Any]:
    """A request that the route accepts."""
    if path == CHAT:
        return chat(model, **more)
    if path in (RESPONSES, "/v1/embeddings"):
        return {"model": model, "input": PROMPT, **more}
    if path == "/detokenize":
        return {"model": model, "tokens": [1, 2, 3], **more}
    return completion(model, **more)


def dumps(body: object) -> bytes:
    return json.dumps(body).encode()


@dataclass
class StreamView:
    """The answer as a client assembles it from a stream of chat or text completions."""

    payloads: list[bytes]
    """The data of each event, in order."""

    @classmethod
    def of(cls, response: RawResponse) -> "StreamView":
        assert response.status == 200, response
        return cls.of_events(response.events)

    @classmethod
    def of_events(cls, events: list[bytes]) -> "StreamView":
        lines = [line for event in events for line in event.splitlines()]
        return cls([line[6:] for line in lines if line.startswith(b"data: ")])

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads if payload != b"[DONE]"]

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for item in self.objects for choice in item.get("choices", ())]

    @property
    def text(self) -> str:
        pieces = [choice.get("delta", choice) for choice in self.choices]
        return "".join(piece.get("content") or piece.get("text") or "" for piece in pieces)

    @property
    def roles(self) -> list[str]:
        return [choice["delta"]["role"] for choice in self.choices if "role" in choice["delta"]]

    @property
    def finish_reasons(self) -> list[str]:
        return [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]

    @property
    def usages(self) -> list[dict[str, Any]]:
        return [item["usage"] for item in self.objects if item.get("usage")]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [item["error"] for item in self.objects if "error" in item]

    @property
    def done_count(self) -> int:
        return self.payloads.count(b"[DONE]")

    def distinct(self, name: str) -> set[object]:
        """The different values of a field that every event should have alike."""
        return {item.get(name) for item in self.objects}
