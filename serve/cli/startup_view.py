"""Display of `penumbra up` while it loads: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from penumbra.serve.supervisor.published_state import Observer
from penumbra.serve.supervisor.state import Phase, RunState

REMINDER_SECONDS = 15.0
_COLOURS = {
    Phase.READY: "green",
    Phase.FAILED: "red",
    Phase.UNREACHABLE: "red",
    Phase.RESTARTING: "yellow",
}


@dataclass(frozen=True)
class Item:
    """One line of the display."""

    name: str
    phase: Phase
    log: str
    note: str = ""


def items(state: RunState) -> list[Item]:
    """The lines for a state: variants, then control process and gateways."""
    variants = [
        Item(
            name=f"{record.model}/{record.variant}",
            phase=record.phase,
            log=_short(record.log) if record.log else record.url,
            note=record.message.partition("\n")[0] if record.phase is not Phase.READY else "",
        )
        for record in state.variants
    ]
    processes = [
        Item(name=record.name, phase=record.phase, log=_short(record.log))
        for record in state.processes
        if record.name != "fleet"  # Its variants are above.
    ]
    return [*variants, *processes]


@contextmanager
def startup_view(console: Console, *, is_plain: bool) -> Iterator[Observer]:
    """A display for the duration of a block.

    Args:
        console: The terminal or file to write to.
        is_plain: Lines instead of a live table.
    """
    if is_plain:
        yield PlainView(console).observe
        return
    table = LiveView()
    with Live(console=console, get_renderable=table.render, refresh_per_second=4) as live:
        yield _until_ready(table, live)


def summary(state: RunState) -> str:
    """URLs and next commands for the operator, once everything is ready."""
    models = list(dict.fromkeys(record.model for record in state.variants))
    body = f'{{"model": "{models[0]}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return "\n".join(
        [
            *(f"Warning   {text}" for text in warnings_of(state)),
            f"Gateway   {state.gateway_url}/v1   models: {', '.join(models)}",
            f"Control   {state.admin_url}      docs: {state.admin_url}/docs",
            f"Try       curl {state.gateway_url}/v1/chat/completions"
            f" -H 'content-type: application/json' -d '{body}'",
            "Stop      Ctrl-C, or `penumbra down`; look with `penumbra status`",
        ]
    )


def warnings_of(state: RunState) -> list[str]:
    """The differences between what builds serve and the configuration, with what mends each."""
    return [text for record in state.variants for text in (*record.problems, *record.warnings)]


class PlainView:
    """Prints a line for every change of a phase, and a reminder while something takes long."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._printed_at = time.monotonic()
        self._phases: dict[str, Phase] = {}
        self._is_announced = False
        self._warned: set[str] = set()

    def observe(self, state: RunState) -> None:
        """Print what has changed."""
        for item in items(state):
            if self._phases.get(item.name) is not item.phase:
                self._phases[item.name] = item.phase
                note = f" - {item.note}" if item.note else ""
                self._print_timed(f"{item.name}: {item.phase}{note} ({item.log})")
        for text in warnings_of(state):
            if text not in self._warned:
                self._warned.add(text)
                self._print_timed(f"warning: {text}")
        if state.is_ready and not self._is_announced:
            self._is_announced = True
            self._print_timed("ready")
            self._print(summary(state))
        waiting = [item.name for item in items(state) if item.phase is not Phase.READY]
        if not state.is_ready and time.monotonic() - self._printed_at > REMINDER_SECONDS:
            self._print_timed(f"still waiting for {', '.join(waiting)}")

    def skip(self, state: RunState) -> None:
        """Take a state as known: only later changes are printed."""
        self._phases = {item.name: item.phase for item in items(state)}
        self._is_announced = state.is_ready
        self._warned = set(warnings_of(state))

    def _print_timed(self, text: str) -> None:
        self._printed_at = time.monotonic()
        self._print(f"[{self._printed_at - self._began:5.1f} s] {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """Live table; it is drawn several times a second, so it only reads the last state."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._since: dict[str, tuple[Phase, float]] = {}
        self._began = time.monotonic()

    def observe(self, state: RunState) -> None:
        """Remember the state, and since when each line is in its phase."""
        self._items = items(state)
        for item in self._items:
            if item.name not in self._since or self._since[item.name][0] is not item.phase:
                self._since[item.name] = (item.phase, time.monotonic())

    def render(self) -> Table:
        """The table as it is now."""
        now = time.monotonic()
        table = Table(title=f"penumbra up, {now - self._began:.0f} s", title_justify="left")
        for heading in ("", "is", "for", "log"):
            table.add_column(heading)
        for item in self._items:
            colour = _COLOURS.get(item.phase, "cyan")
            seconds = f"{now - self._since[item.name][1]:.0f} s"
            table.add_row(item.name, f"[{colour}]{item.phase}[/]", seconds, item.log)
        return table


def _until_ready(table: LiveView, live: Live) -> Observer:
    """An observer that shows the table until all is ready, then lines that scroll by."""
    plain: PlainView | None = None

    def observe(state: RunState) -> None:
        nonlocal plain
        if plain is not None:
            plain.observe(state)
            return
        table.observe(state)
        if state.is_ready:
            live.refresh()
            live.stop()
            plain = PlainView(live.console)
            plain.skip(state)
            live.console.print(summary(state), markup=False, highlight=False, soft_wrap=True)

    return observe


def _short(log: str) -> str:
    path = Path(log)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return log
