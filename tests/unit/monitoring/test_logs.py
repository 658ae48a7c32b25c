"""Log lines: their fields, and the part of an exception that they show."""

import json
import logging
import sys
from typing import Any

import pytest

from penumbra.monitoring.logs import JsonFormatter, trace_field

SECRET = "what-a-user-wrote"


def line(formatter: JsonFormatter, error: Exception | None = None, **fields: Any) -> dict[str, Any]:
    found = None
    if error is not None:
        try:
            raise error
        except type(error):
            found = sys.exc_info()
    logger = logging.getLogger("penumbra.router.test")
    record = logger.makeRecord(
        "penumbra.router.test", 20, "f", 1, "it_happened", (), found, extra=fields
    )
    written: dict[str, Any] = json.loads(formatter.format(record))
    return written


def test_a_line_is_an_event_with_its_fields() -> None:
    found = line(JsonFormatter("gateway-0"), epoch=3, text="Zürich")
    assert found.pop("at").endswith("+00:00")
    assert found == {
        "level": "info",
        "process": "gateway-0",
        "logger": "penumbra.router.test",
        "event": "it_happened",
        "epoch": 3,
        "text": "Zürich",
    }


@pytest.mark.parametrize("error", [KeyError(SECRET), ValueError(f"found {SECRET}")])
def test_where_content_passes_an_exceptions_text_is_not_written(error: Exception) -> None:
    found = line(JsonFormatter("gateway-0", sees_content=True), error)
    assert SECRET not in json.dumps(found)
    assert found["exception"].endswith(type(error).__name__)
    assert "test_logs.py" in found["exception"]


def test_the_operating_systems_reason_is_written_everywhere() -> None:
    found = line(JsonFormatter("gateway-0", sees_content=True), OSError(28, "No space left"))
    assert found["exception"].endswith("OSError: No space left")


def test_where_none_passes_it_is_written_whole() -> None:
    assert "found it" in line(JsonFormatter("control"), ValueError("found it"))["exception"]


def test_the_trace_is_a_field_only_if_there_is_one() -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert trace_field(header) == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert trace_field("") == {}
