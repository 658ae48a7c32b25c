"""TLS of a port: its certificate, the authority of its clients, and renewed files of both."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from penumbra.router.settings import TlsSettings
from penumbra.router.upstream.tls import no_password, unusable_pair

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Interval between two looks at the files."""


class CertificateUnusable(OSError):
    """The files hold no certificate with its key; the message names them and the reason."""

    code = "certificate_unusable"


@dataclass(frozen=True, slots=True)
class ClientAuthority:
    """The authority of clients' certificates."""

    file: Path
    """Certificates that a client's must be signed by, in PEM form."""
    is_needed: bool = False
    """Whether every client must show one; otherwise one that is shown must be signed by it."""


_State = tuple[tuple[int, int], ...]
"""Modification time, nanoseconds, and inode of each file."""


class ServerTls:
    """The TLS settings of a port.

    A handshake gets the certificate that is then in force; connections keep the one they have.

    Args:
        settings: The files.
        clients: The authority of clients; None: they show no certificate.
        path: Path of the settings in the configuration, for errors.

    Raises:
        CertificateUnusable: They hold no certificate with its key, or no authority.
    """

    def __init__(
        self,
        settings: TlsSettings,
        clients: ClientAuthority | None = None,
        path: str = "gateway.tls",
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._path = path
        self._files: tuple[Path, ...] = (settings.certificate, settings.key)
        if clients is not None:
            self._files += (clients.file,)
        self._current = self._load()
        self._state = _state_of(self._files)
        self.context = self._load()
        """For the server; it hands each handshake to the settings in force."""
        self.context.sni_callback = self._choose

    @property
    def has_clients(self) -> bool:
        """Whether clients may show certificates."""
        return self._clients is not None

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
            renewed = await asyncio.to_thread(self._load)
        except OSError as error:
            # Perhaps one of them is not written yet: they are looked at again.
            log.warning("certificate_unusable", extra={"problem": str(error)})
            return
        self._state, self._current = state, renewed
        log.info("certificate_renewed", extra={"file": str(self._files[0])})

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._settings.certificate, self._settings.key
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, password=no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            problem = f"{self._path}: {unusable_pair(certificate, key, error)}"
            raise CertificateUnusable(problem) from error
        if self._clients is not None:
            self._trust(context, self._clients)
        return context

    def _trust(self, context: ssl.SSLContext, clients: ClientAuthority) -> None:
        try:
            context.load_verify_locations(cafile=clients.file)
        except OSError as error:
            raise CertificateUnusable(
                f"{self._path}.client_ca: found {clients.file} ({error.strerror}), wanted"
                " certificates in PEM form"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED if clients.is_needed else ssl.CERT_OPTIONAL


def _state_of(files: tuple[Path, ...]) -> _State:
    found = (file.stat() for file in files)
    return tuple((each.st_mtime_ns, each.st_ino) for each in found)
