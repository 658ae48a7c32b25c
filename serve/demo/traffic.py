"""Clients of the demo: real requests to a running gateway, whose answers are checked.

They are ordinary clients of the OpenAI API, and learn from an answer's headers which build gave it.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from penumbra.serve.demo.tasks import SLICES, Task, fresh_tasks, is_correct

MODEL = "demo"
_MAX_TOKENS = 96
_TIMEOUT_SECONDS = 120.0
_OK = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """Result of one request.

    Attributes:
        task: The task that was asked.
        variant: The variant that answered; empty if none did.
        epoch: Epoch of the routing table that decided.
        is_right: Whether the answer is the right one.
        error: The error that the client saw; empty without one.
        has_failed_over: Whether the first attempt failed before the client saw anything of it.
        request_id: The gateway's id of the request.
    """

    task: Task
    variant: str
    epoch: int
    is_right: bool
    error: str = ""
    has_failed_over: bool = False
    request_id: str = ""


@dataclass(slots=True)
class TrafficCounts:
    """Results of a run of traffic."""

    requests: int = 0
    errors: list[str] = field(default_factory=list)
    by_variant: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    failovers: int = 0
    judged: int = 0
    last_epochs: dict[str, int] = field(default_factory=dict)
    """Variant -> the newest epoch that gave it a request."""

    def add(self, reply: Reply) -> None:
        """Count one reply."""
        self.requests += 1
        if reply.error:
            self.errors.append(reply.error)
            return
        self.by_variant[reply.variant] += 1
        self.right[reply.variant] += reply.is_right
        self.failovers += reply.has_failed_over
        newest = self.last_epochs.get(reply.variant, 0)
        self.last_epochs[reply.variant] = max(newest, reply.epoch)

    def add_judgement(self, error: str) -> None:
        """Count one judgement of an answer."""
        self.judged += not error
        if error:
            self.errors.append(error)


class Traffic:
    """Clients that keep asking until they are stopped.

    Args:
        base_url: The gateway, e.g. http://127.0.0.1:8080.
        clients: How many ask at once.
        seed: Which tasks they ask; no prompt comes twice.
        slices: Which slices they ask, in turn; one that is named twice comes twice in a round.
    """

    is_judging: bool = False
    """Whether the clients judge each answer (`POST /v1/feedback`)."""
    pause_seconds: float = 0.0
    """Pause of a client between an answer and its next request."""

    def __init__(
        self, base_url: str, clients: int, seed: int = 0, slices: Sequence[str] = SLICES
    ) -> None:
        self._base_url = base_url
        self._clients = clients
        self._tasks = _endless_tasks(seed, slices)
        self._numbers = itertools.count()
        self._asked: set[asyncio.Task[Reply]] = set()
        """Requests without an answer yet."""
        self.counts = TrafficCounts()

    def next_counts(self) -> TrafficCounts:
        """Start new counts; returns those that end."""
        ended, self.counts = self.counts, TrafficCounts()
        return ended

    async def settle(self) -> None:
        """Wait until every request that is under way now has its answer."""
        if self._asked:
            await asyncio.wait(set(self._asked))

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Traffic flows inside this context."""
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask_on()) for _ in range(self._clients)]
            try:
                yield
            finally:
                for task in asking:
                    task.cancel()

    async def _ask_on(self) -> None:
        async with client(self._base_url) as http:
            while True:
                number = next(self._numbers)
                headers = {"x-user-id": f"user-{number % 500}"}
                is_stream = number % 2 == 0
                task = next(self._tasks)
                asked = asyncio.create_task(ask(http, task, headers, is_stream=is_stream))
                self._asked.add(asked)
                asked.add_done_callback(self._asked.discard)
                reply = await asked
                self.counts.add(reply)
                if self.is_judging and not reply.error:
                    self.counts.add_judgement(await judge(http, reply))
                await asyncio.sleep(self.pause_seconds)


def client(base_url: str) -> httpx.AsyncClient:
    """An HTTP client for `ask`."""
    return httpx.AsyncClient(base_url=base_url, timeout=_TIMEOUT_SECONDS)


async def ask(
    http: httpx.AsyncClient, task: Task, headers: dict[str, str], *, is_stream: bool
) -> Reply:
    """Ask one task at temperature 0; never raises for what a server does."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": task.prompt}],
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
        "stream": is_stream,
    }
    try:
        response = await http.post("/v1/chat/completions", json=body, headers=headers)
        if response.status_code != _OK:
            return Reply(task, "", 0, is_right=False, error=f"status {response.status_code}")
        text = streamed_text(response.text) if is_stream else _whole_text(response.json())
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        return Reply(task, "", 0, is_right=False, error=f"{type(error).__name__}: {error}")
    return Reply(
        task,
        response.headers.get("x-penumbra-variant", ""),
        int(response.headers.get("x-penumbra-epoch", 0)),
        is_right=is_correct(task, text),
        has_failed_over="x-penumbra-failover" in response.headers,
        request_id=response.headers.get("x-request-id", ""),
    )


async def judge(http: httpx.AsyncClient, reply: Reply) -> str:
    """Give an answer a thumb: up if it is right. Returns what went wrong, if anything did."""
    body = {"request_id": reply.request_id, "thumb": "up" if reply.is_right else "down"}
    try:
        response = await http.post("/v1/feedback", json=body)
    except httpx.HTTPError as error:
        return f"feedback: {type(error).__name__}: {error}"
    return "" if response.is_success else f"feedback: status {response.status_code}"


def _whole_text(answer: dict[str, list[dict[str, dict[str, str]]]]) -> str:
    return answer["choices"][0]["message"]["content"] or ""


def streamed_text(stream: str) -> str:
    """The text of a chat stream.

    Raises:
        ValueError: It does not end as it should, or an event reports an error.
    """
    payloads = [part[5:].strip() for part in stream.split("\n\n") if part.startswith("data:")]
    if not payloads or payloads[-1] != "[DONE]":
        raise ValueError("the stream has no [DONE]")
    pieces = []
    for payload in payloads[:-1]:
        event = json.loads(payload)
        if "error" in event:
            raise ValueError("the stream reports an error")
        pieces += [choice["delta"].get("content") or "" for choice in event["choices"]]
    return "".join(pieces)


def _endless_tasks(seed: int, slices: Sequence[str]) -> Iterator[Task]:
    tasks = {name: fresh_tasks(name, seed) for name in slices}
    return (next(tasks[name]) for name in itertools.cycle(slices))
