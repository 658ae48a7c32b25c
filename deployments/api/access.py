"""Access control: bearer tokens, and the roles that they stand for."""

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from penumbra.deployments.actors import RESERVED
from penumbra.deployments.api.refused_logins import RefusedLogins
from penumbra.deployments.errors import Forbidden, RequestInvalid, Unauthorized

_NO_TOKEN = b"\0" * 32
"""Stands for an empty token: no token has this digest."""

ACTOR_CHARS = 128
"""Largest length of an actor's name."""


class Role(IntEnum):
    """Role of a token; each role may do all that the roles below it may."""

    VIEWER = 1
    """Read everything."""
    OPERATOR = 2
    """Kill, unkill, pin, unpin, split."""
    ADMIN = 3
    """Replace whole flags, import flags, undo what the guard blocked."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Role and name of a request's sender."""

    role: Role
    actor: str
    """Name that the history shows."""


class Access:
    """The tokens of one control process.

    Args:
        tokens: Role -> token; a role without a token cannot be used.
        gateway_token: Token that gateways show on the link.
        alert_token: Token that Alertmanager shows at the webhook; without one there is no webhook.
        comparator_token: Token that comparators show on the link; without one it is the gateways'.
    """

    def __init__(
        self,
        tokens: Mapping[Role, str],
        gateway_token: str,
        alert_token: str | None = None,
        comparator_token: str | None = None,
    ) -> None:
        self._digests = {role: _digest(token) for role, token in tokens.items()}
        self._gateway_digest = _digest(gateway_token)
        self.refused = RefusedLogins()
        """Requests and links that were refused for their tokens."""
        self._comparator_digest = _digest(comparator_token or gateway_token)
        self._alert_digest = _digest(alert_token) if alert_token else None

    def identify(self, authorization: str | None, actor: str | None, least: Role) -> Caller:
        """Identifies the caller behind an `authorization` header.

        Args:
            authorization: The header: `Bearer TOKEN`.
            actor: The header `x-penumbra-actor`.
            least: The role that is needed.

        Raises:
            Unauthorized: The token is missing or unknown.
            Forbidden: The role is not enough.
            RequestInvalid: The actor is not a valid name.
        """
        role = self._role(authorization)
        if role is None:
            raise Unauthorized("wanted the header `authorization: Bearer TOKEN` with a known token")
        if role < least:
            raise Forbidden(f"found the role {role.name.lower()}, wanted {least.name.lower()}")
        name = _decoded(actor or role.name.lower()).strip()
        if not name or len(name) > ACTOR_CHARS or not name.isprintable():
            raise RequestInvalid(
                f"x-penumbra-actor: wanted 1 to {ACTOR_CHARS} printable characters",
                param="x-penumbra-actor",
            )
        if unicodedata.normalize("NFKC", name).casefold() in RESERVED:
            raise RequestInvalid(
                f"x-penumbra-actor: found {name!r}, which stands for no person or tool; wanted"
                " another name",
                param="x-penumbra-actor",
            )
        return Caller(role, name)

    def is_gateway(self, authorization: str | None) -> bool:
        """Whether the header has the gateways' token."""
        return _is_same(_bearer(authorization), self._gateway_digest)

    def is_comparator(self, authorization: str | None) -> bool:
        """Whether the header has the comparators' token."""
        return _is_same(_bearer(authorization), self._comparator_digest)

    def key(self, purpose: str) -> bytes:
        """Derive a secret key for one purpose from the tokens, the same in each control process."""
        own = [self._digests[role] for role in sorted(self._digests)]
        return hmac.digest(b"".join([*own, self._gateway_digest]), purpose.encode(), "sha256")

    def knows(self, authorization: str | None) -> bool:
        """Whether the header has any token of this control process, whatever it is good for."""
        shown = _bearer(authorization)
        links = self._gateway_digest, self._comparator_digest
        known = [*self._digests.values(), *links, self._alert_digest or _NO_TOKEN]
        # All are compared: the time taken reveals nothing.
        return sum(_is_same(shown, digest) for digest in known) > 0

    def require_alerts(self, authorization: str | None) -> None:
        """Checks that the caller may send alerts: Alertmanager with its own token, or an admin.

        Raises:
            Forbidden: The webhook is off, or the token is that of another role.
            Unauthorized: The token is missing or unknown.
        """
        if self._alert_digest is None:
            raise Forbidden(
                "alerts are not taken here: the control process was started without"
                " PENUMBRA_ALERT_TOKEN"
            )
        is_alerts = _is_same(_bearer(authorization), self._alert_digest)
        role = self._role(authorization)
        if is_alerts or role is Role.ADMIN:
            return
        if role is not None:
            raise Forbidden(f"found the role {role.name.lower()}, wanted Alertmanager's or admin")
        raise Unauthorized("wanted the header `authorization: Bearer TOKEN` with the alert token")

    def _role(self, authorization: str | None) -> Role | None:
        shown = _bearer(authorization)
        # Every token is compared, and digests are equally long: the time taken reveals nothing.
        found = [role for role, digest in self._digests.items() if _is_same(shown, digest)]
        return max(found, default=None)


def _decoded(actor: str) -> str:
    """The name in a header, which is UTF-8, or what servers make of single bytes."""
    try:
        return actor.encode("latin-1").decode()
    except UnicodeError:
        return actor


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _is_same(token: str, digest: bytes) -> bool:
    return hmac.compare_digest(_digest(token), digest) and token != ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest() if token else _NO_TOKEN
