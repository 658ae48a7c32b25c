"""Rollouts on real engines whose traffic is half `/v1/responses`.

`python -m benchmarks.real_responses`: starts the demo's baseline, int8 and int2 through `penumbra
up`, and asks fresh tasks, every other one by `/v1/responses`:

- int8 in shadow, then at 45 %: at how many pairs each channel of each slice is released, and that
  no request of a channel is answered by int8 before it is;
- int2 in shadow: how many mirrored requests until it is rolled back, and that no client gets an
  answer of it.

Tolerances are those of deployments/examples/rollouts. Writes Markdown to standard output.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.real_rollout import (
    CLIENTS,
    EXAMPLES,
    POLL_SECONDS,
    Admin,
    View,
    installation,
    shadow_spec,
)
from penumbra.deployments.config.rollout_loader import load_rollout
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.demo.tasks import Task, fresh_tasks, is_correct
from penumbra.serve.demo.traffic import MODEL, client

FOLDER = Path(__file__).parent / ".build" / "real_responses"
CHAT, RESPONSES = "chat", "responses"
LIVE_PERCENT = 45.0
ENOUGH_LIVE = 20
"""Answers of the candidate by each route after which a run is over."""
_MAX_TOKENS = 96
_OK = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """Result of one request."""

    route: str
    slice: str
    variant: str
    epoch: int
    is_right: bool


@dataclass(slots=True)
class HalfResponses:
    """Clients that ask every other task by `/v1/responses`, until they are stopped."""

    base_url: str
    slices: tuple[str, ...]
    seed: int
    replies: list[Reply] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Traffic flows inside this context."""
        rounds = zip(*(fresh_tasks(name, self.seed) for name in self.slices), strict=True)
        tasks, turns = itertools.chain.from_iterable(rounds), itertools.count()
        async with asyncio.TaskGroup() as group:

            async def ask_on() -> None:
                async with client(self.base_url) as http:
                    while True:
                        turn = next(turns) // len(self.slices)
                        await self._ask(http, next(tasks), (CHAT, RESPONSES)[turn % 2])

            asking = [group.create_task(ask_on()) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                for task in asking:
                    task.cancel()

    async def _ask(self, http: httpx.AsyncClient, task: Task, route: str) -> None:
        """Ask one task at temperature 0; never raises for what a server does."""
        body: dict[str, Any] = {"model": MODEL, "temperature": 0}
        if route == CHAT:
            path = "/v1/chat/completions"
            body["messages"] = [{"role": "user", "content": task.prompt}]
            body["max_tokens"] = _MAX_TOKENS
        else:
            path = "/v1/responses"
            body["input"], body["max_output_tokens"] = task.prompt, _MAX_TOKENS
        try:
            answer = await http.post(path, json=body)
            if answer.status_code != _OK:
                self.errors.append(f"{route}: status {answer.status_code}")
                return
            text = _text_of(route, answer.json())
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            self.errors.append(f"{route}: {type(error).__name__}")
            return
        variant = answer.headers.get("x-penumbra-variant", "")
        epoch = int(answer.headers.get("x-penumbra-epoch", 0))
        self.replies.append(Reply(route, task.slice, variant, epoch, is_correct(task, text)))

    def answered(self, variant: str) -> Counter[str]:
        """Answers of a variant by route."""
        return Counter(reply.route for reply in self.replies if reply.variant == variant)


def _text_of(route: str, answer: Any) -> str:
    if route == CHAT:
        return answer["choices"][0]["message"]["content"] or ""
    parts = [part for item in answer["output"] for part in item.get("content") or ()]
    return "".join(part.get("text") or "" for part in parts)


@dataclass(slots=True)
class Channel:
    """State of a route in a slice, as it was polled."""

    closed_epoch: int = 0
    """The newest epoch at which it was seen closed."""
    released: tuple[int, int, float] | None = None
    """Pairs of the run and of the channel, and seconds, when it was first seen released."""


def note_channels(channels: dict[tuple[str, str], Channel], view: View, seconds: float) -> None:
    """Note which channels are released."""
    for told in view["channels"]:
        channel = channels.setdefault((told["slice"], told["channel"]), Channel())
        if channel.released is not None:
            continue
        if told["is_released"] and view["share"] > 0:
            channel.released = (view["pairs"], told["pairs"], seconds)
        else:
            channel.closed_epoch = view["epoch"]


async def run_good_build(admin: Admin, traffic: HalfResponses, seconds: float) -> list[str]:
    """Run int8 up to a live stage; returns table rows."""
    spec = load_rollout(EXAMPLES / "rollouts" / "int8.yaml")
    await admin.apply(spec.model_copy(update={"stages": ("shadow", LIVE_PERCENT)}))
    channels: dict[tuple[str, str], Channel] = {}
    began = time.monotonic()
    async with traffic.flowing():
        while (took := time.monotonic() - began) < seconds:
            await asyncio.sleep(POLL_SECONDS)
            view = await admin.view("int8")
            note_channels(channels, view, took)
            live = traffic.answered("int8")
            if view["stage"] == "rolled_back" or min(live[CHAT], live[RESPONSES]) >= ENOUGH_LIVE:
                break
    await admin.do("end", "int8")
    rows = [_channel_row(key, channel, traffic) for key, channel in sorted(channels.items())]
    live = traffic.answered("int8")
    rows.append(
        f"\nint8: stage {view['stage']}, {view['pairs']} pairs in {took:.0f} s; clients got"
        f" {live[CHAT]} chats and {live[RESPONSES]} responses of it; {len(traffic.errors)} errors."
    )
    return rows


def _channel_row(key: tuple[str, str], channel: Channel, traffic: HalfResponses) -> str:
    slice_name, route = key
    own = [
        reply
        for reply in traffic.replies
        if (reply.slice, reply.route, reply.variant) == (slice_name, route, "int8")
    ]
    early = sum(reply.epoch <= channel.closed_epoch for reply in own)
    if channel.released is None:
        released = "no | - | -"
    else:
        pairs, own_pairs, seconds = channel.released
        released = f"{pairs} | {own_pairs} | {seconds:.0f}"
    return f"| {slice_name} | {route} | {released} | {early} | {len(own)} |"


async def run_bad_build(admin: Admin, traffic: HalfResponses, seconds: float) -> str:
    """Run int2 in shadow; returns a sentence."""
    await admin.apply(shadow_spec("int2", "int2"))
    began = time.monotonic()
    async with traffic.flowing():
        while (took := time.monotonic() - began) < seconds:
            await asyncio.sleep(POLL_SECONDS)
            view = await admin.view("int2")
            if view["stage"] == "rolled_back":
                break
    if view["stage"] != "rolled_back":
        return f"int2: NOT rolled back in {view['pairs']} pairs and {took:.0f} s."
    explained = await admin.view("int2", "/explain")
    pairs: Counter[str] = Counter()
    for told in view["channels"]:
        pairs[told["channel"]] += told["pairs"]
    channels = ", ".join(f"{name} {count}" for name, count in pairs.items())
    got = traffic.answered("int2")
    culprits = ", ".join(explained["culprits"]) or f"none (most: {explained['suspect']})"
    return (
        f"int2: rolled back by {explained['signal']} after {explained['pairs']} mirrored requests"
        f" ({channels}) and {took:.1f} s; culprits {culprits}; clients got {sum(got.values())}"
        f" answers of it; {len(traffic.errors)} errors."
    )


async def measure(spec: PenumbraSpec, options: argparse.Namespace) -> str:
    """Run both rollouts; returns Markdown."""
    admin, url = Admin(spec), f"http://{spec.gateway.host}:{spec.gateway.port}"
    slices = tuple(options.slices.split(","))
    bad = await run_bad_build(admin, HalfResponses(url, slices, options.seed + 100), 120)
    sys.stderr.write(bad + "\n")
    good = await run_good_build(admin, HalfResponses(url, slices, options.seed), options.seconds)
    return "\n".join(
        [
            "| slice | channel | released at pairs | of its own | seconds |"
            " answers of int8 before | in all |",
            "|---|---|---|---|---|---|---|",
            *good,
            "",
            bad,
            "",
        ]
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="at most, for int8")
    parser.add_argument("--slices", default="facts,recall", help="slices that are asked, in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port-offset", type=int, default=0, help="added to the demo's ports")
    options = parser.parse_args()

    def choose(variants: dict[str, Any]) -> dict[str, Any]:
        return {name: variants[name] for name in ("full", "int8", "int2")}

    with installation(choose, FOLDER, options.port_offset) as spec:
        sys.stdout.write(asyncio.run(measure(spec, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
