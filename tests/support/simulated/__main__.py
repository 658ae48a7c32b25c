"""Runs one fault schedule and tells its story: `python -m tests.support.simulated SEED`."""

import logging
import sys
import tempfile
from pathlib import Path

from penumbra.deployments.history.events import Event
from penumbra.deployments.store.store import Store
from tests.support.simulated.schedule import simulate


def main() -> int:
    """Run the seed that the command line names."""
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.stderr.write("found no seed, wanted: python -m tests.support.simulated SEED\n")
        return 2
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        template, folder = Path(name) / "template.db", Path(name) / "installation"
        folder.mkdir()
        Store(f"sqlite:///{template}").close()
        try:
            installation = simulate(int(sys.argv[1]), folder, template)
        except AssertionError as error:
            sys.stdout.write(f"{error}\n")
            return 1
        lines = [*installation.log, "", *map(_line, installation.events())]
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _line(event: Event) -> str:
    return f"epoch {event.epoch} {event.kind} by {event.actor}: {event.reason}"


if __name__ == "__main__":
    sys.exit(main())
