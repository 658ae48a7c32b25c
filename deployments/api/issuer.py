"""Opens the issuer of tokens that the configuration names; its packages are an extra."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.util import find_spec
from urllib.parse import urlsplit

import httpx

from penumbra.deployments.api.access import TokenIssuer
from penumbra.deployments.config.spec import OidcSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.addresses import is_loopback
from penumbra.router.upstream.tls import client_context

_PACKAGES = ("jwt", "cryptography")
_CONNECTIONS = 2
_SECONDS = 4.0


@asynccontextmanager
async def token_issuer(
    settings: OidcSpec | None, now: Callable[[], datetime]
) -> AsyncIterator[TokenIssuer | None]:
    """Open the issuer of tokens, for as long as the block lasts.

    Args:
        settings: The issuer; None: there is none.
        now: Wall clock.

    Raises:
        ConfigInvalid: Its packages are missing, or the certificates to verify it by are no use.
    """
    if settings is None:
        yield None
        return
    problem = package_problem()
    if problem is not None:
        raise ConfigInvalid("control.oidc", (problem,))
    from penumbra.deployments.api.issuer_keys import IssuerKeys  # an extra
    from penumbra.deployments.api.issuer_tokens import IssuerTokens

    async with _client(settings) as client:
        keys = IssuerKeys(settings.issuer, client)
        try:
            yield IssuerTokens(settings, keys, now)
        finally:
            await keys.close()


def package_problem() -> str | None:
    """Say which packages are missing for an issuer; None: none is."""
    if all(find_spec(name) for name in _PACKAGES):
        return None
    return (
        "found no packages for tokens of an issuer, wanted them installed:"
        " pip install 'penumbra-gateway[oidc]'"
    )


def _client(settings: OidcSpec) -> httpx.AsyncClient:
    try:
        context = client_context(None if settings.ca_file is None else str(settings.ca_file))
    except ValueError as error:
        raise ConfigInvalid("control.oidc", (str(error),)) from error
    return httpx.AsyncClient(
        verify=context,
        timeout=_SECONDS,
        limits=httpx.Limits(max_connections=_CONNECTIONS),
        # An issuer elsewhere may be behind a proxy of the environment; its documents are public.
        trust_env=not is_loopback(urlsplit(settings.issuer).hostname or ""),
    )
