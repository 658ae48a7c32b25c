"""Finds the processes that serve a variant on this machine, for demos and tests that kill them."""

import psutil

from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.state import read_state


def replica_pids(folder: StateFolder, application: str) -> list[int]:
    """Ids of the replicas of one Ray Serve application and of all their children (engine, worker).

    Args:
        folder: State folder of the running installation.
        application: Name of the application, e.g. `demo-int8`.
    """
    state = read_state(folder.state)
    fleet = next(record.pid for record in state.processes if record.name == "fleet")
    found: list[psutil.Process] = []
    for process in psutil.Process(fleet).children(recursive=True):
        # Ray names its workers after the actor they run.
        title = " ".join(process.cmdline()[:1])
        if title.startswith(f"ray::ServeReplica:{application}:"):
            found += [process, *process.children(recursive=True)]
    return [process.pid for process in found]
