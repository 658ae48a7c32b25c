"""Base URLs of variants: which are accepted, and their parts. Pure.

The routes are appended to a base URL, so `http://HOST` and `http://HOST/v1`, as OpenAI's clients
write it, name the same server.
"""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

WANTED_BASE_URL = "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-~]+")
_VERSION = "/v1"
_ROUTES = ("/chat/completions", "/completions", "/responses", "/embeddings", "/models")


class BaseUrl(NamedTuple):
    """A base URL in its parts."""

    is_tls: bool
    host: str
    """Name or address, an IPv6 address without brackets."""
    port: int
    authority: str
    """Host and port as the `Host` header names them."""
    prefix: str
    """Path in front of every route, `/v1` not included; empty or with a leading slash."""

    @property
    def root(self) -> str:
        """The URL to which `/v1/...`, `/health` and the other routes are appended."""
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.prefix}"


def read_base_url(url: str) -> BaseUrl:
    """Take a base URL apart.

    Raises:
        ValueError: It is none; the message says what was found and what is wanted, without
            credentials.
    """
    # Whatever is wrong with it: with an @ there may be a password in it.
    found = f'found "{url}"' if "@" not in url else "found no base URL"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{found}, wanted {WANTED_BASE_URL}") from error
    if "@" in parts.netloc:
        raise ValueError(
            "found credentials in the URL, wanted none: name the environment variable that holds"
            " the server's API key with api_key_env"
        )
    if not _PRINTABLE.fullmatch(url) or parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{found}, wanted {WANTED_BASE_URL}")
    if "?" in url or "#" in url:
        raise ValueError(f"found a query or a fragment in the URL, wanted {WANTED_BASE_URL}")
    if port == 0:
        raise ValueError(f"{found}, wanted a port from 1 to 65535")
    return BaseUrl(
        is_tls=parts.scheme == "https",
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        authority=parts.netloc.removesuffix(":"),
        prefix=_prefix(parts, found),
    )


def _prefix(parts: SplitResult, found: str) -> str:
    path = parts.path.rstrip("/")
    for route in _ROUTES:
        if path.endswith(_VERSION + route):
            raise ValueError(f"{found}, wanted the URL without {_VERSION}{route}")
    return path.removesuffix(_VERSION).rstrip("/")


def root_url(url: str) -> str:
    """Return the URL to which all routes are appended, `/v1/...` included.

    Raises:
        ValueError: See `read_base_url`.
    """
    return read_base_url(url).root
