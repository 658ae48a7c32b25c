"""`penumbra rollout watch`: follows one rollout to its end, on a screen or as lines."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.live import Live

from penumbra.serve.cli.admin_client import NoAnswer
from penumbra.serve.cli.rollout_texts import Json, times_text
from penumbra.serve.cli.rollout_views import rollout_view, stage_name

PERIOD_SECONDS = 0.5
PROGRESS_SECONDS = 10.0
ACKNOWLEDGE_SECONDS = 2.0
_ENDS = ("rolled_back", "off")
_LAST = ("promoted", "graduated")
_SIGNS = ("stage", "is_held", "frozen_cause", "verdict", "proven", "quarantined", "run")

Look = Callable[[], Json]
Show = Callable[[Json], None]


class Ending(IntEnum):
    """End of a watch; the value is its exit status."""

    REACHED = 0
    ROLLED_BACK = 3
    """Rolled back, or ended by an operator."""
    TIMED_OUT = 6


def ending(view: Json, until: str) -> Ending | None:
    """Whether a rollout has reached `until`, or cannot reach it by itself; None while it goes on.

    Args:
        view: The rollout now.
        until: A stage of it as it is written in the spec, `promoted` or `rolled_back`.
    """
    stages = [*(_plain(stage) for stage in view["spec"]["stages"]), *_LAST]
    here, wanted = _plain(view["stage"]), _plain(until)
    if here == wanted:
        return Ending.REACHED
    if here in _ENDS:
        return Ending.ROLLED_BACK
    is_past = wanted in stages and here in stages and stages.index(here) > stages.index(wanted)
    return Ending.REACHED if is_past else None


def known_ends(view: Json) -> list[str]:
    """Values that `until` may have."""
    return [*(_plain(stage) for stage in view["spec"]["stages"]), "promoted", "rolled_back"]


def follow(look: Look, show: Show, until: str, timeout_seconds: float | None) -> Ending:
    """Poll the rollout until it has reached `until` or cannot reach it.

    A control process that stops answering is asked again, for it may be restarting; standard error
    says so, once each time.

    Args:
        look: Reads the rollout.
        show: Is given every view.
        until: A stage of it as written in the spec, `promoted` or `rolled_back`.
        timeout_seconds: Longest time to watch; None is no limit.

    Raises:
        NoAnswer: The control process did not answer the first time.
    """
    began = time.monotonic()
    views = _views(look)
    for view in views:
        end = ending(view, until)
        if end is None:
            show(view)
        else:
            show(_wait_for_acknowledgement(view, views))
            return end
        if timeout_seconds is not None and time.monotonic() - began >= timeout_seconds:
            break
    return Ending.TIMED_OUT


def _views(look: Look) -> Iterator[Json]:
    yield look()
    is_silent = False
    while True:
        time.sleep(PERIOD_SECONDS)
        try:
            view, is_silent = look(), False
        except NoAnswer as error:
            if not is_silent:
                Console(stderr=True).print(f"{error}; asking again", style="yellow", markup=False)
            is_silent = True
            continue
        yield view


def _wait_for_acknowledgement(view: Json, views: Iterator[Json]) -> Json:
    """The view of a rollback once its last gateway has acknowledged it, or after two seconds."""
    deadline = time.monotonic() + ACKNOWLEDGE_SECONDS
    while view["stage"] == "rolled_back" and time.monotonic() < deadline:
        rollback = view["last_rollback"]
        if rollback and rollback["durable_to_acknowledged_ms"] is not None:
            break
        view = next(views)
    return view


@contextmanager
def screen(console: Console, *, as_json: bool) -> Iterator[Show]:
    """The display of a watch: live on a terminal, else a line for every change."""
    if as_json:
        yield JsonLines(console).show
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda view: live.update(rollout_view(view), refresh=True)
    else:
        yield Lines(console).show


class Lines:
    """Prints a line for every change, and from time to time one about the evidence."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._seen: dict[str, Any] = {}
        self._last: tuple[float, int] = (0.0, -1)

    def show(self, view: Json) -> None:
        """Print what has changed since the last view."""
        signs = {name: view[name] for name in _SIGNS}
        now = time.monotonic()
        if signs != self._seen:
            self._seen = signs
            self._print(now, change_line(view))
            for line in _details(view):
                self._print(now, f"  {line}")
        elif now - self._last[0] >= PROGRESS_SECONDS and view["pairs"] != self._last[1]:
            self._print(now, progress_line(view))
        else:
            return
        self._last = now, view["pairs"]

    def _print(self, now: float, text: str) -> None:
        line = f"[{now - self._began:6.1f} s] {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class JsonLines:
    """Prints a JSON object on a line for every change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen = ""

    def show(self, view: Json) -> None:
        """Print the view if it has changed in what matters."""
        names = ("model", "candidate", *_SIGNS, "share", "cause", "pairs", "last_rollback")
        signs = json.dumps({name: view[name] for name in _SIGNS})
        if signs != self._seen:
            self._seen = signs
            text = json.dumps({name: view[name] for name in names}, ensure_ascii=False)
            self._console.out(text, highlight=False)


def change_line(view: Json) -> str:
    """State of a rollout, in one line."""
    parts = [
        f"{view['candidate']}: {stage_name(view['stage'])}",
        f"{view['pairs']} pairs",
        f"verdict {view['verdict'] or 'undecided'}",
    ]
    if view["proven"]:
        parts.append(f"proven {', '.join(view['proven'])}")
    if view["quarantined"]:
        parts.append(f"quarantined {', '.join(view['quarantined'])}")
    if view["is_held"]:
        parts.append(f"held: {view['held_cause']}")
    if view["frozen_cause"]:
        parts.append(f"frozen: {view['frozen_cause']}")
    return "; ".join([*parts, view["cause"]])


def progress_line(view: Json) -> str:
    """Progress of the evidence, in one line."""
    parts = [
        f"{signal['signal']} {signal['evidence']:.3g} of {signal['boundary']:.4g}"
        for signal in view["signals"]
        if signal["evidence"] > 0
    ]
    missing = [gate["name"] for gate in view["gates"] if not gate["is_met"]]
    text = f"{view['candidate']}: {view['pairs']} pairs; evidence {', '.join(parts) or 'none'}"
    return f"{text}; waits for {', '.join(missing)}" if missing else text


def _details(view: Json) -> Iterator[str]:
    if view["stage"] != "rolled_back":
        return
    for signal in view["signals"]:
        if signal["is_tripped"]:
            named = ", ".join(signal["culprits"]) or "no slice named"
            yield (
                f"{signal['signal']}: evidence {signal['evidence']:.4g} reached"
                f" {signal['boundary']:.4g}; {named}"
            )
    if view["last_rollback"]:
        yield times_text(view["last_rollback"])


def _plain(stage: object) -> str:
    return str(stage).strip().removesuffix("%").strip().removesuffix(".0")
