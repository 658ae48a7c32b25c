"""A small file with the newest state that this process has published, and what it took away.

It lies beside the process, not in the store: a store that lost its tail is noticed by it at the
next start, and what the store forgot to take away is known.
"""

import logging
import os
from pathlib import Path

import msgspec

from penumbra.deployments.history.recovered import Known
from penumbra.router.link.table_identity import Restriction

log = logging.getLogger(__name__)

FILE_NAME = "last-seen.json"


class _Content(msgspec.Struct):
    store: str
    generation: int
    epoch: int
    digest: str
    restrictions: dict[str, Restriction] = {}
    revoked: list[str] = []


_read = msgspec.json.Decoder(_Content).decode
_encode = msgspec.json.Encoder().encode


class LastSeen:
    """The file of one process.

    Args:
        file: Where it lies.
        store: Identity of the store; what the file says of another one is ignored.
    """

    def __init__(self, file: Path, store: str) -> None:
        self._file = file
        self._store = store

    def read(self) -> Known | None:
        """Reads it; None if there is none, or none of use."""
        try:
            found = _read(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning(
                "last_seen_unreadable", extra={"file": str(self._file), "error": f"{error}"}
            )
            return None
        if found.store != self._store:
            return None
        revoked = frozenset(found.revoked)
        return Known(found.generation, found.epoch, found.digest, found.restrictions, revoked)

    def write(self, known: Known) -> None:
        """Replaces it in one step; a failure is logged, for the store alone is what counts."""
        content = _Content(
            self._store,
            known.generation,
            known.epoch,
            known.digest,
            dict(known.restrictions),
            sorted(known.revoked),
        )
        new = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with new.open("wb") as opened:
                opened.write(_encode(content))
                opened.flush()
                os.fsync(opened.fileno())
            new.replace(self._file)
        except OSError as error:
            where = str(self._file)
            log.warning("last_seen_unwritten", extra={"file": where, "error": str(error)})
