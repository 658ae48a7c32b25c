"""A fake engine with a capacity: continuous batching in steps that take time, as vLLM's do.

Each step costs a fixed time plus the prefill of what it admits; every running request gets one
token a step. So a scoring request (prefill only) slows the requests that run beside it, and those
that wait wait for a place. Answers carry token ids when they are asked for; `/metrics` tells
vLLM's gauges.

    python -m benchmarks.shadow.engine PORT SLOTS
"""

import asyncio
import json
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import uvloop

from penumbra.router.upstream.fake import scored

STEP_SECONDS = 0.008
PREFILL_SECONDS = 0.001
TOKENS = 16
_PROMPT_IDS = list(range(24))
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass
class Sequence:
    """One request in the engine."""

    left: int
    """Tokens still to be made; 0: prefill only."""
    made: asyncio.Queue[int] = field(default_factory=asyncio.Queue)


class Engine:
    """The batch and its queue."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self._wake = asyncio.Event()

    def submit(self, tokens: int) -> Sequence:
        """Queue a request."""
        sequence = Sequence(tokens)
        self.waiting.append(sequence)
        self._wake.set()
        return sequence

    async def run(self) -> None:
        """Step for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self.running and not self.waiting:
                self._wake.clear()
                await self._wake.wait()
                due = loop.time()
            admitted = 0
            while self.waiting and len(self.running) < self.slots:
                self.running.append(self.waiting.popleft())
                admitted += 1
            # By a schedule, so that this process's own delays do not add up to a slower engine.
            due = max(due, loop.time() - STEP_SECONDS) + STEP_SECONDS + admitted * PREFILL_SECONDS
            await asyncio.sleep(max(0.0, due - loop.time()))
            for sequence in self.running:
                sequence.left -= 1
                sequence.made.put_nowait(sequence.left)
            self.running = [sequence for sequence in self.running if sequence.left > 0]


class Server:
    """HTTP in front of the engine: as much as the gateway and the comparator ask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length:")
                    ),
                    0,
                )
                body = json.loads(await reader.readexactly(length)) if length else {}
                await self._answer(head.split(b" ", 2)[1].decode(), body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if path.endswith("/metrics"):
            _send(writer, self._gauges().encode(), "text/plain")
        elif path.endswith("/v1/models"):
            card = {"id": "demo", "object": "model", "root": "fake", "max_model_len": 4096}
            _send(writer, json.dumps({"object": "list", "data": [card]}).encode())
        elif path.endswith("/version"):
            _send(writer, b'{"version":"bench-1"}')
        elif body.get("prompt_logprobs") is not None:
            await self._engine.submit(0).made.get()
            _send(writer, json.dumps(scored(body)).encode())
        elif "messages" in body:
            await self._generate(body, writer)
        else:
            _send(writer, b"{}", status=200 if path.endswith("/health") else 404)

    async def _generate(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        wants_ids, wants_decode = body.get("return_token_ids"), body.get("logprobs")
        sequence = self._engine.submit(TOKENS)
        left = await sequence.made.get()
        if not body.get("stream"):
            while left > 0:
                left = await sequence.made.get()
            _send(writer, _whole(wants_ids))
            return
        prompt = {"prompt_token_ids": _PROMPT_IDS if wants_ids else None}
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}
        writer.write(_STREAM + _event([{**role, "finish_reason": None}], **prompt))
        while True:
            ids = [1000 + left] if wants_ids else None
            end = "length" if left <= 0 else None
            told = _logprobs(f" word{left}") if wants_decode else None
            delta = {"index": 0, "delta": {"content": f" word{left}"}, "logprobs": told}
            writer.write(_event([{**delta, "finish_reason": end, "token_ids": ids}]))
            if left <= 0:
                break
            left = await sequence.made.get()
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _gauges(self) -> str:
        engine = self._engine
        return (
            f'vllm:num_requests_running{{engine="0"}} {len(engine.running)}\n'
            f'vllm:num_requests_waiting{{engine="0"}} {len(engine.waiting)}\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {len(engine.running) / engine.slots / 2}\n'
        )


def _logprobs(token: str) -> dict[str, Any]:
    one = {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}
    return {"content": [one]}


def _whole(wants_ids: bool | None) -> bytes:
    ids = [1000 + left for left in range(TOKENS)] if wants_ids else None
    message = {"role": "assistant", "content": " word" * TOKENS}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    answer = {
        "object": "chat.completion",
        "choices": [{**choice, "token_ids": ids}],
        "usage": {"prompt_tokens": len(_PROMPT_IDS), "completion_tokens": TOKENS},
        "prompt_token_ids": _PROMPT_IDS if wants_ids else None,
    }
    return json.dumps(answer, separators=(",", ":")).encode()


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "demo"}
    data = json.dumps({**head, "choices": choices, **more}, separators=(",", ":"))
    return _chunk(f"data: {data}\n\n".encode())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _send(
    writer: asyncio.StreamWriter, body: bytes, kind: str = "application/json", status: int = 200
) -> None:
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def _main(port: int, slots: int) -> None:
    engine = Engine(slots)
    server = await asyncio.start_server(Server(engine).serve, "127.0.0.1", port)
    async with server, asyncio.TaskGroup() as group:
        group.create_task(engine.run())


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2])))
