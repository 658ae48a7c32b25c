"""The comparator's spans, as a collector gets them from the real process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penumbra.monitoring.telemetry.metric import Process
from penumbra.router.upstream.fake import whole
from tests.integration.shadow.test_comparator_process import Installation, installed, now
from tests.support.mirrored import mirrored
from tests.support.otlp import Collector, Received, collecting
from tests.support.shadow import watch
from tests.support.spans import check, unseen

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
async def installation(tmp_path: Path, collector: Collector) -> AsyncIterator[Installation]:
    watched = watch(generate=1.0, aa=1.0)
    async with installed(tmp_path, watched, environment=collector.environment) as found:
        yield found


async def compare(
    installation: Installation, collector: Collector, name: str, **changes: str | tuple[str, ...]
) -> list[Received]:
    """The spans of one mirrored request, once all have arrived."""
    collector.clear()
    told = installation.control
    before = len(told.pairs) + len(told.of_runs("sheds"))
    writer = await installation.comparator.hand_over(mirrored(name, answered_at=now(), **changes))
    try:
        await told.until(lambda it: len(it.pairs) + len(it.of_runs("sheds")) > before)
    finally:
        writer.close()
    if changes.get("trace") != SAMPLED:
        return list(collector.spans)
    return await asyncio.to_thread(collector.wait_for_names, "shadow pair")


async def test_a_pair_is_linked_to_its_request_and_has_its_work_below_it(
    installation: Installation, collector: Collector
) -> None:
    spans = await compare(installation, collector, "r1", trace=SAMPLED)
    pair = next(span for span in spans if span.name == "shadow pair")
    assert (pair.kind, pair.parent_id) == ("internal", "")
    assert pair.links == ((TRACE, SPAN),)
    assert pair.trace_id != TRACE
    assert pair.resource["service.name"] == "penumbra-comparator"
    about = pair.attributes
    (report,) = [found for found in installation.control.pairs if found.arm == "candidate"]
    assert about["penumbra.displacement"] == report.displacement > 0
    assert about["penumbra.harm"] == report.harm == 0
    assert about["penumbra.aa_displacement"] == 0.0
    assert (about["penumbra.model"], about["penumbra.candidate"]) == ("demo", "int8")
    assert about["penumbra.request_id"] == "r1"
    work = [span for span in spans if span is not pair]
    assert {span.parent_id for span in work} == {pair.span_id}
    assert {span.trace_id for span in work} == {pair.trace_id}
    # Both arms, and the baseline once more for the A/A arm; each scores and each but it answers.
    assert sorted((span.name, span.attributes["penumbra.is_again"]) for span in work) == [
        ("generate full", True),
        ("generate int8", False),
        ("score full", False),
        ("score full", True),
        ("score int8", False),
    ]
    assert all(pair.began_ns <= span.began_ns <= span.ended_ns <= pair.ended_ns for span in work)


@pytest.mark.parametrize("trace", ["", UNSAMPLED, "nonsense"])
async def test_what_was_not_sampled_has_no_span(
    installation: Installation, collector: Collector, trace: str
) -> None:
    await compare(installation, collector, "r1", trace=trace)
    spans = await compare(installation, collector, "r2", trace=SAMPLED)
    pairs = [span for span in spans if span.name == "shadow pair"]
    assert [span.attributes["penumbra.request_id"] for span in pairs] == ["r2"]


async def test_spans_are_those_of_the_registry(
    installation: Installation, collector: Collector
) -> None:
    spans = await compare(installation, collector, "good", trace=SAMPLED)
    installation.builds["int8"].answer = whole({}, 500)
    spans += await compare(installation, collector, "no answer", trace=SAMPLED)
    installation.builds["full"].score = whole({}, 500)
    spans += await compare(installation, collector, "no score", trace=SAMPLED)
    for span in spans:
        check(span)
    assert unseen(Process.COMPARATOR, spans) == set()
    failed = next(s for s in spans if s.attributes.get("penumbra.request_id") == "no answer")
    assert failed.attributes["penumbra.missing"] == "answer: status_500"
    assert failed.attributes["penumbra.failed_checks"] == ["no_answer"]
    shed = next(s for s in spans if s.attributes.get("penumbra.request_id") == "no score")
    assert shed.attributes["penumbra.shed_reason"] == "baseline_score"
    assert any(span.is_error and span.name == "score full" for span in spans)
