"""Cost of the tap in the engine: what token ids and log-probabilities of answers cost real vLLM.

Run: `python -m benchmarks.engine_tap --weights FOLDER [--rounds 8]`. One engine on one core,
`STREAMS` greedy streams of `TOKENS` tokens each; the three kinds of requests take turns within each
round, so that they meet the same machine. Prints Markdown: tokens a second, and the ratio to plain
requests, median and range over the rounds.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.support.vllm_process import VllmProcess

STREAMS = 16
TOKENS = 96
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "token ids": {"return_token_ids": True},
    "token ids and log-probabilities": {"return_token_ids": True, "logprobs": 0},
}


async def _stream(client: httpx.AsyncClient, number: int, more: dict[str, Any]) -> None:
    body = {
        "model": "demo",
        "prompt": [100 + (17 * number + at) % 90 for at in range(64)],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        **more,
    }
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for _ in response.aiter_bytes():
            pass


async def _rate(client: httpx.AsyncClient, more: dict[str, Any]) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(_stream(client, number, more) for number in range(STREAMS)))
    return STREAMS * TOKENS / (time.perf_counter() - began)


async def _measure(url: str, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        for more in KINDS.values():
            await _rate(client, more)  # warm
        for number in range(rounds):
            kinds = list(KINDS) if number % 2 else list(KINDS)[::-1]
            for kind in kinds:
                found[kind].append(await _rate(client, KINDS[kind]))
    return found


def main() -> None:
    """Run it, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        VllmProcess(given.weights, Path(folder), core=1) as engine,
    ):
        engine.wait_until_ready()
        found = asyncio.run(_measure(engine.url, given.rounds))
    plain = found["plain"]
    print(f"{STREAMS} streams of {TOKENS} tokens, {given.rounds} rounds\n")
    print("| requests | tokens/s, median | beside plain, median (range) |\n|---|---:|---|")
    for kind, rates in found.items():
        ratios = [100 * (own / other - 1) for own, other in zip(rates, plain, strict=True)]
        told = f"{statistics.median(ratios):+.1f} % ({min(ratios):+.1f} to {max(ratios):+.1f})"
        print(f"| {kind} | {statistics.median(rates):.0f} | {told if kind != 'plain' else '-'} |")


if __name__ == "__main__":
    main()
