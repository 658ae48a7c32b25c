"""A client library of another environment in a process of its own, called line by line.

A call goes in as one line of JSON, its outcome comes out as one; the tests judge the outcome.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class ClientError:
    """The exception that a client raised for an answer."""

    classes: list[str]
    """Its class and those above it, by name."""
    status: int | None
    code: str | None
    param: str | None
    type: str | None
    message: str

    def is_a(self, name: str) -> bool:
        return name in self.classes


@dataclass(frozen=True)
class Outcome:
    """One call's answer, chunks or error; exactly one is there."""

    answer: Any = None
    chunks: list[Any] | None = None
    error: ClientError | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Outcome":
        error = line.pop("error", None)
        return cls(**line, error=error and ClientError(**error))

    @property
    def whole(self) -> Any:
        """The answer of a call that succeeded."""
        assert self.error is None, self.error
        assert self.answer is not None, self
        return self.answer

    @property
    def parts(self) -> list[Any]:
        """The chunks of a stream that ended in order."""
        assert self.error is None, self.error
        assert self.chunks is not None, self
        return self.chunks

    @property
    def failure(self) -> ClientError:
        assert self.error is not None, self
        return self.error


class ClientWorker:
    """A process that reads calls and writes outcomes.

    Args:
        command: The program.
        log: File for its standard error.
        environment: More environment variables.
    """

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = [str(part) for part in command]
        self._log = log
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        self._process.stdout.close()

    def call(self, **call: Any) -> Outcome:
        """Make one call and wait for its outcome."""
        return Outcome.of(self._exchange(call))

    def call_together(self, calls: Sequence[dict[str, Any]]) -> list[Outcome]:
        """Make several calls at once."""
        return [Outcome.of(line) for line in self._exchange({"together": list(calls)})]

    def _exchange(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client's process ended: {self._log.read_text()[-2000:]}"
        return json.loads(line)
