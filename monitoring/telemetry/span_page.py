"""The tables of docs/traces.md; `python -m penumbra.monitoring.telemetry.span_page` writes them."""

import sys
from collections.abc import Iterator, Sequence

from penumbra.monitoring.telemetry.spans import SPANS, Attribute, SpanDefinition

BEGIN = "<!-- made by monitoring/telemetry/span_page.py -->\n"
"""Where the tables begin; they go on to the end of the page."""


def span_tables() -> str:
    """All spans, in Markdown."""
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
    for one in attributes:
        values = ", ".join(f"`{value}`" for value in one.values)
        yield f"| `{one.name}` | {one.type.value} | {one.help} | {values} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(span_tables() + "\n")
