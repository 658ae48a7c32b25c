"""Runs the shell blocks of documents as written: one folder and one environment a scenario."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.documents import Block, blocks

BLOCK_SECONDS = 120.0
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Scenario:
    """Blocks of one or more documents that build on each other.

    Args:
        name: As the comments above the blocks have it.
        folder: Empty; the blocks run in it.
        environment: Variables of the shell, beside PATH and HOME.
    """

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", **environment}
        self._printed = ""

    def play(self, documents: Iterable[str]) -> int:
        """Run the blocks in their order; returns how many ran.

        Raises:
            AssertionError: A command failed, or did not print what the document shows.
        """
        ran = 0
        for document in documents:
            for block in blocks(document):
                if block.is_tagged("file", self.name):
                    (self.folder / block.arguments[0]).write_text(block.text)
                elif block.is_tagged("run", self.name):
                    status = int(block.arguments[1]) if block.arguments else 0
                    self._printed = self.run(block.text, block.place, status)
                    ran += 1
                elif block.is_tagged("shown", self.name):
                    self._compare(block)
        return ran

    def run(self, commands: str, place: str, status: int = 0) -> str:
        """Run commands with `bash -eu`; returns what they printed.

        Raises:
            AssertionError: The exit status is another one, or it took too long.
        """
        with subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as shell:
            try:
                printed, _ = shell.communicate(timeout=BLOCK_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                printed, _ = shell.communicate()
                raise AssertionError(
                    f"{place}: not done in {BLOCK_SECONDS} s:\n{printed}"
                ) from None
        assert shell.returncode == status, f"{place}: exit status {shell.returncode}:\n{printed}"
        return printed

    def _compare(self, block: Block) -> None:
        printed = [_pattern(line) for line in self._printed.splitlines()]
        for line in filter(None, map(str.strip, block.text.splitlines())):
            assert _pattern(line) in printed, f"{block.place}: {line!r} is not in:\n{self._printed}"


def _pattern(line: str) -> str:
    """A line without what differs from run to run: numbers and the width of blanks."""
    return _NUMBER.sub("N", " ".join(line.split()))
