"""The control process exposes exactly the metrics of its registry, with the right values."""

import asyncio
import shutil
import subprocess
from datetime import datetime
from math import isfinite, log
from pathlib import Path
from typing import Any

import pytest

from penumbra.deployments.metrics.control_metrics import ControlMetrics
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.labels import AGGREGATE
from penumbra.monitoring.telemetry.metric import Metric
from penumbra.monitoring.telemetry.registry import BY_NAME
from penumbra.router.link.messages import Refused, encode
from tests.support.control_story import FINGERPRINTS, GATEWAYS, INT8, MODEL, SLICES, Story, tell
from tests.support.whole_plane import Scraped, whole_plane

NAMES = {
    "model": {"demo"},
    "variant": set(MODEL.variants),
    "candidate": set(MODEL.variants) - {MODEL.baseline},
    "slice": {*SLICES, AGGREGATE},
    "gateway": set(GATEWAYS),
    "fingerprint": {"", *(digest[:16] for digest in FINGERPRINTS.values())},
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    async def telling() -> Story:
        async with whole_plane(tmp_path_factory.mktemp("plane"), demo=MODEL) as plane:
            return await tell(plane)

    return asyncio.run(telling())


def test_every_metric_of_the_registry_is_exposed_and_no_other(story: Story) -> None:
    exposed = {name for name, _ in (story.live.values | story.over.values)}
    wanted = {name for metric in control.METRICS for name in metric.sample_names}
    assert exposed == wanted
    assert story.openmetrics.endswith("# EOF\n")
    assert "_created" not in story.openmetrics + story.over.text


@pytest.mark.parametrize("metric", control.METRICS, ids=lambda metric: metric.name)
def test_every_series_keeps_to_its_labels_and_is_a_number(metric: Metric, story: Story) -> None:
    found = [
        (dict(labels), value)
        for scraped in (story.live, story.over)
        for (name, labels), value in scraped.values.items()
        if name in metric.sample_names
    ]
    assert found
    for labels, value in found:
        assert set(labels) - {"le"} == set(metric.label_names)
        assert isfinite(value)
        for label in metric.labels:
            allowed = set(label.values) or NAMES.get(label.name)
            assert allowed is None or labels[label.name] in allowed, (metric.name, label.name)


def test_types_and_help_are_those_of_the_registry(story: Story) -> None:
    for line in story.over.text.splitlines():
        if line.startswith("# HELP penumbra_"):
            name, text = line.removeprefix("# HELP ").split(" ", 1)
            assert text == BY_NAME[name].help
        if line.startswith("# TYPE penumbra_"):
            name, kind = line.removeprefix("# TYPE ").split(" ", 1)
            assert kind == BY_NAME[name].kind.value.replace("info", "gauge")


def test_a_live_rollout_is_exposed_as_it_stands(story: Story) -> None:
    live, rollout = story.live, INT8
    assert live.state("penumbra_rollout_phase", "phase", **rollout) == "live"
    assert live.state("penumbra_rollout_verdict", "verdict", **rollout) == "pass"
    states = [
        live.state("penumbra_rollout_slice_state", "state", slice=name, **rollout)
        for name in SLICES
    ]
    assert states == ["proven", "proven", "undecided"]
    assert live.one("penumbra_rollout_share_ratio", **rollout) == 0.1
    assert live.one("penumbra_rollout_pairs", slice=SLICES[0], **rollout) == 40
    assert live.one("penumbra_rollout_held", **rollout) == 1
    assert live.one("penumbra_rollout_held", model="demo", candidate="int4") == 0
    assert live.one("penumbra_rollout_frozen", **rollout) == 0
    assert live.one("penumbra_instrument_ok", **rollout) == 1
    since = story.view["since"].replace("Z", "+00:00")
    assert live.one("penumbra_rollout_since_timestamp_seconds", **rollout) == _unix(since)
    shares = live.all("penumbra_flag_share_ratio", model="demo")
    assert {dict(own)["variant"]: share for own, share in shares.items()} == {
        "full": 0.9, "int8": 0.1, "int4": 0.0, "int3": 0.0,
    }  # fmt: skip
    assert live.one("penumbra_flag_quarantined", model="demo", slice="other") == 1
    info = live.all("penumbra_variant_info", model="demo", variant="int8")
    assert info == {frozenset({("role", "candidate"), ("fingerprint", "8" * 16)}): 1.0}


def test_the_evidence_that_is_exposed_is_the_one_that_acts(story: Story) -> None:
    live, view = story.live, story.view
    assert [signal["signal"] for signal in view["signals"]] == [
        "displacement",
        "harm",
        "failure",
        "ttft",
    ]
    proof_boundaries = set()
    for signal in view["signals"]:
        own = {**INT8, "signal": signal["signal"]}
        evidence = live.one("penumbra_guardrail_log_evidence_nats", **own)
        assert evidence == log(signal["evidence"])
        assert live.one("penumbra_guardrail_log_boundary_nats", **own) == log(signal["boundary"])
        assert live.one("penumbra_guardrail_tripped", **own) == signal["is_tripped"]
        proof_boundaries.add(log(signal["proof_boundary"]))
        for stream in (signal["aggregate"], *signal["slices"]):
            _assert_stream(live, stream, own | {"slice": stream["slice"] or AGGREGATE})
    exposed = live.one("penumbra_proof_log_boundary_nats", **INT8)
    assert [exposed] == [pytest.approx(boundary) for boundary in proof_boundaries]


def _assert_stream(live: Scraped, stream: dict[str, Any], labels: dict[str, str]) -> None:
    evidence = stream["evidence"]
    if stream["answered_by"] is not None:
        # Exposed is the average with the pairs that the candidate answered, of which are none.
        assert stream["answered_by"] == "baseline"
        evidence = (evidence + 0.5) / 2
    values = {
        "observations": stream["count"],
        "mean_ratio": stream["mean"],
        "tolerance_ratio": stream["tolerance"],
        "log_evidence_nats": log(evidence),
        "log_proof_nats": log(stream["proof"]),
        "lower_ratio": stream["lower"],
        "upper_ratio": stream["upper"],
    }
    for name, wanted in values.items():
        found = live.values.get((f"penumbra_signal_{name}", frozenset(labels.items())))
        assert found == wanted, (name, labels)


def test_a_tolerance_that_is_being_read_has_a_boundary_and_no_evidence_yet(story: Story) -> None:
    int4 = {"model": "demo", "candidate": "int4"}
    boundary = story.live.all("penumbra_guardrail_log_boundary_nats", **int4)
    assert boundary == {frozenset({("signal", "displacement")}): pytest.approx(log(200.0))}
    for name in ("guardrail_log_evidence_nats", "signal_observations", "signal_tolerance_ratio"):
        assert not story.live.all(f"penumbra_{name}", **int4)


def test_the_excess_is_over_the_baseline_against_itself(story: Story) -> None:
    of_displacement = {**INT8, "signal": "displacement", "slice": "other"}
    everywhere = of_displacement | {"slice": AGGREGATE}
    for labels in (of_displacement, everywhere):
        assert story.live.one("penumbra_signal_aa_mean_ratio", **labels) == pytest.approx(0.005)
    mean = story.live.one("penumbra_signal_mean_ratio", **everywhere)
    excess = story.live.one("penumbra_signal_excess_ratio", **everywhere)
    assert (mean, excess) == (pytest.approx(0.02), pytest.approx(0.015))
    # No candidate pair came in `other`: nothing is over anything there.
    excesses = story.live.all("penumbra_signal_excess_ratio")
    assert len(excesses) == 1


def test_a_rollback_is_exposed_with_its_cause(story: Story) -> None:
    over = story.over
    assert over.state("penumbra_rollout_phase", "phase", **INT8) == "rolled_back"
    assert over.state("penumbra_rollout_verdict", "verdict", **INT8) == "fail"
    own = {**INT8, "signal": "displacement"}
    evidence = over.one("penumbra_guardrail_log_evidence_nats", **own)
    assert evidence >= over.one("penumbra_guardrail_log_boundary_nats", **own) == log(250.0)
    assert over.one("penumbra_guardrail_tripped", **own) == 1
    assert over.one("penumbra_rollbacks_total", actor="guard", **INT8) == 1
    assert over.one("penumbra_rollbacks_total", actor="operator", **INT8) == 0
    int4 = {"model": "demo", "candidate": "int4"}
    assert over.one("penumbra_rollbacks_total", actor="operator", **int4) == 1
    assert over.one("penumbra_last_rollback_timestamp_seconds", **int4) > 0
    changes = {
        dict(labels)["change"]: count
        for labels, count in over.all("penumbra_rollout_changes_total", **INT8).items()
        if count
    }
    # "other": the evidence became suspicious before it reached the boundary.
    assert changes == {"applied": 1, "advanced": 1, "held": 1, "rolled_back": 1, "other": 1}
    took = over.all("penumbra_rollback_duration_seconds_count")
    assert {dict(labels)["part"]: count for labels, count in took.items()} == {
        # A person decided the second one: there is no deciding observation.
        "observed_to_durable": 1,
        "durable_to_acknowledged": 2,
        "observed_to_acknowledged": 1,
    }


def test_the_process_itself_is_exposed(story: Story) -> None:
    over = story.over
    epoch = story.epoch
    assert over.one("penumbra_control_epoch") == epoch
    assert over.one("penumbra_control_gateways") == 3
    assert over.one("penumbra_control_comparators") == 2
    assert over.one("penumbra_control_outdated_gateways") == 0
    epochs = over.all("penumbra_gateway_epoch")
    assert {dict(own)["gateway"]: at for own, at in epochs.items()} == dict.fromkeys(
        GATEWAYS, epoch
    )
    assert over.one("penumbra_control_changes_total", kind="kill") == 1
    assert sum(over.all("penumbra_control_changes_total").values()) == epoch
    # Every change but the first, which no gateway was there for.
    assert over.one("penumbra_control_propagation_seconds_count") == epoch - 1
    assert 0 <= over.one("penumbra_guard_age_seconds", model="demo") < 5
    assert over.one("penumbra_guard_lease_seconds") == 5
    where = {"model": "demo", "slice": SLICES[0]}
    for variant, role, thought in (
        ("full", "baseline", "content"),
        ("int8", "candidate", "not_content"),
    ):
        labels = {**where, "variant": variant, "role": role, "judgement": thought}
        assert over.one("penumbra_feedback_total", **labels) == 1
    assert sum(over.all("penumbra_feedback_total").values()) == 2
    assert over.one("penumbra_alerts_total", result="acted") == 1


async def test_counters_of_rollouts_survive_a_restart(tmp_path: Path) -> None:
    async with whole_plane(tmp_path, demo=MODEL) as plane:
        before = (await tell(plane)).over
    async with whole_plane(tmp_path, demo=MODEL) as plane:
        after = await plane.settled()
    names = (
        "penumbra_rollout_changes_total",
        "penumbra_rollbacks_total",
        "penumbra_last_rollback_timestamp_seconds",
        "penumbra_control_changes_total",
        "penumbra_rollback_duration_seconds_bucket",
        "penumbra_rollback_duration_seconds_sum",
        "penumbra_guardrail_log_evidence_nats",
        "penumbra_signal_lower_ratio",
        "penumbra_signal_upper_ratio",
    )
    for name in names:
        assert after.all(name) == before.all(name) != {}


async def test_a_gateway_that_refuses_is_counted_and_seen(tmp_path: Path) -> None:
    async with whole_plane(tmp_path, demo=MODEL) as plane:
        gateway = await plane.connect("gateway-0")
        gateway._answers = False
        changing = plane.change("POST", "/flags/demo/kill")
        gateway.say(encode(Refused(2, "no room")))
        await changing
        found = await plane.scrape()
        assert found.one("penumbra_control_incomplete_changes_total") == 1
        assert found.one("penumbra_control_propagation_seconds_count") == 0
        assert found.one("penumbra_control_outdated_gateways") == 1
        assert found.one("penumbra_gateway_epoch", gateway="gateway-0") == 1


def test_an_alert_with_an_unknown_result_is_refused() -> None:
    with pytest.raises(ValueError, match="found the result 'ignored', wanted one of"):
        ControlMetrics().count_alert("ignored")


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian's package prometheus)"
)
def test_promtool_finds_no_problem(story: Story) -> None:
    for scraped in (story.live, story.over):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=scraped.text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
