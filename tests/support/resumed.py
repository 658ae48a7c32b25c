"""One continuation over a fake baseline, and the client's view of it."""

import asyncio
import json
from typing import Any

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.dispatch.attempt import Attempt
from penumbra.router.dispatch.stream_resumer import StreamResumer
from penumbra.router.metrics import GatewayMetrics
from penumbra.router.upstream.fake import FakeUpstream, Script, events, whole
from penumbra.router.upstream.port import UpstreamRequest
from tests.support.cells import attempts_of, cells_of
from tests.support.stream_events import delta

CHAT = b"/v1/chat/completions"
ROLE = delta(role="assistant", content="")
USAGE = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}}
ASKED = {"stream_options": {"include_usage": True}}


class Broken:
    """The stream that broke off, as the client sees it from then on."""

    slice_name = "other"

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.ended: str | None = None
        self.over = asyncio.Event()
        self.told = asyncio.Event()

    def send_event(self, event: bytes) -> None:
        assert self.ended is None
        self.events.append(event)
        self.told.set()

    def finish_resumed(self) -> None:
        self._end("finished")

    def give_up(self) -> None:
        self._end("given up")

    def _end(self, how: str) -> None:
        assert self.ended is None
        self.ended = how
        self.over.set()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(event[6:]) for event in self.events if event != b"data: [DONE]\n\n"]

    @property
    def text(self) -> str:
        choices = [choice for item in self.objects for choice in item.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def usage(self) -> Any:
        return next((item["usage"] for item in self.objects if item.get("usage")), None)


class Resumed:
    """One continuation.

    Args:
        sent: The bytes that the client has.
        rest: The baseline's answers, one for each time that it is asked to go on.
        count: Its answer to `/tokenize`.
        body: More fields of the client's request.
        path: Its route.
    """

    def __init__(
        self,
        sent: bytes,
        *rest: Script,
        count: Script | None = None,
        body: dict[str, Any] | None = None,
        path: bytes = CHAT,
    ) -> None:
        scripts = iter(rest)
        self.upstream = FakeUpstream(
            "demo",
            lambda request: (
                (count or whole({}, status=404)) if request.path == b"/tokenize" else next(scripts)
            ),
        )
        self.metrics = GatewayMetrics()
        self.broken = Broken()
        messages = [{"role": "user", "content": "hi"}]
        request = {"model": "demo", "stream": True, "messages": messages, **(body or {})}
        self.resumer = StreamResumer(
            self.broken,
            Attempt("full", self.upstream, cells_of(self.metrics, "full")),
            UpstreamRequest(path, b"", json.dumps(request).encode()),
            sent,
            lambda: 5.0,
        )

    async def to_end(self) -> Broken:
        self.resumer.start()
        await asyncio.wait_for(self.broken.over.wait(), 5)
        return self.broken

    @property
    def asked(self) -> list[dict[str, Any]]:
        requests = [r for r in self.upstream.requests if r.path != b"/tokenize"]
        return [json.loads(request.body) for request in requests]

    def ended(self, outcome: Outcome) -> int:
        return attempts_of(self.metrics, "full", outcome)


def rest(*words: str) -> Script:
    """The baseline's answer: words, the end, and usage."""
    said = [delta(content=word) for word in words]
    return events(ROLE, *said, delta("stop"), USAGE)
