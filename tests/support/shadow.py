"""A comparator on builds in memory, for its tests."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penumbra.monitoring.observations import Pair, Run, ScorerTest, SelfTest, Trip
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Variant, Watch
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.admission import Gauges
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.comparator import Comparator
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import WatchList
from penumbra.router.upstream.fake import (
    Body,
    End,
    FakeUpstream,
    Hang,
    Head,
    Script,
    scored,
    whole,
)
from penumbra.router.upstream.port import Upstream, UpstreamRequest
from tests.support.mirrored import ANSWER_IDS, PROMPT_IDS

METRICS = """\
vllm:num_requests_running{{engine="0"}} {running}
vllm:num_requests_waiting{{engine="0"}} {waiting}
vllm:kv_cache_usage_perc{{engine="0"}} {kv}
"""


@dataclass
class Build:
    """A fake engine and the replies that it gives."""

    shift: float = 0.0
    """Added to its log-probabilities."""
    decode_shift: float = 0.0
    """Added to those of its decoding alone."""
    score_shift: float = 0.0
    """The part of `shift` that its decoding does not have: a fault of its scorer."""
    says: tuple[int, ...] = ANSWER_IDS
    """The tokens of its answers, told when they are asked for."""
    knows_decoding: bool = True
    """Whether it takes a request for log-probabilities."""
    text: str = "It rains in Zürich."
    status: int = 200
    score: Script | None = None
    """Instead of its scores."""
    first_scores: list[Script] = field(default_factory=list)
    """Instead of the first of them."""
    answer: Script | None = None
    """Instead of its answers."""
    is_healthy: bool = True
    running: int = 0
    waiting: int = 0
    version: str = "fake-1"
    context_tokens: int = 1024
    requests: list[UpstreamRequest] = field(default_factory=list)

    def __call__(self, request: UpstreamRequest) -> Script:
        self.requests.append(request)
        match request.path:
            case b"/v1/completions":
                return self._complete(json.loads(request.body))
            case b"/v1/chat/completions":
                return self._chat(json.loads(request.body))
            case b"/v1/responses" | b"/v1/messages":
                return self.answer or whole(self.said(request.path), self.status)
            case b"/metrics":
                told = METRICS.format(running=self.running, waiting=self.waiting, kv=0.1)
                return (Head(), Body(told.encode()), End())
            case b"/health":
                return whole({}, 200 if self.is_healthy else 503)
            case b"/version":
                return whole({"version": self.version})
            case _:
                return whole({"data": [{"id": "demo", "max_model_len": self.context_tokens}]})

    def _complete(self, body: dict[str, Any]) -> Script:
        if "prompt_logprobs" not in body:
            return whole(self.completion(body), self.status)
        if self.first_scores:
            return self.first_scores.pop(0)
        return self.score or whole(scored(body, self.shift), self.status)

    def _chat(self, body: dict[str, Any]) -> Script:
        if body.get("logprobs") and not self.knows_decoding:
            return whole({"error": {"message": "logprobs is not supported"}}, 400)
        return self.answer or whole(self.chat(body), self.status)

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if not body.get("return_token_ids"):
            return {"choices": [choice]}
        told = {**choice, "token_ids": self.says, "logprobs": self.decoding()}
        return {"choices": [told], "prompt_token_ids": PROMPT_IDS}

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """Its answer to a prompt of token ids, greedily or not."""
        prompt = body["prompt"]
        choice = {"index": 0, "text": self.text, "finish_reason": "length"}
        if not self.knows_decoding:
            return {"choices": [choice]}
        logprobs = [row["logprob"] for row in self.decoding(prompt)["content"]]
        rows = {"token_logprobs": logprobs}
        told = {"prompt_token_ids": prompt, "token_ids": self.says, "logprobs": rows}
        return {"choices": [{**choice, **told}]}

    def decoding(self, prompt: Sequence[int] = PROMPT_IDS) -> dict[str, Any]:
        """Its decoding's log-probabilities of what it says: those of its scores, and the shift."""
        ids = [*prompt, *self.says]
        shift = self.shift - self.score_shift
        rows = scored({"prompt": ids, "prompt_logprobs": 0}, shift)["choices"][0]
        logprobs = [
            row[str(token)]["logprob"] + self.decode_shift
            for row, token in zip(rows["prompt_logprobs"], ids, strict=True)
            if row is not None
        ][len(prompt) - 1 :]
        return {"content": [{"token": "x", "logprob": value} for value in logprobs]}

    def said(self, path: bytes) -> dict[str, Any]:
        """Its answer by a route other than that of chats."""
        return self.response() if path == b"/v1/responses" else self.message()

    def response(self) -> dict[str, Any]:
        part = {"type": "output_text", "text": self.text}
        output = [{"type": "message", "role": "assistant", "content": [part]}]
        return {"id": "resp_1", "status": "completed", "output": output}

    def message(self) -> dict[str, Any]:
        content = [{"type": "text", "text": self.text}]
        return {"type": "message", "content": content, "stop_reason": "end_turn"}

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Bodies of the requests on a path."""
        return [json.loads(r.body) for r in self.requests if r.path == path.encode()]

    @property
    def scores(self) -> list[dict[str, Any]]:
        """Bodies of the scores that it was asked for."""
        return [json.loads(r.body) for r in self.requests if r.path == b"/v1/completions"]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Bodies of the answers that it was asked for."""
        return [json.loads(r.body) for r in self.requests if r.path == b"/v1/chat/completions"]


