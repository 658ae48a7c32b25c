"""`make demo`: runs the whole installation on this machine under traffic and tells its story.

Makes the builds, starts everything through `penumbra up`, sends traffic, changes flags, brings a
good build up the stages and has a bad one stopped through `penumbra rollout`, asks every build the
same tasks, and writes a summary. Stops all that it started, however it ends, unless `--keep` is
given.

Reading order: `tell`; flips.py, rollouts.py, comparison.py; `main`.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.markdown import Markdown

from penumbra.deployments.config.loader import load
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.demo.commands import ROOT, DemoFailed, Operator
from penumbra.serve.demo.comparison import compare_builds, wait_for
from penumbra.serve.demo.flips import flip_flags
from penumbra.serve.demo.prepare import prepare
from penumbra.serve.demo.rollouts import GOOD, RolloutStory
from penumbra.serve.demo.traffic import MODEL, Traffic
from penumbra.serve.errors import ServeError
from penumbra.serve.supervisor.state import STATE_FILE, read_running

CONFIG = ROOT / "deployments" / "examples" / "demo.yaml"
FOLDER = ROOT / "var" / "demo"
CLIENTS = 10
_SIGNALS = signal.SIGINT, signal.SIGTERM
_LOG_COLUMNS = 120
"""Width of what is printed where there is no terminal."""


async def tell(operator: Operator) -> str:
    """Tell the story; returns the summary as Markdown.

    Raises:
        DemoFailed: Something was not as it should be.
    """
    traffic = Traffic(operator.url, CLIENTS)
    async with traffic.flowing():
        flags = await flip_flags(operator, traffic)
        await wait_for(operator, GOOD)
        rollouts = await RolloutStory(operator, traffic).play()
    builds = await compare_builds(operator)
    return "\n".join(["# What the demo did", "", *flags, "", *rollouts, "", *builds, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    is_kept_running = parser.parse_args(arguments).keep
    console = Console(width=None if sys.stdout.isatty() else _LOG_COLUMNS)
    started = time.monotonic()
    _catch_signals()
    spec = load(CONFIG)
    if not _is_free(console, spec):
        return 1
    is_done = False
    try:
        prepare(FOLDER / "variants", console.print)
        _start()
        summary = _tell_interruptibly(Operator(console, spec))
        _leave(console, summary, time.monotonic() - started)
        is_done = True
    except (DemoFailed, ExceptionGroup) as error:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else [error]
        console.print(f"[red]The demo failed:[/] {causes[0]}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    finally:
        if is_kept_running and is_done:
            _print_urls(console, spec)
        elif (spec.state_dir / STATE_FILE).exists():
            subprocess.run(_command("down"), cwd=ROOT, check=False)  # noqa: S603
    return 0


def _leave(console: Console, summary: str, seconds: float) -> None:
    summary += f"\nTook {seconds / 60:.1f} minutes, the installation of packages left out.\n"
    (FOLDER / "summary.md").write_text(summary)
    console.print(Markdown(summary))
    console.print(f"Summary: {FOLDER / 'summary.md'}")


def _tell_interruptibly(operator: Operator) -> str:
    """The story's summary; a signal ends it by cancelling it.

    An exception out of a signal handler would hit whichever task is running, and leave the others
    to be torn down by the interpreter, with a traceback each.

    Raises:
        KeyboardInterrupt: A signal came.
        DemoFailed: Something was not as it should be.
    """

    async def story() -> str:
        telling = asyncio.ensure_future(tell(operator))
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, telling.cancel)
        return await telling

    try:
        return asyncio.run(story())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        _catch_signals()  # the loop has put back what there is by default


def _catch_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    # Both signals take the same way out, also where a parent had SIGINT ignored.
    raise KeyboardInterrupt


def _is_free(console: Console, spec: PenumbraSpec) -> bool:
    """Whether no demo runs; then the durable flags of an earlier one are forgotten."""
    try:
        read_running(spec.state_dir / STATE_FILE)
    except ServeError:
        for file in spec.state_dir.glob("penumbra.db*"):
            file.unlink()
        return True
    console.print("The demo is running already; stop it first:")
    console.print(f".venv/bin/penumbra down -f {CONFIG.relative_to(ROOT)}")
    return False


def _start() -> None:
    """Start the installation; an interrupted start takes what it has started along."""
    process = subprocess.Popen(_command("up", "--detach"), cwd=ROOT)  # noqa: S603
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    if code != 0:
        raise DemoFailed("`penumbra up` did not start")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penumbra.serve.cli", *arguments, "-f", str(CONFIG)]


def _print_urls(console: Console, spec: PenumbraSpec) -> None:
    gateway, control = spec.gateway, spec.control
    console.print(f"OpenAI API   http://{gateway.host}:{gateway.port}/v1   (model: {MODEL})")
    console.print(f"Admin API    http://{control.host}:{control.port}/docs")
    console.print(f"Status       .venv/bin/penumbra status -f {CONFIG.relative_to(ROOT)}")
    console.print(f"Stop         .venv/bin/penumbra down -f {CONFIG.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
