"""A receiver that notes the answer which it is told of."""

import asyncio

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.port import Headers


class Recorder:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.outcome: Outcome | None = None
        self.detail = ""
        self.over = asyncio.Event()
        self.began = asyncio.Event()

    def on_head(self, status: int, headers: Headers) -> None:
        self.calls.append("head")
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        self.calls.append("body")
        self.body += data
        self.began.set()

    def on_end(self) -> None:
        self.calls.append("end")
        self.over.set()

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        self.calls.append("fail")
        self.outcome, self.detail = outcome, detail
        self.over.set()
