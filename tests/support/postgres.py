"""A PostgreSQL server of its own for a test, on a Unix socket in a folder."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_USER = "postgres"


def find_binaries() -> Path | None:
    """Folder of `initdb` and `pg_ctl`; None if PostgreSQL is not installed."""
    found = shutil.which("initdb", path=os.pathsep.join([os.environ["PATH"], *map(str, _FOLDERS)]))
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """A server that can be stopped and started."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        # PostgreSQL refuses to run as root.
        self._user = _USER if os.geteuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-A", "trust", "-U", "penumbra", "--no-sync")
        self.url = f"postgresql+psycopg://penumbra@/postgres?host={folder}"

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses=''"
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        """Stop at once, as in a crash, without closing connections in order."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def silence(self) -> None:
        """Stop all its processes as they are: connections stay, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a silenced server go on where it was."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        first = (self._folder / "data" / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(first))
        # The postmaster first, so that it starts no other meanwhile.
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                process.send_signal(number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._user,
            cwd=self._folder,
            timeout=60,
        )


@contextmanager
def postgres_server(binaries: Path) -> Iterator[PostgresServer]:
    """Run a server. Its folder's path is short, as a socket's has to be."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as name:
        server = PostgresServer(binaries, Path(name))
        server.start()
        try:
            yield server
        finally:
            server.resume()
            server.stop()
