"""Structured logs: one JSON object a line, on standard error.

A record is an event name and fields: `log.info("snapshot_applied", extra={"epoch": 12})`. Prompts,
completions and keys are never fields. `penumbra.monitoring.telemetry.events` has all events;
docs/logs.md lists them.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from penumbra.monitoring.tracing.context import read_traceparent

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    Args:
        process: Name of the process.
        sees_content: Whether prompts and answers pass through the process. The text of an exception
            may quote what it could not handle, so in such a process only the type and the place of
            an exception are written. An error of the operating system quotes nothing.
    """

    def __init__(self, process: str, *, sees_content: bool = False) -> None:
        super().__init__()
        self._process = process
        self._sees_content = sees_content

    def format(self, record: logging.LogRecord) -> str:
        """One JSON line for a record."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "at": at,
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self._exception(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)

    def _exception(self, found: _ExcInfo) -> str:
        error = found[1]
        if not self._sees_content or error is None:
            return self.formatException(found)
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = f": {error.strerror}" if isinstance(error, OSError) else ""
        return f"{frames}{type(error).__name__}{text}"


def trace_field(traceparent: str) -> dict[str, str]:
    """The field `trace_id` for log lines about a request; no field if it is not traced."""
    found = read_traceparent(traceparent.encode("latin-1"))
    return {} if found is None else {"trace_id": found.trace_hex}


def configure_logs(process: str, level: str = "INFO", *, sees_content: bool = False) -> None:
    """Send all log records to standard error as JSON lines; call once, at the entry point.

    Args:
        process: Name of the process, e.g. `gateway-0`.
        level: Least severe level that is written.
        sees_content: See `JsonFormatter`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process, sees_content=sees_content))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # httpx logs every request line at INFO; access logs are metrics here.
    for noisy in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
