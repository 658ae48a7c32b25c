"""Renders the tables of docs/traces.md: `python -m penumbra.monitoring.telemetry.span_page`."""

import sys
from collections.abc import Iterator, Sequence

from penumbra.monitoring.telemetry.spans import SPANS, Attribute, SpanDefinition

BEGIN = "<!-- made by monitoring/telemetry/span_page.py -->\n"
"""Marker before the tables, which go on to the end of the page."""


def span_tables() -> str:
    """Tables of all spans, as Markdown."""
    return "\n".join(line for span in SPANS for line in _span(span))


def _span(span: SpanDefinition) -> Iterator[str]:
    yield f"### `{span.name}`\n"
    yield f"{span.kind.value.capitalize()} span of the {span.process.value}. {span.help}\n"
    yield from _table(span.attributes)
    for event in span.events:
        yield f"Event `{event.name}`: {event.help}\n"
        yield from _table(event.attributes)


def _table(attributes: Sequence[Attribute]) -> Iterator[str]:
    if not attributes:
        return
    yield "| attribute | type | says | one of |"
    yield "|---|---|---|---|"
    for attribute in attributes:
        values = ", ".join(f"`{value}`" for value in attribute.values)
        yield f"| `{attribute.name}` | {attribute.type.value} | {attribute.help} | {values} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(span_tables() + "\n")
