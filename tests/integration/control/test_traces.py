"""Spans and log lines of rollout changes, from the real control process."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penumbra.monitoring.telemetry.metric import Process
from tests.integration.control.test_rollouts import Comparator, comparing, put, view
from tests.support.control_process import ControlProcess
from tests.support.otlp import Collector, Received, collecting
from tests.support.rollouts import pairs
from tests.support.spans import check, unseen


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("control")
    # What an environment says of other services' samplers does not apply to decisions.
    environment = {**collector.environment, "OTEL_TRACES_SAMPLER": "always_off"}
    with ControlProcess(folder, environment=environment) as process:
        yield process


@pytest.fixture(scope="module")
def spans(control: ControlProcess, collector: Collector) -> list[Received]:
    """A rollout that goes live, is found out, is armed again and is taken back by hand."""
    put(control).raise_for_status()
    with comparing(control) as comparator:
        comparator.deliver(comparator.next(pairs(60, 0.0)))
        assert view(control)["share"] >= 10
        _until_rolled_back(control, comparator)
    control.post("/rollouts/int8/rearm?model=demo", {}).raise_for_status()
    control.post("/rollouts/int8/rollback?model=demo", {}).raise_for_status()
    return collector.wait_for(
        lambda told: [span.name for span in told.spans].count("rollback") == 2, "two rollbacks"
    )


def _until_rolled_back(control: ControlProcess, comparator: Comparator) -> None:
    for start in range(100, 400, 10):
        comparator.deliver(comparator.next(pairs(10, 0.95, start=start)))
        if view(control)["stage"] == "rolled_back":
            return
    raise AssertionError("it was not rolled back")


def lines(control: ControlProcess) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in control.log_text().splitlines()]
    return [line for line in found if line["event"] == "rollout_changed"]


def test_a_rollbacks_span_is_from_the_deciding_observation_to_the_last_gateway(
    control: ControlProcess, spans: list[Received]
) -> None:
    first = next(span for span in spans if span.name == "rollback")
    attributes = first.attributes
    assert attributes["penumbra.action"] == "rollback"
    assert attributes["penumbra.signal"] == "displacement"
    assert attributes["penumbra.evidence"] >= attributes["penumbra.boundary"] > 1
    assert attributes["penumbra.pairs"] > 60
    assert attributes["penumbra.culprits"] == ["other"]
    # No gateway was connected to acknowledge it.
    assert (attributes["penumbra.gateways"], attributes["penumbra.is_acknowledged"]) == (0, False)
    assert (first.parent_id, first.links) == ("", ())
    (durable,) = first.events
    assert first.began_ns <= durable.at_ns <= first.ended_ns
    assert first.resource["service.name"] == "penumbra-control"


def test_the_change_that_rolls_back_is_below_the_rollback(spans: list[Received]) -> None:
    away = [s for s in spans if s.attributes.get("penumbra.change") == "rolled_back"]
    backs = [span for span in spans if span.name == "rollback"]
    assert [span.parent_id for span in away] == [span.span_id for span in backs]
    assert [span.trace_id for span in away] == [span.trace_id for span in backs]
    assert [span.attributes["penumbra.actor_kind"] for span in away] == ["guard", "operator"]
    others = [s for s in spans if s.name == "rollout change" and s not in away]
    assert {span.parent_id for span in others} == {""}


def test_each_change_writes_one_line_with_a_sentence_and_its_trace(
    control: ControlProcess, spans: list[Received]
) -> None:
    written = lines(control)
    by_epoch = {s.attributes["penumbra.epoch"]: s for s in spans if s.name == "rollout change"}
    assert [line["epoch"] for line in written] == sorted(by_epoch)
    for line in written:
        span = by_epoch[line["epoch"]]
        assert line["trace_id"] == span.trace_id
        assert line["change"] == span.attributes["penumbra.change"]
        assert line["text"].startswith("int8 of demo ")
    back, by_hand = (line for line in written if line["change"] == "rolled_back")
    assert back["level"] == "warning"
    # No time is wanted of a stage here, so it may have gone on meanwhile.
    assert re.fullmatch(
        r"int8 of demo was rolled back from (10 %|100 %|promoted):"
        r" displacement, other \(evidence [\d.e+]+ of [\d.]+\), \d+ pairs",
        back["text"],
    )
    assert by_hand["text"] == "int8 of demo was rolled back from shadow by admin: by hand: test"
    advance = next(line for line in written if line["change"] == "advanced")
    assert advance["text"].startswith("int8 of demo went from shadow to 10 %: ")


def test_spans_are_those_of_the_registry(spans: list[Received]) -> None:
    for span in spans:
        check(span)
    assert unseen(Process.CONTROL, spans) == set()
