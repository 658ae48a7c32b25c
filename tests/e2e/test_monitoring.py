"""Dashboards and rules on a real run, by a real Prometheus: all queries, all rules.

The run is `tests.support.monitored.play`: INT8 goes up; two bits get a live share and are stopped,
by Alertmanager while the guard hears nothing, and then by the guard. PENUMBRA_PICTURES=FOLDER makes
the pictures of docs/dashboards.md from it, there.
"""

import asyncio
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import yaml

from penumbra.monitoring.telemetry import engine
from penumbra.monitoring.telemetry.metric import Process
from penumbra.monitoring.telemetry.registry import most_series
from tests.support.installation import Installation
from tests.support.monitored import CLIENTS, Monitored, Story, play
from tests.support.panel_queries import (
    EMPTY_IN_A_HEALTHY_RUN,
    NAMES,
    PanelQuery,
    Times,
    annotation_queries,
    load,
    panel_queries,
    variable_queries,
)
from tests.support.prometheus import MONITORING, Prometheus, Series

BUILDS = ("full", "int8", "int2")
STEP_SECONDS = 5.0
MOST_CUT_OFF = 3 * 2 * CLIENTS
"""Requests under way, at two gateways, when the traffic of the three parts of the run stopped."""
CHOICE = {"model": "demo", "candidate": "int2"}
RULES = sorted((MONITORING / "rules").glob("*.yaml"))


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over, and what is left of it to look at."""

    monitored: Monitored
    story: Story

    @property
    def prometheus(self) -> Prometheus:
        return self.monitored.prometheus

    @property
    def times(self) -> Times:
        span = self.story.ended_at - self.story.began_at
        return Times(interval=STEP_SECONDS, span=span, scrape=1.0)

    def value(self, expression: str, at: float | None = None) -> float:
        """An expression at a time of the run; now, when all is counted, without one."""
        return self.prometheus.value(expression, at)

    def series(self, query: PanelQuery) -> list[Series]:
        """The series that a panel shows."""
        if query.is_instant:
            return self.prometheus.query(query.expr, self.story.ended_at)
        return self.over_time(query.expr)

    def over_time(self, expression: str, step: float = STEP_SECONDS) -> list[Series]:
        """An expression over the whole run."""
        story = self.story
        return self.prometheus.query_range(expression, story.began_at, story.ended_at, step)


@pytest.fixture(scope="module")
def run(stack: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The run, on the engines of the end-to-end installation."""
    urls = {name: stack.variant_url(name) for name in BUILDS}
    with Monitored(tmp_path_factory.mktemp("monitored"), urls) as monitored:
        story = asyncio.run(play(monitored))
        run = Run(monitored, story)
        if "PENUMBRA_PICTURES" in os.environ:
            _take_pictures(run, os.environ["PENUMBRA_PICTURES"])
        yield run


def _take_pictures(run: Run, folder: str) -> None:
    story = run.story
    # The good build's run is the longer one: its intervals can be seen to narrow.
    for candidate, ended_at, dashboards in (
        ("int2", story.ended_at, ("rollout", "traffic", "engines")),
        ("int8", story.promoted_at, ("quality",)),
    ):
        command = [
            *(sys.executable, "-m", "scripts.pictures", "--prometheus", run.prometheus.url),
            *("--start", str(story.began_at), "--end", str(ended_at), "--scrape", "1"),
            *("--model", "demo", "--candidate", candidate, "--out", folder),
            *("--dashboards", *dashboards),
        ]
        subprocess.run(command, check=True)


def test_clients_saw_no_error_and_both_lines_stopped_the_bad_build(
    run: Run, record_property: Any
) -> None:
    story = run.story
    assert story.errors == []
    assert story.guard is not None
    assert story.second_line is not None
    assert story.guard.actor == "guard"
    assert story.second_line.actor == "alertmanager"
    print(f"\nguard: {story.guard}\nsecond line: {story.second_line}")
    record_property("guard", story.guard)
    record_property("second_line", story.second_line)
    assert story.guard.seconds < story.second_line.seconds
    for candidate, stage in (("int8", "promoted"), ("int2", "rolled_back")):
        assert story.views[candidate]["stage"] == stage


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_shows_something_finite(run: Run, name: str) -> None:
    empty, infinite = [], []
    for query in panel_queries(load(name), CHOICE, run.times):
        found = run.series(query)
        if not any(series.points for series in found) and query.key not in EMPTY_IN_A_HEALTHY_RUN:
            empty.append(query)
        infinite += [query for series in found if not series.is_finite]
    assert empty == []
    assert infinite == []


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_has_choices_and_every_mark_is_found(run: Run, name: str) -> None:
    story, dashboard = run.story, load(name)
    for variable in variable_queries(dashboard, CHOICE):
        values = run.prometheus.get(
            f"/api/v1/label/{variable.label}/values",
            **{"match[]": variable.match, "start": story.began_at, "end": story.ended_at},
        )
        assert values, variable
    for annotation in annotation_queries(dashboard, CHOICE):
        marks = {value for series in run.over_time(annotation.expr) for _, value in series.points}
        assert marks, annotation
        for mark in marks:
            assert story.began_at - 1 <= mark / 1000 <= story.ended_at + 1, annotation


