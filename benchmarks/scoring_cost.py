"""Measures the cost of scoring beside answering, and the builds' distance, on running engines.

Asks the demo's held-out tasks of the baseline, then teacher-forces its own tokens through every
build, and prints Markdown tables: cost of a score against a whole mirrored answer, against the
bare prefill, and displacement by slice.

    python -m penumbra.serve.demo.prepare --out var/demo/variants
    penumbra up -f deployments/examples/demo.yaml --detach
    python benchmarks/scoring_cost.py --tasks 60
    penumbra down -f deployments/examples/demo.yaml

Loopback only; a bounded number of requests.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from penumbra.monitoring.signals.displacement import Displacement, compare  # noqa: E402
from penumbra.router.upstream.calls import fetch, fetch_json, json_request  # noqa: E402
from penumbra.router.upstream.http import HttpUpstream  # noqa: E402
from penumbra.router.upstream.port import Scores  # noqa: E402
from penumbra.serve.demo.tasks import SLICES, make_tasks  # noqa: E402

MODEL = "demo"
ANSWER_TOKENS = 96
SEED = 7
TURNS = 3
LONG_PROMPT_TOKENS = 900
LONG_ANSWER_TOKENS = 256

Body = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One answered task."""

    slice: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """Both, in order."""
        return [*self.prompt_ids, *self.answer_ids]


@dataclass
class Timing:
    """Seconds that the requests of one kind took."""

    seconds: float = 0.0
    answer_bytes: list[int] = field(default_factory=list)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="http://127.0.0.1:8000", help="where the engines answer")
    parser.add_argument("--variants", default="full,int8,int4,int2", help="the baseline first")
    parser.add_argument("--tasks", type=int, default=60, help="tasks of each slice")
    parser.add_argument("--timed", type=int, default=48, help="tasks that are also timed")
    parser.add_argument("--raw", type=Path, help="where every pair's displacement goes, as JSON")
    parser.add_argument("--prefix", default=f"/{MODEL}-", help="what a variant's route begins with")
    arguments = parser.parse_args()
    print(asyncio.run(_measure(arguments)))
    return 0


