import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from penumbra.router.upstream.scoring_wire import SHORT_PATH, read_short
from penumbra.serve.hosting.scoring import add_scoring_route


@dataclass
class Rows:
    """vLLM's `FlatLogprobs`, as far as it is used."""

    start_indices: list[int] = field(default_factory=list)
    end_indices: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.start_indices)

    def add(self, *entries: tuple[int, float]) -> None:
        self.start_indices.append(len(self.token_ids))
        self.token_ids += [token for token, _ in entries]
        self.logprobs += [logprob for _, logprob in entries]
        self.end_indices.append(len(self.token_ids))


class Engine:
    """Scores token t as -t/10, with t + 1 as the greedy choice; token 7 as NaN."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    async def generate(self, prompt: Any, sampling: Any, identity: str) -> AsyncIterator[Any]:
        self.asked.append((prompt, sampling))
        rows = Rows()
        for position, token in enumerate(prompt["prompt_token_ids"]):
            logprob = math.nan if token == 7 else -token / 10
            rows.add(*([(token, logprob), (token + 1, -0.1)] if position else []))
        yield SimpleNamespace(prompt_logprobs=rows)
        yield SimpleNamespace(prompt_logprobs=None)


async def post(body: object) -> tuple[httpx.Response, Engine]:
    app, engine = Starlette(), Engine()
    app.state.engine_client = engine
    add_scoring_route(app, make_sampling=lambda: "sampling")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        return await client.post(SHORT_PATH, json=body), engine


async def test_only_the_responses_rows_come_back() -> None:
    answer, engine = await post({"token_ids": [1, 2, 3, 4], "start": 2})
    assert answer.json() == {
        "logprobs": [-0.3, -0.4],
        "top_ids": [4, 5],
        "top_logprobs": [-0.1, -0.1],
    }
    assert engine.asked == [({"prompt_token_ids": [1, 2, 3, 4]}, "sampling")]


async def test_the_router_reads_what_the_replica_writes() -> None:
    answer, _ = await post({"token_ids": [1, 2, 7, 4], "start": 1})
    scores = read_short(answer.content, [1, 2, 7, 4], 1)
    assert scores.top_ids == (3, 8, 5)
    assert scores.logprobs[0] == -0.2
    assert math.isnan(scores.logprobs[1])


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"token_ids": "abc", "start": 1},
        {"token_ids": [1, 2], "start": 2},
        {"token_ids": [1, 2], "start": 0},
        {"token_ids": [1, "2"], "start": 1},
        {"token_ids": [1, True], "start": 1},
        {"token_ids": [1, 2], "start": 1.0},
    ],
)
async def test_what_cannot_be_scored_is_refused(body: object) -> None:
    answer, engine = await post(body)
    assert answer.status_code == 400
    assert "token_ids" in answer.json()["error"]["message"]
    assert engine.asked == []
