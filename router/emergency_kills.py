"""Kills that an operator gave one gateway process itself, over the flags that it is told.

For a candidate that must go at once while no control process can be reached. Such a kill holds
until the kill switch of the model's own flag is on: from then on that decides, and an operator can
take it back. It never ends by itself, so it is kept in a file and holds after a restart.
"""

import asyncio
import logging
import os
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot

log = logging.getLogger(__name__)

MOST_REASON_CHARS = 1000
_TOLD_CHARS = 200


class EmergencyKill(BaseModel):
    """One kill."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, max_length=1024)
    reason: str = Field(min_length=1, max_length=MOST_REASON_CHARS)
    actor: str = Field(min_length=1, max_length=128)
    """The operator, by their own word."""


_ADAPTER: TypeAdapter[tuple[EmergencyKill, ...]] = TypeAdapter(tuple[EmergencyKill, ...])


class EmergencyKills:
    """The kills of one gateway process.

    Args:
        file: Where they are kept, readable by its owner only; None keeps none.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kills = {} if file is None else _read(file)
        self._lock = threading.Lock()

    @property
    def reasons(self) -> dict[str, str]:
        """Model -> why it was killed here, cut to a line's length."""
        return {
            name: f"{kill.reason} ({kill.actor})"[:_TOLD_CHARS]
            for name, kill in self._kills.items()
        }

    def over(self, name: str, model: ModelSnapshot) -> ModelSnapshot:
        """A model as it is in force here."""
        if name not in self._kills:
            return model
        return model.model_copy(update={"flag": model.flag.model_copy(update={"killed": True})})

    def add(self, kill: EmergencyKill) -> None:
        """Take a kill; it is in force with the next table that is put into force."""
        self._kills[kill.model] = kill
        log.warning(
            "emergency_kill",
            extra={"model": kill.model, "actor": kill.actor, "reason": kill.reason},
        )

    def end_with(self, table: Snapshot) -> None:
        """End the kills of models whose own flag is killed in a table."""
        over = [name for name in self._kills if _is_killed(table, name)]
        for name in over:
            del self._kills[name]
            log.warning("emergency_kill_over", extra={"model": name, "epoch": table.epoch})
        if over:
            try:
                asyncio.get_running_loop().run_in_executor(None, self._keep)
            except RuntimeError:
                self._keep()  # the process is starting

    async def keep(self) -> bool:
        """Write them to the file; returns whether they outlive the process."""
        return await asyncio.get_running_loop().run_in_executor(None, self._keep)

    def _keep(self) -> bool:
        if self._file is None:
            return False
        with self._lock:  # the last one to write writes the latest
            kills = tuple(self._kills.values())
            new = self._file.with_suffix(".new")
            try:
                new.unlink(missing_ok=True)
                descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as opened:
                    opened.write(_ADAPTER.dump_json(kills))
                    opened.flush()
                    os.fsync(opened.fileno())
                new.replace(self._file)
            except OSError as error:
                _report(self._file, error)
                return False
        return True


def _is_killed(table: Snapshot, name: str) -> bool:
    model = table.models.get(name)
    return model is not None and model.flag.killed


def _read(file: Path) -> dict[str, EmergencyKill]:
    try:
        return {kill.model: kill for kill in _ADAPTER.validate_json(file.read_bytes())}
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        _report(file, error)
        return {}


def _report(file: Path, error: Exception) -> None:
    detail = getattr(error, "strerror", None) or type(error).__name__
    log.error("emergency_kills_not_kept", extra={"file": str(file), "error": detail})