async def _measure(arguments: argparse.Namespace) -> str:
    names = arguments.variants.split(",")
    builds = {
        name: HttpUpstream(MODEL, f"{arguments.base}{arguments.prefix}{name}") for name in names
    }
    try:
        cases = await _answered(builds[names[0]], arguments.tasks)
        lines = [f"{len(cases)} tasks, {len(SLICES)} slices.", ""]
        table, raw = await _displacements(builds, names[0], cases)
        lines += table
        if arguments.raw:
            arguments.raw.write_text(json.dumps(raw))
        timed = cases[:: max(1, len(cases) // arguments.timed)][: arguments.timed]
        for shape, shaped in (await _shapes(builds[names[0]], timed)).items():
            for name in names[:2] if not shape else names[:1]:
                for at_once in (1, 8):
                    lines += ["", *await _costs(name, builds[name], shaped, at_once)]
    finally:
        for build in builds.values():
            build.close()
    return "\n".join(lines)


async def _answered(baseline: HttpUpstream, count: int) -> list[Case]:
    async def one(slice_name: str, prompt: str) -> Case:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "return_token_ids": True,
        }
        answer = await fetch_json(baseline, json_request("/v1/chat/completions", body))
        ids = answer["choices"][0]["token_ids"]
        return Case(slice_name, tuple(answer["prompt_token_ids"]), tuple(ids))

    # Without repeats: a prompt is one bet.
    asked = [
        (name, prompt)
        for name in SLICES
        for prompt in dict.fromkeys(task.prompt for task in make_tasks(name, count, SEED))
    ]
    cases = await _all(8, [partial(one, *pair) for pair in asked])
    return [cases[index] for index in _interleaved(cases)]


def _interleaved(cases: Sequence[Case]) -> list[int]:
    seen: dict[str, int] = defaultdict(int)
    order = []
    for index, case in enumerate(cases):
        seen[case.slice] += 1
        order.append((seen[case.slice], index))
    return [index for _, index in sorted(order)]


# Displacement


async def _displacements(
    builds: dict[str, HttpUpstream], baseline: str, cases: Sequence[Case]
) -> tuple[list[str], dict[str, list[tuple[str, float]]]]:
    own = await _scores(builds[baseline], cases)
    again = await _scores(builds[baseline], list(reversed(cases)))
    others = {f"{baseline} again": again[::-1]}
    for name, build in builds.items():
        if name != baseline:
            others[name] = await _scores(build, cases)
    lines = [
        "| build | slice | n | mean | sd | median | p90 | max | top-1 | KL | largest gap, nats |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    raw: dict[str, list[tuple[str, float]]] = {}
    for name, scores in others.items():
        raw[name] = [
            (case.slice, _compared(mine, theirs).displacement or 0.0)
            for case, mine, theirs in zip(cases, own, scores, strict=True)
        ]
        for slice_name in (*SLICES, "all"):
            chosen = [
                (mine, theirs)
                for case, mine, theirs in zip(cases, own, scores, strict=True)
                if slice_name in (case.slice, "all")
            ]
            lines.append(f"| {name} | {slice_name} | {_row(chosen)} |")
    return lines, raw


def _compared(own: Scores, other: Scores) -> Displacement:
    return compare(own.logprobs, other.logprobs, own.top_ids, other.top_ids)


def _row(pairs: Sequence[tuple[Scores, Scores]]) -> str:
    found = [_compared(a, b) for a, b in pairs]
    values = sorted(item.displacement or 0.0 for item in found)
    gap = max(abs(x - y) for a, b in pairs for x, y in zip(a.logprobs, b.logprobs, strict=True))
    figures = [
        statistics.fmean(values),
        statistics.pstdev(values),
        statistics.median(values),
        values[int(0.9 * len(values))],
        values[-1],
        statistics.fmean(item.agreement or 0.0 for item in found),
        statistics.fmean(item.kl or 0.0 for item in found),
        gap,
    ]
    return " | ".join([str(len(values)), *(f"{figure:.4f}" for figure in figures)])


async def _scores(build: HttpUpstream, cases: Sequence[Case]) -> list[Scores]:
    return await _all(4, [partial(build.score, c.ids, len(c.prompt_ids)) for c in cases])


# Cost


def _answering(case: Case, salt: str) -> Body:
    count = len(case.answer_ids)
    prompt = {"prompt": case.prompt_ids, "cache_salt": salt}
    return {**prompt, "max_tokens": count, "min_tokens": count, "temperature": 0}


def _prefill(case: Case, salt: str, **more: int) -> Body:
    # A salt of its own: the bare prefill must not find the answer in the prefix cache.
    body = {"prompt": case.ids, "max_tokens": 1, "temperature": 0, "cache_salt": salt}
    return {**body, **more}


def _compact(case: Case, salt: str) -> Body:
    return {"token_ids": case.ids, "start": len(case.prompt_ids)}


COMPLETIONS = "/v1/completions"
KINDS: dict[str, tuple[str, Callable[[Case, str], Body]]] = {
    "answer it whole (full mirroring)": (COMPLETIONS, _answering),
    "score, completions API": (COMPLETIONS, partial(_prefill, prompt_logprobs=1)),
    "score, completions API, no alternative": (COMPLETIONS, partial(_prefill, prompt_logprobs=0)),
    "score, own route": ("/penumbra/v1/score", _compact),
    "bare prefill, nothing scored": (COMPLETIONS, _prefill),
}


async def _costs(name: str, build: HttpUpstream, cases: Sequence[Case], at_once: int) -> list[str]:
    async def send(kind: str, case: Case, salt: str) -> None:
        path, body = KINDS[kind]
        request = json_request(path, {"model": MODEL, **body(case, salt)})
        answer = await fetch(build, request)
        if answer.status != 200:
            raise SystemExit(f"{name}: {answer.status} to {kind}: {answer.body[:200]!r}")
        timings[kind].answer_bytes.append(len(answer.body))

    timings = {kind: Timing() for kind in KINDS}
    salts = itertools.count()
    # In turn, so that whatever else the machine does hits all kinds alike.
    for _ in range(TURNS):
        for kind, timing in timings.items():
            calls = [partial(send, kind, case, str(next(salts))) for case in cases]
            started = time.perf_counter()
            await _all(at_once, calls)
            timing.seconds += time.perf_counter() - started
    return _cost_table(name, cases, at_once, timings)


async def _shapes(build: HttpUpstream, cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The tasks as they are, with long prompts, and with long answers."""
    long_prompts = []
    for case in cases:
        times = LONG_PROMPT_TOKENS // len(case.prompt_ids) + 1
        prompt = (case.prompt_ids * times)[:LONG_PROMPT_TOKENS]
        long_prompts.append(Case(case.slice, prompt, case.answer_ids))

    async def prolong(case: Case) -> Case:
        count = LONG_ANSWER_TOKENS
        body = {
            "model": MODEL,
            "prompt": case.prompt_ids,
            "temperature": 0,
            "max_tokens": count,
            "min_tokens": count,
            "return_token_ids": True,
        }
        answer = await fetch_json(build, json_request(COMPLETIONS, body))
        return Case(case.slice, case.prompt_ids, tuple(answer["choices"][0]["token_ids"]))

    short = [case for case in cases if len(case.prompt_ids) < LONG_PROMPT_TOKENS // 2]
    long_answers = await _all(8, [partial(prolong, case) for case in short])
    return {"": list(cases), "long prompts": long_prompts, "long answers": long_answers}


def _cost_table(
    name: str, cases: Sequence[Case], at_once: int, timings: dict[str, Timing]
) -> list[str]:
    whole = next(iter(timings.values())).seconds
    prompt = statistics.fmean(len(case.prompt_ids) for case in cases)
    answer = statistics.fmean(len(case.answer_ids) for case in cases)
    lines = [
        f"{name}, {at_once} at once; prompts of {prompt:.0f} and answers of {answer:.0f} tokens.",
        "",
        "| request | ms each | share of answering | answer, KiB |",
        "|---|---|---|---|",
    ]
    for kind, timing in timings.items():
        each = 1000 * timing.seconds / len(timing.answer_bytes)
        size = statistics.fmean(timing.answer_bytes) / 1024
        lines.append(f"| {kind} | {each:.1f} | {timing.seconds / whole:.3f} | {size:.1f} |")
    return lines


async def _all(at_once: int, calls: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
    limit = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Awaitable[Any]]) -> Any:
        async with limit:
            return await call()

    return await asyncio.gather(*(one(call) for call in calls))


if __name__ == "__main__":
    sys.exit(main())
