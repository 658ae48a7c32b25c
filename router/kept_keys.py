"""The API keys that the control process told one gateway process last, in a file of its own.

A gateway that is started again while no control process answers would otherwise take the keys of
its settings file, and with them one that was revoked since.
"""

import asyncio
import logging
import os
import threading
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.settings import GatewaySettings

log = logging.getLogger(__name__)

_ADAPTER: TypeAdapter[tuple[KeySettings, ...]] = TypeAdapter(tuple[KeySettings, ...])


class KeptKeys:
    """The file of one gateway process.

    Args:
        file: Where it lies; it is readable by its owner only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = self._latest = self.read()
        self._lock = threading.Lock()

    def read(self) -> tuple[KeySettings, ...] | None:
        """Read it; None if there is none, or none of use."""
        try:
            return _ADAPTER.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            self._report(type(error).__name__)
            return None

    def keep(self, keys: tuple[KeySettings, ...] | None) -> None:
        """Write keys that were told, in a thread; None: none were, and the file stays."""
        if keys is None or keys == self._latest == self._kept:
            return
        self._latest = keys
        asyncio.get_running_loop().run_in_executor(None, self._write)

    def _write(self) -> None:
        with self._lock:  # the last one to write writes the latest
            latest = self._latest
            if latest is None or latest == self._kept:
                return
            try:
                self._replace(latest)
                self._kept = latest
            except OSError as error:
                self._report(error.strerror or type(error).__name__)

    def _replace(self, keys: tuple[KeySettings, ...]) -> None:
        new = self._file.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(_ADAPTER.dump_json(keys))
            opened.flush()
            os.fsync(opened.fileno())
        new.replace(self._file)

    def _report(self, error: str) -> None:
        log.warning("keys_not_kept", extra={"file": str(self._file), "error": error})


def with_kept_keys(settings: GatewaySettings, kept: KeptKeys | None) -> GatewaySettings:
    """The settings, with the keys that were told last in the table that the process starts with."""
    keys = kept.read() if kept is not None else None
    if keys is None:
        return settings
    table = settings.snapshot.model_copy(update={"keys": keys})
    return settings.model_copy(update={"snapshot": table})
