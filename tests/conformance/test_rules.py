"""Rules and alerts: Prometheus takes them, they fire and stay silent, and ask for what exists."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from penumbra.monitoring.answers import FAILED, JUDGED, REFUSED, AnswerCode
from penumbra.monitoring.telemetry import engine, engine_rules
from penumbra.monitoring.telemetry.metric import Kind
from penumbra.monitoring.telemetry.registry import METRICS, SAMPLE_NAMES
from penumbra.monitoring.vocabulary import FAILURES, Outcome
from tests.support.promtool import check

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
RULE_FILES = sorted((MONITORING / "rules").glob("*.yaml"))
TEST_FILES = sorted((MONITORING / "rules" / "tests").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
ACTING = {"PenumbraQualityRegression", "PenumbraFailureRegression"}
DASHBOARDS = {f"/d/penumbra-{name}" for name in ("rollout", "quality", "traffic", "engines")}
# What Prometheus and discovery add to every series, and `up`, which Prometheus writes itself.
TARGET_LABELS = {"job", "instance", "process", "process_kind", "model", "variant", "replica"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> Iterator[dict[str, Any]]:
    for path in RULE_FILES:
        for group in load(path)["groups"]:
            yield from group["rules"]


RULES = list(rules())
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERT_NAMES = sorted({rule["alert"] for rule in ALERTS})
ALERT_IDS = [f"{rule['alert']}-{number}" for number, rule in enumerate(ALERTS)]


def selectors(node: Any) -> Iterator[promql_parser.VectorSelector]:
    """Every vector that an expression asks for."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument)
    elif isinstance(node, promql_parser.NumberLiteral | promql_parser.StringLiteral):
        return
    else:  # aggregations, subqueries, parentheses, signs
        yield from selectors(node.expr)


def asked(rule: dict[str, Any]) -> list[promql_parser.VectorSelector]:
    return list(selectors(promql_parser.parse(rule["expr"])))


def labels_of(name: str) -> set[str] | None:
    """The labels that a sample of the registry can have; None if it is not the registry's."""
    for metric in METRICS:
        if name in metric.sample_names:
            own = set(metric.label_names) | TARGET_LABELS
            return own | {"le"} if name.endswith("_bucket") else own
    return None


def values_of(name: str, label: str) -> tuple[str, ...]:
    for metric in METRICS:
        if name in metric.sample_names:
            return next((known.values for known in metric.labels if known.name == label), ())
    return ()


def kebab(alert: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"-\1", alert).lower()


# Prometheus's own word


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_prometheus_takes_the_rules(path: Path) -> None:
    check("promtool", "check", "rules", "--lint-fatal", path, folder=ROOT)


def groups_of(test_file: Path) -> list[str]:
    """Names of the rule groups that a test file loads, in the order of its files."""
    files = [test_file.parent / name for name in load(test_file)["rule_files"]]
    return [group["name"] for file in files for group in load(file)["groups"]]


# promtool evaluates groups in a random order unless it is given one, and Prometheus evaluates them
# side by side: what a test expects has to hold whichever of two groups is first.
ORDERED_TESTS = [
    pytest.param(path, groups[::step], id=f"{path.name}-{'reversed' if step < 0 else 'in-order'}")
    for path in TEST_FILES
    for groups in [groups_of(path)]
    for step in ((1, -1) if len(groups) > 1 else (1,))
]


@pytest.mark.parametrize(("path", "order"), ORDERED_TESTS)
def test_rules_do_what_their_tests_say(path: Path, order: list[str], tmp_path: Path) -> None:
    spec = load(path)
    files = [str((path.parent / name).resolve()) for name in spec["rule_files"]]
    copy = tmp_path / path.name
    copy.write_text(
        yaml.safe_dump({**spec, "rule_files": files, "group_eval_order": order}, sort_keys=False)
    )
    check("promtool", "test", "rules", copy, folder=ROOT)


def test_prometheus_takes_the_example_and_finds_every_rule_file() -> None:
    said = check(
        "promtool", "check", "config", "monitoring/prometheus/prometheus.yaml", folder=ROOT
    )
    assert f"{len(RULE_FILES)} rule files found" in said


# The alerts


