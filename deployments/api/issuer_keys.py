"""Public keys of an issuer of tokens: fetched off the way of requests, cached, and bounded.

Reading order: IssuerKeys.find, IssuerKeys.fetch_for.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt

from penumbra.deployments.errors import IssuerUnavailable
from penumbra.monitoring.log_limit import LogLimit
from penumbra.router.addresses import is_loopback

log = logging.getLogger(__name__)

FETCH_SECONDS = 4.0
"""Longest time for the issuer's two documents together."""
FRESH_SECONDS = 300.0
"""Age after which keys are fetched again, beside the requests."""
MOST_SECONDS = 24 * 3600.0
"""Age after which keys are used no more, while the issuer cannot be reached."""
PAUSE_SECONDS = 10.0
"""Least time between two fetches: tokens with invented keys cause no more of them."""
_MOST_BYTES = 1024 * 1024
_MOST_KEYS = 100
_DISCOVERY = "/.well-known/openid-configuration"
_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""Kind of key -> the algorithms it may sign by, all of them asymmetric."""


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One public key."""

    key: Any
    algorithms: tuple[str, ...]
    """Those that a token signed by it may name."""


class IssuerKeys:
    """Public keys of one issuer.

    Args:
        issuer: Its URL, as in its tokens.
        client: For its documents.
        now: Monotonic clock, seconds.
    """

    def __init__(
        self, issuer: str, client: httpx.AsyncClient, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._client = client
        self._now = now
        self._keys: Mapping[str, IssuerKey] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._failures = LogLimit(now)
        self.problem: str | None = None
        """The reason for which the last fetch failed; None: it did not."""
        self.version = 0
        """Grows with each fetch that brought keys."""

    def find(self, key_id: str) -> IssuerKey | None:
        """Return a key that is known and not too old; None: there is none.

        Args:
            key_id: Its id, from a token's head; empty: the only key, if there is only one.
        """
        if self._now() - self._read_at > MOST_SECONDS:
            return None
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    async def fetch_for(self, key_id: str) -> None:
        """Fetch the keys, if this one is not known, and wait at most `FETCH_SECONDS`.

        Known keys that have become old are fetched again beside the request, which is not held up.

        Raises:
            IssuerUnavailable: The key is not known, and the issuer does not tell its keys.
        """
        is_known = self.find(key_id) is not None
        if is_known and self._now() - self._read_at <= FRESH_SECONDS:
            return
        fetching = self._begin()
        if is_known:
            return
        if fetching is not None:
            await asyncio.shield(fetching)
        if self.problem is not None and self.find(key_id) is None:
            raise IssuerUnavailable(
                f"the keys of {self._issuer} cannot be read: {self.problem}. Tokens of the control"
                " process and of identities are taken meanwhile"
            )

    async def close(self) -> None:
        """End a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch under way, or a new one; None if the last one was just now."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if self._now() - self._tried_at < PAUSE_SECONDS:
            return None
        self._tried_at = self._now()
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                found = await self._read(f"{self._issuer.rstrip('/')}{_DISCOVERY}")
                if found.get("issuer") != self._issuer:
                    raise ValueError(f"found the issuer {found.get('issuer')!r:.200} there")
                keys = _keys_in(await self._read(_secure(str(found.get("jwks_uri")))))
        except TimeoutError:
            self._fail(f"no answer within {FETCH_SECONDS:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._fail(f"{type(error).__name__}: {error}"[:300])
        else:
            self._keys, self._read_at, self.problem = keys, self._now(), None
            self.version += 1

    def _fail(self, problem: str) -> None:
        self.problem = problem
        if (left_out := self._failures.take()) is not None:
            log.warning(
                "issuer_unavailable",
                extra={"issuer": self._issuer, "problem": problem, "repeated": left_out},
            )

    async def _read(self, url: str) -> dict[str, Any]:
        body = bytearray()
        async with self._client.stream("GET", url) as response:
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise ValueError(f"{url} is larger than {_MOST_BYTES} bytes")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError(f"{url} is no object")
        return found


def _secure(url: str) -> str:
    parsed = httpx.URL(url)
    if parsed.scheme == "https" or (parsed.scheme == "http" and is_loopback(parsed.host)):
        return url
    raise ValueError(f"found the keys at {url:.200}, wanted https")


def _keys_in(document: Mapping[str, Any]) -> dict[str, IssuerKey]:
    """The usable keys of a key set; those of other kinds or uses are left out.

    Raises:
        ValueError: There is none, or there are too many.
    """
    told = document.get("keys")
    if not isinstance(told, list) or len(told) > _MOST_KEYS:
        raise ValueError(f"found no list of at most {_MOST_KEYS} keys")
    found: dict[str, IssuerKey] = {}
    for each in told:
        key = _key_of(each) if isinstance(each, dict) else None
        if key is not None:
            found[str(each.get("kid") or "")] = key
    if not found:
        raise ValueError("found no public key that signs")
    return found


def _key_of(told: dict[str, Any]) -> IssuerKey | None:
    algorithms = _ALGORITHMS.get(str(told.get("kty")), ())
    named = told.get("alg")
    if named is not None:
        algorithms = tuple(name for name in algorithms if name == named)
    if not algorithms or told.get("use", "sig") != "sig" or "d" in told:
        return None
    try:
        return IssuerKey(jwt.PyJWK(told, algorithms[0]).key, algorithms)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
