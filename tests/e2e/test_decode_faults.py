"""Faults that only decoding has, or only a scorer, planted into real vLLM engines by a plugin.

Both builds have the baseline's own weights, and all traffic is greedy. Each fault is judged as it
was before decodings were read, and as it is: by the shipped gateway, comparator, evidence and
decision.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from penumbra.deployments.evidence.run_evidence import RunEvidence
from penumbra.deployments.rollouts.decide import decide
from penumbra.deployments.rollouts.record import Phase, RolloutRecord, Verdict
from penumbra.deployments.rollouts.spec import Guardrail, MirrorRates, RolloutSpec
from penumbra.monitoring.observations import Arm, Pair, Run, RunReport, ScorerTest, Signal
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Variant, Watch
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.shadow.clocks import Clocks
from penumbra.router.shadow.comparator import Comparator
from penumbra.router.shadow.engine_facts import EngineFacts
from penumbra.router.shadow.scorer_tests import ScorerTests
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.shadow.watch_list import WatchList
from penumbra.router.upstream.http import HttpUpstream
from penumbra.router.upstream.port import Upstream
from penumbra.serve.demo.tasks import SLICES as TASK_SLICES
from penumbra.serve.demo.tasks import fresh_tasks
from tests.support.frame_sink import FrameSink
from tests.support.gateway_process import GatewayProcess, eventually
from tests.support.rollouts import NOW
from tests.support.shadow import Reports
from tests.support.vllm_process import VllmProcess

PAIRS = 60
MOST_CHARS = 300
"""Longest prompt; a token is a byte or two."""
RUN = Run("demo", "twin", "twin-1")
SLICES = ("other",)
WATCH = Watch(candidate=RUN.candidate, run=RUN.id, mirror=1.0, generate=1.0, aa=0.05)
DISPLACEMENT = Guardrail(signal=Signal.DISPLACEMENT, tolerance=0.03, action="rollback", share=0.3)
HARM = Guardrail(signal=Signal.HARM, tolerance=0.05, action="rollback", share=0.4)
DECODE_GAP = Guardrail(signal=Signal.DECODE_GAP, tolerance=0.01, action="rollback", share=0.1)
OTHER_ENGINE = (
    "--kv-cache-dtype", "fp8", "--enable-prefix-caching", "--no-enable-chunked-prefill",
)  # fmt: skip
"""Arguments that change the engine, and no weights: within tolerance without a fault."""
BEFORE, NOW_GUARDED = (DISPLACEMENT, HARM), (DISPLACEMENT, HARM, DECODE_GAP)


@dataclass
class Outcome:
    """The end of one rollout."""

    record: RolloutRecord
    pairs: list[Pair] = field(default_factory=list)
    tests: list[ScorerTest] = field(default_factory=list)

    @property
    def verdict(self) -> tuple[Phase, Verdict | None, str]:
        signal = self.record.cause.partition(":")[0]
        return self.record.phase, self.record.verdict, signal

    def told(self) -> str:
        gaps = [pair.decode_gap for pair in self.pairs if pair.decode_gap is not None]
        mean = sum(gaps) / len(gaps) if gaps else None
        return (
            f"{len(self.pairs)} pairs, {self.record.phase}, {self.record.verdict}: "
            f"{self.record.cause}; decode gap {mean} over {len(gaps)}; tests {self.tests}"
        )


@pytest.fixture(scope="module")
def baseline(variants: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    with VllmProcess(variants / "full", tmp_path_factory.mktemp("full"), core=0) as engine:
        engine.wait_until_ready()
        yield engine


def mirrored(full: VllmProcess, twin: VllmProcess, folder: Path) -> list[MirrorFrame]:
    """Ask fresh tasks through a gateway that mirrors all of them."""
    watch = WATCH.model_dump(mode="json")
    variants = {"full": {"url": full.url}, "twin": {"url": twin.url}}
    model = {"baseline": "full", "variants": variants, "watches": [watch]}
    with FrameSink(folder / "shadow.sock") as sink:
        settings = {
            "snapshot": {"epoch": 1, "models": {"demo": model}},
            "shadow_socket": str(sink.path),
        }
        with GatewayProcess(settings, folder) as gateway:
            eventually(lambda: gateway.metric("penumbra_comparator_connected") == 1)
            for prompt in _prompts():
                messages = [{"role": "user", "content": prompt}]
                body = {"model": "demo", "messages": messages, "temperature": 0, "max_tokens": 32}
                answer = gateway.post("/v1/chat/completions", body)
                assert answer.status == 200, answer.body
                assert json.loads(answer.body)["choices"][0]["logprobs"] is None
            return sink.wait_for(PAIRS)


def _prompts() -> list[str]:
    """Fresh prompts of all slices in turn."""
    tasks = [fresh_tasks(name, 7) for name in TASK_SLICES]
    turns = itertools.chain.from_iterable(zip(*tasks, strict=False))
    prompts = (task.prompt for task in turns if len(task.prompt) <= MOST_CHARS)
    return list(itertools.islice(prompts, PAIRS))


async def judge(
    frames: list[MirrorFrame],
    urls: dict[str, str],
    guardrails: tuple[Guardrail, ...],
    *,
    has_tests: bool,
) -> Outcome:
    """Compare the frames, and decide after each pair, until the candidate is out of service."""
    loop = asyncio.get_running_loop()
    clocks = Clocks(loop.time, loop.time)
    settings = ShadowSettings(
        control_url="http://127.0.0.1:9",
        socket_path=Path("unused"),
        budget={"engine_seconds_per_minute": 6000.0},
        limits={"age_seconds": 600.0, "in_flight": 4},
    )
    reports = Reports()
    watched = WatchList(_connect, settings.bets)
    variants = {name: Variant(url=url) for name, url in urls.items()}
    model = ModelSnapshot(baseline="full", variants=variants, watches=(WATCH,))
    watched.apply(Snapshot(epoch=1, models={"demo": model}))
    facts = EngineFacts(settings, clocks)
    comparator = Comparator(settings, watched, facts, reports, clocks)
    if has_tests:
        await ScorerTests(settings, watched, facts, reports, clocks).run_due()
    comparing = asyncio.create_task(comparator.run())
    try:
        for frame in frames:
            comparator.offer(frame, 1)
        async with asyncio.timeout(200):
            # What is waited for has no event of its own.
            while _settled(reports) < len(frames):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        comparing.cancel()
        await asyncio.gather(comparing, return_exceptions=True)
        watched.close()
    return _decided(reports, guardrails)


def _settled(reports: Reports) -> int:
    return sum(pair.arm is Arm.CANDIDATE for _, pair in reports.pairs) + len(reports.sheds)


def _connect(model: str, variant: Variant, api_key: str | None) -> Upstream:
    return HttpUpstream(model, variant.url, api_key=api_key)


def _decided(reports: Reports, guardrails: tuple[Guardrail, ...]) -> Outcome:
    spec = RolloutSpec(
        model="demo",
        candidate=RUN.candidate,
        stages=("shadow", 5.0),
        mirror=MirrorRates(generate=1.0),
        guardrails=guardrails,
    )
    evidence = RunEvidence(spec, RUN.id, SLICES)
    record = RolloutRecord(phase=Phase.SHADOW, since=NOW, run=RUN.id, slices=SLICES, cause="begins")
    tests = [test for _, test in reports.scorer_tests]
    evidence.fold("comparator", RunReport(RUN, scorer_tests=tuple(tests)))
    seen: list[Pair] = []
    for _, pair in reports.pairs:
        evidence.fold("comparator", RunReport(RUN, pairs=(pair,)))
        seen += [pair] if pair.arm is Arm.CANDIDATE else []
        record, _ = decide(spec, record, evidence.findings(), NOW)
        if record.phase is Phase.ROLLED_BACK:
            break
    return Outcome(record, seen, tests)


async def planted(
    fault: str,
    baseline: VllmProcess,
    variants: Path,
    folder: Path,
    arguments: tuple[str, ...] = (),
) -> tuple[Outcome, Outcome]:
    """Judge a twin with a planted fault, as it was judged before decodings were read and now."""
    with VllmProcess(variants / "full", folder, core=1, fault=fault, arguments=arguments) as twin:
        twin.wait_until_ready()
        frames = await asyncio.to_thread(mirrored, baseline, twin, folder)
        urls = {"full": baseline.url, "twin": twin.url}
        before = await judge(frames, urls, BEFORE, has_tests=False)
        now = await judge(frames, urls, NOW_GUARDED, has_tests=True)
    print(f"before: {before.told()}\nnow: {now.told()}")
    return before, now


@pytest.mark.parametrize("arguments", [(), OTHER_ENGINE], ids=["twin", "other engine"])
async def test_a_decode_fault_of_a_twentieth_is_caught_within_sixty_pairs(
    baseline: VllmProcess, variants: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    before, now = await planted("decode:0.05", baseline, variants, tmp_path, arguments)
    assert (before.record.phase, len(before.pairs)) == (Phase.SHADOW, PAIRS)
    assert now.verdict == (Phase.ROLLED_BACK, Verdict.FAIL, "decode_gap")
    assert len(now.pairs) < PAIRS
    # By its scores nothing is wrong.
    found = [pair.displacement or 0.0 for pair in now.pairs]
    assert sum(found) / len(found) < 0.001
    assert [test.fault for test in now.tests] == ["decode"]


async def test_a_scorer_fault_of_the_candidate_is_an_error_and_no_rollback(
    baseline: VllmProcess, variants: Path, tmp_path: Path
) -> None:
    before, now = await planted("score:0.1", baseline, variants, tmp_path)
    assert before.verdict == (Phase.ROLLED_BACK, Verdict.FAIL, "displacement")
    assert (now.record.phase, now.record.verdict) == (Phase.SHADOW, Verdict.ERROR)
    assert len(now.pairs) == PAIRS
    assert {pair.harm for pair in now.pairs} == {0}
    assert [test.fault for test in now.tests] == ["scorer"]


async def test_logits_for_log_probabilities_are_an_error_and_a_twin_is_sound(
    baseline: VllmProcess, variants: Path, tmp_path: Path
) -> None:
    arguments = ("--logprobs-mode", "raw_logits")
    with VllmProcess(variants / "full", tmp_path, core=1, arguments=arguments) as twin:
        twin.wait_until_ready()
        frames = await asyncio.to_thread(mirrored, baseline, twin, tmp_path)
        urls = {"full": baseline.url, "twin": twin.url}
        now = await judge(frames, urls, NOW_GUARDED, has_tests=True)
        sound = await judge(
            frames, {"full": baseline.url, "twin": baseline.url}, NOW_GUARDED, has_tests=True
        )
    print(f"logits: {now.told()}\nsound: {sound.told()}")
    assert (now.record.phase, now.record.verdict) == (Phase.SHADOW, Verdict.ERROR)
    assert "log-probability" in now.tests[0].detail
    assert (sound.record.phase, sound.record.verdict) == (Phase.SHADOW, None)
    assert [test.fault for test in sound.tests] == [None]
    assert max(abs(pair.decode_gap or 0.0) for pair in sound.pairs) < 0.005
    assert max(pair.displacement or 0.0 for pair in sound.pairs) < 0.001
