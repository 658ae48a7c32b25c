"""TLS of a link: what the control process is verified by, and the certificate that is shown."""

import asyncio
import contextlib
import logging
import ssl

from penumbra.router.link.messages import LinkError
from penumbra.router.settings import ClientTlsSettings
from penumbra.router.upstream.tls import client_context, no_password

log = logging.getLogger(__name__)


class LinkTls:
    """TLS settings of a link's connections.

    The files are read for each connection, so renewed ones are in force for the next one.

    Args:
        settings: The files.
    """

    def __init__(self, settings: ClientTlsSettings) -> None:
        self._settings = settings
        self._last: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the settings of one more connection; the last ones if the files are no use now.

        Raises:
            LinkError: The files are no use, and never were.
        """
        try:
            self._last = await asyncio.to_thread(context_of, self._settings)
        except ValueError as error:
            if self._last is None:
                raise LinkError(str(error)) from error
            log.warning("certificate_unusable", extra={"problem": str(error)})
        return self._last


def context_of(settings: ClientTlsSettings) -> ssl.SSLContext:
    """Make the TLS settings of a client of the control process.

    Raises:
        ValueError: A file cannot be read, or does not hold what it should.
    """
    ca_file = None if settings.ca_file is None else str(settings.ca_file)
    shown = None
    if settings.certificate is not None and settings.key is not None:
        shown = str(settings.certificate), str(settings.key)
    return client_context(ca_file, shown)


def verification(url: str, settings: ClientTlsSettings) -> ssl.SSLContext | bool:
    """Make the `verify` of httpx for a base URL of a control process.

    Raises:
        ValueError: The URL is one of https, and a file is no use.
    """
    # Without TLS there is nothing to verify, and to read the system's authorities takes time.
    return context_of(settings) if url.startswith("https:") else False


def probe_context(settings: ClientTlsSettings) -> ssl.SSLContext:
    """Make the TLS settings of a probe on the same machine, which verifies no certificate.

    A probe asks whether a process answers, and carries no secret. If it verified, a certificate
    that has expired would have the supervisor restart a process that serves.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.certificate is not None and settings.key is not None:
        with contextlib.suppress(OSError, ValueError):  # then it is refused, and that is an answer
            context.load_cert_chain(settings.certificate, settings.key, password=no_password)
    return context
