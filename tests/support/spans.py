"""Compares received spans with the registry: no unknown name, and every known one."""

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
    """The definition of a span in the registry."""
    service = span.resource["service.name"].removeprefix("penumbra-")
    found = [
        definition
        for definition in SPANS
        if definition.process.value == service
        and definition.kind.value == span.kind
        and re.fullmatch(_pattern(definition.name), span.name)
    ]
    assert len(found) == 1, f"{span.name} ({span.kind}) of {service} is not in the registry"
    return found[0]


def check(span: Received) -> None:
    """Assert that all names of a span are registered and all values are of their types and sets."""
    definition = definition_of(span)
    _check_attributes(span.attributes, definition.attributes, span.name)
    events = {event.name: event for event in definition.events}
    for event in span.events:
        assert event.name in events, f"{event.name} in {span.name}"
        _check_attributes(event.attributes, events[event.name].attributes, event.name)


def unseen(process: Process, spans: Iterable[Received]) -> set[str]:
    """Names that the registry has for a process and that none of these spans shows."""
    seen: set[str] = set()
    for span in spans:
        name = definition_of(span).name
        seen |= {name, *(f"{name}/{attribute}" for attribute in span.attributes)}
        for event in span.events:
            seen |= {f"{name}/{event.name}"}
            seen |= {f"{name}/{event.name}/{attribute}" for attribute in event.attributes}
    return _registered(process) - seen


def _registered(process: Process) -> set[str]:
    names: set[str] = set()
    for definition in SPANS:
        if definition.process is not process:
            continue
        names |= {
            definition.name,
            *(f"{definition.name}/{attribute.name}" for attribute in definition.attributes),
        }
        for event in definition.events:
            names.add(f"{definition.name}/{event.name}")
            names |= {
                f"{definition.name}/{event.name}/{attribute.name}" for attribute in event.attributes
            }
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
