"""Log calls, their registry and docs/logs.md agree."""

import re
from collections import Counter

from penumbra.monitoring.telemetry.events import COMMON, EVENTS
from tests.support.log_calls import ROOT, log_calls

CALLS = tuple(log_calls())
BY_NAME = {event.name: event for event in EVENTS}


def test_each_event_is_given_once_and_said_in_a_sentence() -> None:
    assert [name for name, count in Counter(e.name for e in EVENTS).items() if count > 1] == []
    for event in EVENTS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", event.name)
        assert event.help.endswith(".")
        assert not set(event.fields) & {*COMMON, "exception"}


def test_what_is_logged_is_what_is_registered() -> None:
    assert {call.event for call in CALLS} == set(BY_NAME)


def test_the_fields_are_those_that_are_registered() -> None:
    for call in CALLS:
        unknown = call.fields - set(BY_NAME[call.event].fields)
        assert not unknown, f"{call.where}: {call.event} has {sorted(unknown)}"
    for event in EVENTS:
        calls = [call for call in CALLS if call.event == event.name]
        given = frozenset[str]().union(*(call.fields for call in calls))
        missing = set(event.fields) - given
        if any(call.is_open for call in calls):  # the trace, where there is one
            missing -= {"trace_id"}
        assert not missing, f"{event.name} never has {sorted(missing)}"


def test_no_field_may_hold_what_was_said() -> None:
    names = {name for event in EVENTS for name in event.fields}
    assert not names & {
        "prompt",
        "body",
        "answer",
        "completion",
        "messages",
        "key",
        "token",
        "user",
    }


def test_the_page_lists_them_all() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|(.*?)\|$", page, re.MULTILINE)
    wanted = [
        (event.name, event.help, ", ".join(f"`{name}`" for name in event.fields))
        for event in EVENTS
    ]
    assert [tuple(cell.strip() for cell in row) for row in rows] == wanted