@pytest.mark.parametrize("alert", ALERT_NAMES)
def test_alert_is_tested_firing_and_silent(alert: str) -> None:
    expected = [
        bool(case["exp_alerts"])
        for path in TEST_FILES
        for test in load(path)["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]
    assert True in expected, "no test expects it firing"
    assert False in expected, "no test expects it silent"


def test_every_alert_rule_is_tested_firing() -> None:
    # Several rules may have one name; their static labels tell them apart.
    seen = [
        {"alert": case["alertname"], **fired["exp_labels"]}
        for path in TEST_FILES
        for test in load(path)["tests"]
        for case in test.get("alert_rule_test", ())
        for fired in case["exp_alerts"]
    ]
    for rule in ALERTS:
        wanted = {"alert": rule["alert"], **rule["labels"]}
        assert any(wanted.items() <= labels.items() for labels in seen), wanted


@pytest.mark.parametrize("rule", ALERTS, ids=ALERT_IDS)
def test_alert_says_what_an_operator_needs(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert said["runbook_url"] == f"docs/runbooks/{kebab(rule['alert'])}.md"
    assert said["dashboard_url"] in DASHBOARDS
    assert said["description"].endswith(".")


@pytest.mark.parametrize("rule", ALERTS, ids=ALERT_IDS)
def test_only_the_second_line_acts(rule: dict[str, Any]) -> None:
    assert ("penumbra_action" in rule["labels"]) == (rule["alert"] in ACTING)
    if rule["alert"] in ACTING:
        assert rule["labels"]["penumbra_action"] == "rollback"
        assert "max by (model, candidate, slice)" in rule["expr"]
        assert "for" not in rule


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert pages == {f"{kebab(name)}.md" for name in ALERT_NAMES}


@pytest.mark.parametrize("page", ["docs/runbooks/README.md", "docs/alerts.md"])
def test_index_names_every_alert_and_no_other(page: str) -> None:
    named = set(re.findall(r"\bPenumbra[A-Z]\w+", (ROOT / page).read_text()))
    assert named == set(ALERT_NAMES)


@pytest.mark.parametrize("alert", ALERT_NAMES)
def test_runbook_says_what_to_look_at_and_to_do(alert: str) -> None:
    text = (RUNBOOKS / f"{kebab(alert)}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    for heading in ("## What it means", "## What to look at", "## What to do", "## False alarms"):
        assert heading in text


# What expressions ask for


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule.get("alert"))
def test_expression_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    of_engines = {
        prefix + metric.source + suffix
        for prefix in engine.PREFIXES
        for metric in engine.METRICS
        for suffix in (("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",))
    }
    for selector in asked(rule):
        assert selector.name in SAMPLE_NAMES | RECORDED | of_engines | {"up"}, selector.name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule.get("alert"))
def test_selectors_use_labels_and_values_that_exist(rule: dict[str, Any]) -> None:
    for selector in asked(rule):
        known = labels_of(selector.name)
        for matcher in selector.matchers.matchers:
            if known is None:
                continue
            assert matcher.name in known, f"{selector.name} has no label {matcher.name}"
            values = values_of(selector.name, matcher.name)
            if values:
                assert set(matcher.value.split("|")) <= set(values), matcher.value


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_names_keep_the_convention(name: str) -> None:
    of_engines = {sample for metric in engine.METRICS for sample in metric.sample_names}
    assert name in of_engines or re.fullmatch(r"[a-z]+:penumbra_[a-z_]+:[a-z0-9_]+", name)


def test_failures_are_those_of_the_vocabulary() -> None:
    used = set(re.findall(r'outcome[!=]~?"([a-z_|]+)"', "".join(rule["expr"] for rule in RULES)))
    # What others or the request did is neither a failure nor an attempt that could have been one.
    assert {frozenset(alternatives.split("|")) for alternatives in used} == {
        FAILURES,
        FAILURES | {Outcome.OK},
    }


@pytest.mark.parametrize(
    ("recorded", "codes"),
    [
        ("model:penumbra_failed_answers:rate5m", FAILED),
        ("model:penumbra_judged_answers:rate5m", JUDGED),
        ("variant:penumbra_refused_answers:rate5m", REFUSED),
        ("variant:penumbra_invalid_answers:rate5m", {AnswerCode.CLIENT_ERROR}),
        (
            "variant:penumbra_answers:rate5m",
            set(AnswerCode) - {AnswerCode.BROKEN_OFF, AnswerCode.UNANSWERED},
        ),
    ],
)
def test_rules_count_answers_as_the_status_does(recorded: str, codes: set[AnswerCode]) -> None:
    [expression] = [rule["expr"] for rule in RULES if rule.get("record") == recorded]
    [used] = re.findall(r'code=~?"([^"]+)"', expression)
    assert set(used.split("|")) == codes


def test_every_code_of_an_answer_is_judged_by_a_rule() -> None:
    assert set(AnswerCode) == FAILED | JUDGED | REFUSED | {AnswerCode.CLIENT_ERROR}


def test_engine_rules_are_those_of_the_module() -> None:
    text = (MONITORING / "rules" / "engines.yaml").read_text()
    assert text == engine_rules.render(), (
        "make it anew: python -m penumbra.monitoring.telemetry.engine_rules"
    )
    (group,) = yaml.safe_load(text)["groups"]
    assert {rule["record"] for rule in group["rules"]} == {
        sample for metric in engine.METRICS for sample in metric.sample_names
    }


# Alertmanager

ALERTMANAGER = "monitoring/alertmanager/alertmanager.yaml"


def test_alertmanager_takes_its_configuration() -> None:
    check("amtool", "check-config", ALERTMANAGER, folder=ROOT)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("severity=page", "penumbra_action=rollback"), "penumbra,operators"),
        (("severity=page",), "operators"),
        (("severity=info",), "operators"),
    ],
)
def test_acting_alerts_reach_the_webhook_and_people(
    labels: tuple[str, ...], receivers: str
) -> None:
    said = check(
        "amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels, folder=ROOT
    )
    assert said.splitlines()[0].startswith(receivers)
    assert not re.match(rf"{receivers}\w", said)


def test_the_route_that_acts_waits_for_nothing() -> None:
    config = load(ROOT / ALERTMANAGER)
    (route,) = (route for route in config["route"]["routes"] if route["receiver"] == "penumbra")
    assert (route["group_wait"], route["group_interval"]) == ("0s", "1s")
    assert {"model", "candidate"} <= set(route["group_by"])
    (receiver,) = (receiver for receiver in config["receivers"] if receiver["name"] == "penumbra")
    (webhook,) = receiver["webhook_configs"]
    assert webhook["url"].endswith("/admin/v1/alerts")
    assert webhook["send_resolved"] is True
    assert "credentials_file" in webhook["http_config"]["authorization"]
