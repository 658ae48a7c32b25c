"""Tokens of an issuer of the organisation (OpenID Connect): a role for those whom it vouches for.

Nothing is asked of the issuer for a token but its public keys. Signatures, issuer, audience and
times are checked here; only asymmetric algorithms are taken.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jwt

from penumbra.deployments.api.access import Issued, Role
from penumbra.deployments.api.issuer_keys import IssuerKeys
from penumbra.deployments.config.spec import OidcSpec
from penumbra.deployments.history.identities import TokenStatus

LEEWAY_SECONDS = 30.0
"""Difference of the two clocks that is allowed for."""
_MOST_KNOWN = 1000
_MOST_CHARS = 16 * 1024
_NAME_CHARS = 128
_IDENTITY_CHARS = 512
_UNKNOWN = Issued(TokenStatus.UNKNOWN)
_OPTIONS: Any = {
    "require": ["exp", "iss", "aud", "sub"],
    # By the clock that is passed in, and again at each use.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class IssuerTokens:
    """Tokens of one issuer.

    Args:
        settings: The issuer, and the roles of its claims.
        keys: Its keys.
        now: Wall clock.
    """

    def __init__(self, settings: OidcSpec, keys: IssuerKeys, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._keys = keys
        self._now = now
        self._verified: dict[str, Mapping[str, Any]] = {}
        """Digest of a token with a good signature -> its claims."""
        self._version = 0

    async def prepare(self, token: str) -> None:
        """Fetch the key of a token, if it looks like one of the issuer and its key is not known.

        Raises:
            IssuerUnavailable: The issuer does not tell its keys.
        """
        head = self._head(token)
        if head is not None:
            await self._keys.fetch_for(_key_id(head))

    def look_up(self, token: str) -> Issued:
        """Return the validity of a token by the keys that are known, and what it stands for."""
        claims = self._claims(token)
        if claims is None:
            return _UNKNOWN
        now = self._now().timestamp()
        until, since = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
        if until is None or since is None or now < since - LEEWAY_SECONDS:
            return _UNKNOWN
        if now >= until + LEEWAY_SECONDS:
            return Issued(TokenStatus.EXPIRED)
        name = self._name(claims)
        if name is None:
            return _UNKNOWN
        actor, identity = name
        return Issued(TokenStatus.VALID, self._role(claims), actor, identity)

    def _claims(self, token: str) -> Mapping[str, Any] | None:
        if self._version != self._keys.version:
            # A key may have been withdrawn.
            self._verified, self._version = {}, self._keys.version
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        known = self._verified.get(digest)
        head = self._head(token)
        key = None if head is None else self._keys.find(_key_id(head))
        if key is None or known is not None:
            return None if key is None else known
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                options=_OPTIONS,
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        if len(self._verified) >= _MOST_KNOWN:
            self._verified = {}
        self._verified[digest] = claims
        return claims

    def _head(self, token: str) -> Mapping[str, Any] | None:
        """The head of what looks like a token of the issuer; nothing in it is proved yet."""
        if token.count(".") != 2 or len(token) > _MOST_CHARS:
            return None
        try:
            told = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        is_issuers = told["payload"].get("iss") == self._settings.issuer
        return told["header"] if is_issuers else None

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        told: Any = claims
        for part in self._settings.role_claim.split("/"):
            told = told.get(part) if isinstance(told, Mapping) else None
        values = [told] if isinstance(told, str) else told if isinstance(told, list) else []
        roles = self._settings.roles
        found = [roles[each] for each in values if isinstance(each, str) and each in roles]
        return max((Role[each.upper()] for each in found), default=None)

    def _name(self, claims: Mapping[str, Any]) -> tuple[str, str] | None:
        """The actor of its changes, and the identity; None: the claim is no name."""
        claim = self._settings.name_claim
        told = claims.get(claim or "sub")
        if not isinstance(told, str) or not told.strip() or not told.isprintable():
            return None
        identity = f"{self._settings.issuer} {told}"
        if len(identity) > _IDENTITY_CHARS:
            return None
        # The identity is whole; of a long actor the middle is left out.
        return _short(identity), identity


def _short(name: str) -> str:
    if len(name) <= _NAME_CHARS:
        return name
    half = _NAME_CHARS // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _key_id(head: Mapping[str, Any]) -> str:
    found = head.get("kid")
    return found if isinstance(found, str) else ""


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
