"""A monitored installation on real engines, and the run that it goes through.

Two gateways, a comparator and a control process of their own stand before engines that run already,
with Prometheus and Alertmanager beside them on the files that ship, and a collector that gets every
trace. The comparator's link to the control process is a cable that can be cut: then it goes on
comparing, and the guard hears nothing.

Reading order: Monitored, play.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from penumbra.deployments.config.rollout_loader import load_rollout
from penumbra.serve.demo.tasks import SLICES
from penumbra.serve.demo.traffic import Traffic, TrafficCounts
from tests.support.cable import Cable
from tests.support.control_process import ADMIN, ALERT, GATEWAY, ControlProcess, external
from tests.support.gateway_process import ROOT, GatewayProcess, eventually, free_port
from tests.support.otlp import collecting
from tests.support.prometheus import Alertmanager, Prometheus, wait_for_targets

EXAMPLES = ROOT / "deployments" / "examples"
LEASE_SECONDS = 60.0
"""Long, so that what ends a live share is the second line and not the lease."""
SHARE = 20.0
"""Percent of the traffic that gets the bad build."""
PROVEN = ("arithmetic", "json")
"""Slices that the good build is asked; each is proven within a minute."""
CLIENTS = 3
"""For each gateway."""
PAUSE_SECONDS = 0.8
"""Between two requests of one client: on two cores everything must answer a scrape in a second."""
POLL_SECONDS = 0.1
SETTLE_SECONDS = 3.0
"""Three scrapes: what a process counted last is in Prometheus."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One rollback of the bad build from live traffic."""

    actor: str
    seconds: float
    """From the first client's answer by it to the durable rollback."""
    answers: int
    """Answers of the bad build that clients got."""


@dataclass
class Story:
    """Record of the run's actions, to compare with the measurements."""

    began_at: float = 0.0
    promoted_at: float = 0.0
    """The good build is through all stages, and nothing is asked."""
    ended_at: float = 0.0
    """Unix seconds."""
    all_counts: list[TrafficCounts] = field(default_factory=list)
    guard: Stop | None = None
    second_line: Stop | None = None
    views: dict[str, Any] = field(default_factory=dict)
    """Candidate -> what the admin API said of its rollout when its part was over."""

    @property
    def answers(self) -> dict[str, int]:
        """Variant -> answers that clients got."""
        answers: Counter[str] = Counter()
        for counts in self.all_counts:
            answers.update(counts.by_variant)
        return dict(answers)

    @property
    def errors(self) -> list[str]:
        """Errors that clients saw."""
        return [error for counts in self.all_counts for error in counts.errors]

    @property
    def judged(self) -> int:
        """Judgements that clients gave."""
        return sum(counts.judged for counts in self.all_counts)


