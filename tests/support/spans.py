"""Received spans beside the registry: no name that it does not have, and each that it has."""

import re
from collections.abc import Iterable

from penumbra.monitoring.telemetry.metric import Process
from penumbra.monitoring.telemetry.spans import SPANS, Attribute, SpanDefinition, Type
from tests.support.otlp import Received

_TYPES: dict[Type, type] = {
    Type.STRING: str,
    Type.INT: int,
    Type.DOUBLE: float,
    Type.BOOL: bool,
    Type.STRINGS: list,
}


def definition_of(span: Received) -> SpanDefinition:
    """Which span of the registry it is."""
    service = span.resource["service.name"].removeprefix("penumbra-")
    found = [
        one
        for one in SPANS
        if one.process.value == service
        and one.kind.value == span.kind
        and re.fullmatch(_pattern(one.name), span.name)
    ]
    assert len(found) == 1, f"{span.name} ({span.kind}) of {service} is not in the registry"
    return found[0]


def check(span: Received) -> None:
    """Nothing in it that the registry does not have, each value of its type and set."""
    definition = definition_of(span)
    _check_attributes(span.attributes, definition.attributes, span.name)
    events = {event.name: event for event in definition.events}
    for event in span.events:
        assert event.name in events, f"{event.name} in {span.name}"
        _check_attributes(event.attributes, events[event.name].attributes, event.name)


def unseen(process: Process, spans: Iterable[Received]) -> set[str]:
    """What the registry has of a process and none of these spans shows."""
    seen: set[str] = set()
    for span in spans:
        name = definition_of(span).name
        seen |= {name, *(f"{name}/{one}" for one in span.attributes)}
        for event in span.events:
            seen |= {f"{name}/{event.name}"}
            seen |= {f"{name}/{event.name}/{one}" for one in event.attributes}
    return _registered(process) - seen


def _registered(process: Process) -> set[str]:
    names: set[str] = set()
    for one in SPANS:
        if one.process is not process:
            continue
        names |= {one.name, *(f"{one.name}/{attribute.name}" for attribute in one.attributes)}
        for event in one.events:
            names.add(f"{one.name}/{event.name}")
            names |= {f"{one.name}/{event.name}/{attribute.name}" for attribute in event.attributes}
    return names


def _check_attributes(found: dict[str, object], wanted: tuple[Attribute, ...], where: str) -> None:
    known = {attribute.name: attribute for attribute in wanted}
    for name, value in found.items():
        assert name in known, f"{name} in {where} is not in the registry"
        attribute = known[name]
        assert type(value) is _TYPES[attribute.type], f"{name} is {value!r}"
        if attribute.values:
            said = value if isinstance(value, list) else [value]
            assert set(said) <= set(attribute.values), f"{name} is {value!r}"


def _pattern(name: str) -> str:
    if name == "{operation} {model}":  # of a request that was refused there is no model
        return r"(chat|text_completion|embeddings|tokenize|detokenize)( [\w.-]+)?"
    return re.sub(r"\\{\w+\\}", r"[\\w.-]+", re.escape(name))