HANGING: Script = (Hang(),)


class Reports:
    """Stores the observations that are reported."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Run, Pair]] = []
        self.trips: list[tuple[Run, Trip]] = []
        self.self_tests: list[tuple[Run, SelfTest]] = []
        self.scorer_tests: list[tuple[Run, ScorerTest]] = []
        self.sheds: list[tuple[str, str]] = []
        self.fingerprints: list[tuple[str, str, str]] = []
        self.builds: dict[str, dict[str, str]] = {}

    def pair(self, run: Run, pair: Pair) -> None:
        self.pairs.append((run, pair))

    def trip(self, run: Run, trip: Trip) -> None:
        self.trips.append((run, trip))

    def self_test(self, run: Run, test: SelfTest) -> None:
        self.self_tests.append((run, test))

    def scorer_test(self, run: Run, test: ScorerTest) -> None:
        self.scorer_tests.append((run, test))

    def shed(self, run: Run, slice_name: str, reason: str) -> None:
        self.sheds.append((run.candidate, reason))

    def fingerprint(self, run: Run, variant: str, digest: str, facts: Mapping[str, str]) -> None:
        self.fingerprints.append((run.candidate, variant, digest))
        self.builds[variant] = dict(facts)


class Time:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds


class ComparatorSetup:
    """A comparator, its builds, its clock and its reports."""

    def __init__(self, *watches: Watch, **settings: Any) -> None:
        names = ("full", *dict.fromkeys(watch.candidate for watch in watches))
        self.builds = {name: Build() for name in names}
        self.reports = Reports()
        self.time = Time()
        told = {"control_url": "http://127.0.0.1:9", "socket_path": Path("unused"), **settings}
        self.settings = ShadowSettings.model_validate(told)
        self.watched = WatchList(self._connect, self.settings.bets)
        clocks = Clocks(self.time.now, lambda: 1_800_000_000.0 + self.time.seconds)
        self.clocks = clocks
        self.facts = EngineFacts(self.settings, clocks)
        self.comparator = Comparator(self.settings, self.watched, self.facts, self.reports, clocks)
        self.apply(1, *watches)

    def apply(self, epoch: int, *watches: Watch) -> None:
        """Put a routing table into force."""
        variants = {name: Variant(url=f"http://{name}") for name in self.builds}
        model = ModelSnapshot(baseline="full", variants=variants, watches=watches)
        self.watched.apply(Snapshot(epoch=epoch, models={"demo": model}))

    def _connect(self, model: str, variant: Variant, api_key: str | None) -> Upstream:
        return FakeUpstream(model, self.builds[variant.url.removeprefix("http://")])

    def report_gauges(self, **busy: Gauges) -> None:
        """Every engine tells now how busy it is: idle, unless said."""
        for name in self.builds:
            self.facts.note_gauges("demo", name, busy.get(name, Gauges(0, 0, 0.0)))

    @property
    def pairs(self) -> list[Pair]:
        return [pair for _, pair in self.reports.pairs]

    def shed_reasons(self) -> Iterator[str]:
        return (reason for _, reason in self.reports.sheds)


def watch(candidate: str = "int8", **fields: Any) -> Watch:
    """Make a watch that mirrors everything and generates nothing, without A/A unless given."""
    told = {"run": f"run-{candidate}", "mirror": 1.0, "generate": 0.0, "aa": 0.0}
    return Watch.model_validate({"candidate": candidate, **told, **fields})


@contextlib.asynccontextmanager
async def running(setup: ComparatorSetup) -> AsyncIterator[None]:
    task = asyncio.create_task(setup.comparator.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_true():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)


async def compare(setup: ComparatorSetup, *requests: MirrorFrame, expected: int = 1) -> None:
    """Offer mirrored requests and wait for so many pairs and sheds together."""
    async with running(setup):
        for request in requests:
            setup.comparator.offer(request, 100)
        reports = setup.reports
        await until(lambda: len(reports.pairs) + len(reports.sheds) >= expected)
