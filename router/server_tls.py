"""TLS of a gateway's own port: its certificate, and the renewed one once the files change."""

import asyncio
import logging
import ssl
from pathlib import Path

from penumbra.router.settings import TlsSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Interval between two looks at the files."""


class CertificateUnusable(OSError):
    """The files hold no certificate with its key; the message names them and the reason."""

    code = "certificate_unusable"


_State = tuple[tuple[int, int], ...]
"""Modification time, nanoseconds, and inode of each file."""


class ServerTls:
    """The TLS settings of a port.

    A handshake gets the certificate that is then in force; connections keep the one they have.

    Args:
        settings: The files.

    Raises:
        CertificateUnusable: They hold no certificate with its key.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._files = (settings.certificate, settings.key)
        self._current = _load(*self._files)
        self._state = _state_of(self._files)
        self.context = _load(*self._files)
        """For the server; it hands each handshake to the settings in force."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = self._current

    async def watch(self) -> None:
        """Put changed files into force, until cancelled; files that are no use change nothing."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Put the files into force if they have changed."""
        try:
            state = await asyncio.to_thread(_state_of, self._files)
            if state == self._state:
                return
            renewed = await asyncio.to_thread(_load, *self._files)
        except OSError as error:
            # Perhaps one of the two is not written yet: they are looked at again.
            log.warning("certificate_unusable", extra={"problem": str(error)})
            return
        self._state, self._current = state, renewed
        log.info("certificate_renewed", extra={"file": str(self._files[0])})


def _state_of(files: tuple[Path, Path]) -> _State:
    found = (file.stat() for file in files)
    return tuple((each.st_mtime_ns, each.st_ino) for each in found)


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise CertificateUnusable(
            f"gateway.tls: found {certificate} and {key} ({reason}), wanted a certificate and its"
            " private key without a password, both in PEM form"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")