def _rules() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def test_every_rule_is_evaluated_without_an_error(run: Run) -> None:
    groups = run.prometheus.get("/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(_rules())
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []


NOT_IN_THIS_RUN = {
    "candidate:penumbra_instrument:unsound": "the instrument was sound",
    "candidate:penumbra_mirror_sheds:ratio5m": "gateways handed everything over",
    "variant:penumbra_failovers:ratio5m": "no variant failed",
    "slice:penumbra_upstream_failures:stderr5m": "no variant failed",
    **dict.fromkeys(
        (f"variant:penumbra_{kind}_answers:ratio1h_before" for kind in ("refused", "invalid")),
        "the run is shorter than the five minutes that this leaves out",
    ),
    **dict.fromkeys(
        (f"slice:penumbra_candidate_failures:lower{window}" for window in ("2m", "15m")),
        "a candidate was asked less than twenty times in each slice",
    ),
}
"""Recorded only where there is something to record, and why there was nothing."""


def test_every_recorded_series_has_finite_values(run: Run) -> None:
    missing, infinite = [], []
    for name in dict.fromkeys(rule["record"] for rule in _rules() if "record" in rule):
        found = run.over_time(name)
        if not found and name not in NOT_IN_THIS_RUN:
            missing.append(name)
        infinite += [name for series in found if not series.is_finite]
    assert set(missing) == set()
    assert infinite == []


def test_requests_are_counted_as_the_clients_counted_them(run: Run) -> None:
    counted = run.prometheus.query("sum by (variant) (penumbra_requests_total)")
    by_variant = {series.labels["variant"]: series.value for series in counted}
    for variant, answers in run.story.answers.items():
        # A request under way when its client was stopped was answered, but reached no client.
        assert answers <= by_variant.pop(variant) <= answers + MOST_CUT_OFF
    assert set(by_variant.values()) <= {0}


def test_judgements_are_counted_as_the_clients_gave_them(run: Run) -> None:
    counted = run.value("sum(penumbra_feedback_total)")
    assert 0 < run.story.judged <= counted <= run.story.judged + MOST_CUT_OFF


def test_rollbacks_are_told_with_who_decided_and_leaked_nothing(run: Run) -> None:
    counted = run.prometheus.query("penumbra_rollbacks_total")
    by_actor = {
        (series.labels["candidate"], series.labels["actor"]): series.value for series in counted
    }
    assert {key: value for key, value in by_actor.items() if value} == {
        ("int2", "guard"): 1,
        ("int2", "alertmanager"): 1,
    }
    assert run.value("sum(penumbra_post_rollback_candidate_starts_total)") == 0
    assert (
        run.value('penumbra_rollback_duration_seconds_count{part="durable_to_acknowledged"}') == 2
    )


def test_the_numbers_that_act_are_the_ones_that_are_shown(run: Run) -> None:
    view, at = run.story.views["int8"], run.story.promoted_at
    for signal in view["signals"]:
        labels = f'candidate="int8",signal="{signal["signal"]}"'
        shown = run.value(f"penumbra_guardrail_log_evidence_nats{{{labels}}}", at)
        assert shown == pytest.approx(math.log(signal["evidence"]), abs=1e-9)
        bound = run.value(f"penumbra_guardrail_log_boundary_nats{{{labels}}}", at)
        assert bound == pytest.approx(math.log(signal["boundary"]), abs=1e-9)
        for name, (count, total) in _sums(signal["slices"]).items():
            own = f'{labels},slice="{name}"'
            assert run.value(f"penumbra_signal_observations{{{own}}}", at) == count
            if count:
                mean = run.value(f"penumbra_signal_mean_ratio{{{own}}}", at)
                assert mean == pytest.approx(total / count, abs=1e-9)


def _sums(streams: list[Any]) -> dict[str, tuple[int, float]]:
    """Slice -> observations and their sum; a series has those of both kinds of pairs together."""
    sums: dict[str, tuple[int, float]] = {}
    for stream in streams:
        count, total = sums.get(stream["slice"], (0, 0.0))
        more = stream["count"]
        sums[stream["slice"]] = (count + more, total + more * (stream["mean"] or 0.0))
    return sums


def test_proven_slices_are_those_of_the_rollout(run: Run) -> None:
    shown = run.prometheus.query(
        'penumbra_rollout_slice_state{candidate="int8",state="proven"} == 1', run.story.promoted_at
    )
    assert {series.labels["slice"] for series in shown} == set(run.story.views["int8"]["proven"])


def test_the_course_of_the_rollout_is_that_of_its_stages(run: Run) -> None:
    shares = run.over_time('penumbra_rollout_share_ratio{candidate="int8"}', step=1.0)
    assert [value for value, _ in _changes(shares)] == [0.0, 0.25, 0.45, 0.0]


def _changes(series: list[Series]) -> list[tuple[float, float]]:
    values = [(value, at) for found in series for at, value in found.points]
    return [
        pair for index, pair in enumerate(values) if not index or values[index - 1][0] != pair[0]
    ]


def test_displacement_by_the_exported_series_alone_names_the_culprit(run: Run) -> None:
    means = (
        "sum by (candidate, slice) (penumbra_shadow_displacement_ratio_sum{arm='candidate'})"
        " / (sum by (candidate, slice)"
        " (penumbra_shadow_displacement_ratio_count{arm='candidate'}) >= 10)"
    )
    found = {
        (series.labels["candidate"], series.labels["slice"]): series.value
        for series in run.prometheus.query(means)
    }
    worst = max((key for key in found if key[0] == "int2"), key=lambda key: found[key])
    assert worst == ("int2", "facts")
    assert max(value for (name, _), value in found.items() if name == "int8") < 0.005


def test_alerts_fired_for_the_bad_build_and_for_nothing_else(run: Run) -> None:
    fired = run.over_time('ALERTS{alertstate="firing"}', step=1.0)
    names = {(alert.labels["alertname"], alert.labels.get("candidate")) for alert in fired}
    assert ("PenumbraQualityRegression", "int2") in names
    assert ("PenumbraRolledBack", "int2") in names
    pages = {
        (alert.labels["alertname"], alert.labels.get("candidate"))
        for alert in fired
        if alert.labels["severity"] == "page"
    }
    # The guard was cut off on purpose, and that is told as well.
    assert pages <= {
        ("PenumbraQualityRegression", "int2"),
        ("PenumbraGuardStale", None),
        ("PenumbraNoData", None),
    }
    assert not [alert for alert in fired if alert.labels.get("candidate") == "int8"]


def test_latencies_lead_to_traces_that_the_collector_has(run: Run) -> None:
    found = run.prometheus.get(
        "/api/v1/query_exemplars",
        query="penumbra_request_duration_seconds_bucket",
        start=run.story.began_at,
        end=run.story.ended_at,
    )
    exemplars = [exemplar for series in found for exemplar in series["exemplars"]]
    traces = {span.trace_id for span in run.monitored.collector.spans}
    assert len(exemplars) > 10
    assert {exemplar["labels"]["trace_id"] for exemplar in exemplars} <= traces


def test_engines_are_told_by_variant(run: Run) -> None:
    for metric in (engine.GENERATION_TOKENS, engine.PROMPT_TOKENS):
        found = run.prometheus.query(f"sum by (model, variant) ({metric.name}) > 0")
        assert {series.labels["variant"] for series in found} == set(BUILDS)


def test_metrics_of_every_process_are_clean_and_within_their_budget(run: Run) -> None:
    for process, url in run.monitored.processes.items():
        text = httpx.get(url, timeout=10).content
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, b""), process
        series = sum(not line.startswith(b"#") for line in text.splitlines())
        kind = process.partition("-")[0]
        print(f"{process}: {series} series of at most {most_series(Process(kind))}")
        assert series <= most_series(Process(kind))


def test_one_page_has_every_process(run: Run) -> None:
    url = f"{run.monitored.control.url}/metrics/all"
    text = httpx.get(url, timeout=10).text
    for process in run.monitored.processes:
        assert f'process="{process}"' in text


def test_replicas_of_hosted_variants_are_targets_of_their_own(stack: Installation) -> None:
    admin = stack.state.admin_url
    deadline = time.monotonic() + 60
    while True:
        targets = httpx.get(f"{admin}/metrics/targets", timeout=10).json()
        engines = [target for target in targets if target["labels"]["process_kind"] == "engine"]
        if (
            len({target["labels"]["variant"] for target in engines}) == 5
            or time.monotonic() > deadline
        ):
            break
        time.sleep(0.2)
    assert {target["labels"]["variant"] for target in engines} == {
        "full",
        "int8",
        "int4",
        "int2",
        "twin",
    }
    for target in engines:
        (address,) = target["targets"]
        path = target["labels"].get("__metrics_path__", "/metrics")
        answer = httpx.get(f"http://{address}{path}", timeout=10)
        assert answer.is_success, target
        assert "vllm:num_requests_running" in answer.text
    addresses = {tuple(target["targets"]) for target in engines}
    assert len(addresses) == len(engines), "each replica has a port of its own"
