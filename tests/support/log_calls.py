"""Finds the log calls in the source: each event with the fields that it is given."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("serve", "router", "deployments", "monitoring")
_NO_SERVICES = {ROOT / "serve" / name for name in ("demo", "cli")}
"""Files whose log calls write their callers' events."""
_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "log"})
_LOGGERS = frozenset({"log", "_log"})


@dataclass(frozen=True)
class LogCall:
    event: str
    fields: frozenset[str]
    is_open: bool
    """Whether it may have more fields than can be read: `**more`, or a name for all of them."""
    where: str


def log_calls() -> Iterator[LogCall]:
    """Every call that writes a log line."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if not _NO_SERVICES.isdisjoint(file.parents):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and _is_log_call(node):
                    yield _call(node, f"{file.relative_to(ROOT)}:{node.lineno}")


def _is_log_call(node: ast.Call) -> bool:
    extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
    if isinstance(extra, ast.Dict):
        return True
    function = node.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id in _LOGGERS
    )


def _call(node: ast.Call, where: str) -> LogCall:
    texts = [
        argument.value
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    assert len(texts) == 1, f"{where}: wanted the event's name as the one text"
    extra = next(
        (keyword.value for keyword in node.keywords if keyword.arg == "extra"), ast.Dict([], [])
    )
    if not isinstance(extra, ast.Dict):
        return LogCall(texts[0], frozenset(), is_open=True, where=where)
    names = {key.value for key in extra.keys if isinstance(key, ast.Constant)}
    fields = frozenset(name for name in names if isinstance(name, str))
    return LogCall(texts[0], fields, is_open=None in extra.keys, where=where)