class Monitored:
    """All processes of the run.

    Args:
        folder: For their files.
        urls: Variant -> where its engine answers; `full` is the baseline.
    """

    def __init__(self, folder: Path, urls: Mapping[str, str]) -> None:
        self.folder = folder
        slices = yaml.safe_load((EXAMPLES / "demo.yaml").read_text())["models"]["demo"]["slices"]
        self._models = {"demo": external(**urls) | {"slices": slices}}
        self.control = ControlProcess(folder, self._models, {"lease_seconds": LEASE_SECONDS})
        self.comparator_port = free_port()
        self._socket = folder / "shadow.sock"
        self.stack = ExitStack()

    def __enter__(self) -> "Monitored":
        with ExitStack() as stack:
            stack.enter_context(self.control)
            self.cable = stack.enter_context(Cable(self.control.port))
            self.comparator = stack.enter_context(self._comparator())
            self.collector = stack.enter_context(collecting())
            self.gateways = [stack.enter_context(self._gateway(number)) for number in range(2)]
            webhook = f"{self.control.url}/admin/v1/alerts"
            alertmanager = Alertmanager(self.folder, webhook, ALERT)
            self.alertmanager = stack.enter_context(alertmanager)
            self.prometheus = stack.enter_context(
                Prometheus(
                    self.folder,
                    f"{self.control.url}/metrics/targets",
                    f"127.0.0.1:{alertmanager.port}",
                )
            )
            # Two gateways, a comparator, the control process and an engine for each variant.
            wait_for_targets(self.prometheus, 4 + len(self._models["demo"]["variants"]))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def processes(self) -> dict[str, str]:
        """Process -> URL of its own /metrics."""
        return {
            "control": f"{self.control.url}/metrics",
            "comparator-0": f"http://127.0.0.1:{self.comparator_port}/metrics",
            **{
                f"gateway-{number}": f"http://127.0.0.1:{gateway.internal_port}/metrics"
                for number, gateway in enumerate(self.gateways)
            },
        }

    def _gateway(self, number: int) -> GatewayProcess:
        settings = {
            "control_url": self.control.url,
            "gateway_id": f"gateway-{number}",
            "shadow_socket": str(self._socket),
            "snapshot": {"epoch": 0, "models": self._models},
        }
        environment = {"PENUMBRA_GATEWAY_TOKEN": GATEWAY, **self.collector.environment}
        return GatewayProcess(settings, self.folder, environment)

    @contextmanager
    def _comparator(self) -> Iterator[subprocess.Popen[bytes]]:
        settings = {
            "control_url": self.cable.url,
            "socket_path": str(self._socket),
            "internal_port": self.comparator_port,
            "limits": {"in_flight": 4},
            "budget": {"engine_seconds_per_minute": 480},
            "headroom": {"running": 32},
            "niceness": 0,  # two cores for all of this: its metrics must answer within a second
        }
        file = self.folder / "comparator.json"
        file.write_text(json.dumps(settings))
        with (self.folder / "comparator.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "penumbra.router.shadow", "--settings", str(file)],
                cwd=ROOT,
                env={**os.environ, "PENUMBRA_GATEWAY_TOKEN": GATEWAY},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            eventually(self._is_comparing, timeout=60.0, what="the comparator to be ready")
            yield process
        finally:
            process.kill()
            process.wait(5.0)

    def _is_comparing(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.comparator_port}/health").is_success
        except httpx.TransportError:
            return False

    # Commands

    def ask(self, path: str, **asked: Any) -> Any:
        """Read from the admin API."""
        headers = {"authorization": f"Bearer {ADMIN}"}
        answer = self.control.client.get(path, params=asked, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def rollout(self, candidate: str, part: str = "") -> Any:
        """The admin API's view of one rollout."""
        return self.ask(f"/rollouts/{candidate}{part}", model="demo")

    def apply(self, name: str, **more: Any) -> None:
        """Begin an example's rollout, with changes."""
        spec = load_rollout(EXAMPLES / "rollouts" / f"{name}.yaml").model_dump(mode="json")
        self._change("PUT", "/rollouts", {"spec": {**spec, **more}})

    def do(self, verb: str, candidate: str) -> None:
        """Send an action on a rollout."""
        self._change("POST", f"/rollouts/{candidate}/{verb}?model=demo", {})

    def share(self, candidate: str, percent: float) -> None:
        """Give a candidate a live share by a targeting rule, whatever its rollout says so far."""
        flag = self.ask("/flags/demo")
        rules = []
        if percent:
            rules = [{"name": "early", "match": {}, "split": {candidate: percent}}]
        wanted = {**flag["flag"], "rules": rules}
        self._change("PUT", "/flags/demo", {"flag": wanted}, {"if-match": str(flag["epoch"])})

    def _change(
        self, method: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        answer = self.control.client.request(
            method,
            path,
            json={**body, "reason": "the monitored run"},
            headers={"authorization": f"Bearer {ADMIN}", **(headers or {})},
        )
        assert answer.is_success, f"{method} {path}: {answer.text}"


# The run


async def play(monitored: Monitored) -> Story:
    """INT8 goes up; two bits are stopped live: by alerts while the guard is cut off, then by it."""
    story = Story(began_at=_now())
    await _good(monitored, story)
    await asyncio.to_thread(monitored.apply, "int2")
    await asyncio.sleep(SETTLE_SECONDS)  # the comparator knows what to compare
    monitored.cable.cut()
    story.second_line = await _bad(monitored, story, seed=31)
    monitored.cable.mend()
    monitored.do("rearm", "int2")
    await asyncio.sleep(SETTLE_SECONDS)
    story.guard = await _bad(monitored, story, seed=32)
    story.views["int2"] = monitored.rollout("int2")
    story.ended_at = _now()
    return story


async def _good(monitored: Monitored, story: Story) -> None:
    """INT8, from shadow to most of what is proven on shadow pairs; users judge meanwhile."""
    async with _traffic(monitored, story, 30, PROVEN, is_judging=True):
        await asyncio.to_thread(
            monitored.apply,
            "int8",
            stages=["shadow", 25, 45],
            gates={
                "pairs": 200,
                "slice_pairs": 100,
                "stage_seconds": 8,
                "stage_pairs": 10,
                "horizon": 20000,
            },
            mirror={"rate": 1.0, "generate": 0.8, "aa": 0.1},
        )
        await _until(monitored, "int8", lambda view: view["stage"] == "promoted", 300)
        await asyncio.sleep(SETTLE_SECONDS)
    await asyncio.sleep(SETTLE_SECONDS)  # what was mirrored last is compared and scraped
    story.views["int8"] = monitored.rollout("int8")
    await asyncio.sleep(SETTLE_SECONDS)
    story.promoted_at = _now()
    monitored.do("end", "int8")  # two cores cannot score three builds and answer as well


async def _bad(monitored: Monitored, story: Story, seed: int) -> Stop:
    """Two bits get a live share before anything is known of them."""
    await asyncio.to_thread(monitored.share, "int2", SHARE)
    async with _traffic(monitored, story, seed) as traffics:
        await _first_answer(traffics)
        began_at = _now()
        await _until(monitored, "int2", lambda view: view["stage"] == "rolled_back", 180)
        await asyncio.sleep(SETTLE_SECONDS)
        answers = sum(traffic.counts.by_variant["int2"] for traffic in traffics)
    await asyncio.sleep(SETTLE_SECONDS)  # the answers that clients got last are scraped
    event = monitored.rollout("int2", "/explain")
    await asyncio.to_thread(monitored.share, "int2", 0)
    acted_at = datetime.fromisoformat(event["at"]).timestamp()
    return Stop(event["actor"], acted_at - began_at, answers)


async def _first_answer(traffics: list[Traffic]) -> None:
    async with asyncio.timeout(60):
        while not any(traffic.counts.by_variant["int2"] for traffic in traffics):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _traffic(
    monitored: Monitored,
    story: Story,
    seed: int,
    slices: tuple[str, ...] = SLICES,
    *,
    is_judging: bool = False,
) -> AsyncIterator[list[Traffic]]:
    traffics = [
        Traffic(f"http://127.0.0.1:{gateway.port}", CLIENTS, seed * 10 + number, slices)
        for number, gateway in enumerate(monitored.gateways)
    ]
    for traffic in traffics:
        traffic.is_judging = is_judging
        traffic.pause_seconds = PAUSE_SECONDS
    async with AsyncExitStack() as stack:
        for traffic in traffics:
            await stack.enter_async_context(traffic.flowing())
        yield traffics
    story.all_counts += [traffic.counts for traffic in traffics]


async def _until(
    monitored: Monitored, candidate: str, is_true: Callable[[Any], bool], seconds: float
) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        view = await asyncio.to_thread(monitored.rollout, candidate)
        if is_true(view):
            return view
        assert time.monotonic() < deadline, f"not within {seconds} s: {view}"
        await asyncio.sleep(POLL_SECONDS)


def _now() -> float:
    """Unix seconds, what Prometheus counts by."""
    return datetime.now(UTC).timestamp()
