"""`python -m penumbra.serve.hosting PLAN.json`: the fleet process, which follows its plan.

Runs until SIGTERM, SIGINT or the death of its parent; events go to standard output, everything
else to standard error. It adopts the orphans among its descendants (HAProxy outlives the actor that
started it when that is killed) and ends them all before it leaves.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

from penumbra.monitoring.logs import configure_logs
from penumbra.router.hangups import ignore_hangups
from penumbra.serve.hosting.cluster import HAPROXY_FOLDER, ray_environment, write_haproxy_wrapper
from penumbra.serve.hosting.plan import FleetPlan, PlanFile
from penumbra.serve.processes import become_subreaper, end_descendants, reap_adopted

_POLL_SECONDS = 0.5


def main() -> int:
    """Deploy the plan and report until told to stop."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray and its libraries print to standard output as they please.
    ignore_hangups()
    file = PlanFile(Path(sys.argv[1]))
    plan = file.read()
    configure_logs("fleet")
    _prepare(plan)
    become_subreaper()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _leave(stop))
    signal.signal(signal.SIGINT, lambda *_: _leave(stop))
    try:
        _run(plan, file, stop, events)
    except SystemExit:
        pass
    finally:
        end_descendants()
        shutil.rmtree(plan.folder, ignore_errors=True)
    return 0


def _run(plan: FleetPlan, file: PlanFile, stop: threading.Event, events: TextIO) -> None:
    from penumbra.serve.hosting.fleet import fleet

    with fleet(plan) as deployed:
        while not stop.wait(_POLL_SECONDS):
            changed = file.read_changed()
            if changed is not None:
                deployed.follow(changed)
            for event in deployed.changes():
                events.write(event.model_dump_json() + "\n")
            reap_adopted()


def _leave(stop: threading.Event) -> None:
    if not stop.is_set():
        stop.set()
        sys.exit(0)  # Out of whatever Ray is waiting for, through the `finally`s.


def _prepare(plan: FleetPlan) -> None:
    """Ray reads its environment when it is imported, so this comes before."""
    folder = Path(plan.folder)
    (folder / HAPROXY_FOLDER).mkdir(parents=True, exist_ok=True)
    environment = ray_environment(folder)
    if plan.address is None:
        write_haproxy_wrapper(folder, environment)
    os.environ.update(environment)


if __name__ == "__main__":
    sys.exit(main())
