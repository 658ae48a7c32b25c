"""The registry of spans keeps OpenTelemetry's conventions; page and constants agree with it."""

import re
from collections import Counter

import pytest

from penumbra.monitoring.signals.harm import Check
from penumbra.monitoring.telemetry.span_page import BEGIN, span_tables
from penumbra.monitoring.telemetry.spans import SPANS, Attribute, SpanDefinition
from penumbra.monitoring.tracing import semconv
from penumbra.router.gateway.hot_routes import HOT_PATHS
from tests.conformance.test_packages import ROOT

ATTRIBUTES = [attribute for span in SPANS for attribute in span.attributes]
ATTRIBUTES += [
    attribute for span in SPANS for event in span.events for attribute in event.attributes
]
SEMCONV = {value for name, value in vars(semconv).items() if name.isupper() and "." in str(value)}


def test_each_span_is_given_once() -> None:
    assert [name for name, count in Counter(s.name for s in SPANS).items() if count > 1] == []


@pytest.mark.parametrize("span", SPANS, ids=lambda span: span.name)
def test_attributes_of_a_span_are_given_once(span: SpanDefinition) -> None:
    names = [attribute.name for attribute in span.attributes]
    assert len(set(names)) == len(names)
    assert span.help.endswith(".")


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: one.name)
def test_a_name_is_ours_or_one_of_the_conventions(attribute: Attribute) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)+", attribute.name)
    assert attribute.name.startswith("penumbra.") != (attribute.name in SEMCONV)
    assert attribute.help.endswith(".")


def test_every_name_of_the_conventions_is_used() -> None:
    used = {attribute.name for attribute in ATTRIBUTES} | {
        e.name for span in SPANS for e in span.events
    }
    operations = set(map(str, semconv.OPERATIONS))
    assert SEMCONV - {str(semconv.OPERATIONS), *operations} == used & SEMCONV


def test_no_attribute_may_hold_what_was_said() -> None:
    last_words = {attribute.name.rpartition(".")[2] for attribute in ATTRIBUTES}
    said = {"prompt", "content", "messages", "body", "text", "user", "cause"}
    assert not last_words & said


def test_each_hot_route_has_an_operation() -> None:
    assert {path.decode() for path in HOT_PATHS} == set(semconv.OPERATIONS)


def test_harm_checks_are_those_of_the_code() -> None:
    (checks,) = [
        attribute for attribute in ATTRIBUTES if attribute.name == "penumbra.failed_checks"
    ]
    assert set(checks.values) == {check.value for check in Check}


def test_the_page_is_made_of_the_registry() -> None:
    page = (ROOT / "docs" / "traces.md").read_text()
    assert page.partition(BEGIN)[2].strip() == span_tables().strip()
