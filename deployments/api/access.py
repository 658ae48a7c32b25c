"""Access control: bearer tokens, and the roles that they stand for."""

import hashlib
import hmac
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from penumbra.deployments.actors import RESERVED
from penumbra.deployments.api.refused_logins import Cause, RefusedLogins
from penumbra.deployments.errors import Forbidden, RequestInvalid, Unauthorized
from penumbra.deployments.history.events import Authority
from penumbra.deployments.history.identities import Identities, Identity, TokenStatus

_NO_TOKEN = b"\0" * 32
"""Stands for an empty token: no token has this digest."""

ACTOR_CHARS = 128
"""Largest length of an actor's name."""


_CAUSES = {
    TokenStatus.EXPIRED: Cause.EXPIRED_TOKEN,
    TokenStatus.REVOKED: Cause.REVOKED_TOKEN,
}


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
    """Name that the history shows: that of the identity, if the token is one's."""
    identity: str | None = None
    """Name of the identity whose token was shown; None: a token of the environment."""
    note: str = ""
    """Name that the client gave besides its identity's."""

    @property
    def authority(self) -> Authority:
        """The right by which it makes changes, for the history."""
        return Authority(role=self.role.name.lower(), identity=self.identity, note=self.note)


class Access:
    """The tokens of one control process: those of its environment, and those of identities.

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
        self.refused.cause_of = self.cause_of
        self._comparator_digest = _digest(comparator_token or gateway_token)
        self._alert_digest = _digest(alert_token) if alert_token else None
        self.identities: Callable[[], Identities] = Identities
        """Returns the identities as the store has them."""
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        """Wall clock, by which tokens of identities expire."""

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
        role, identity = self._holder(authorization)
        if role is None:
            raise self._refusal(authorization)
        if role < least:
            raise Forbidden(f"found the role {role.name.lower()}, wanted {least.name.lower()}")
        told = _actor(actor)
        if identity is None:
            return Caller(role, told or role.name.lower())
        return Caller(role, identity.name, identity.name, "" if told == identity.name else told)

    def cause_of(self, authorization: str | None) -> Cause:
        """The reason for which a request with this header, which no token opens, is refused."""
        if not authorization:
            return Cause.NO_TOKEN
        if self.knows(authorization):
            return Cause.NOT_ALLOWED
        return _CAUSES.get(self._look_up(authorization)[0], Cause.UNKNOWN_TOKEN)

    def is_gateway(self, authorization: str | None) -> bool:
        """Whether the header has the gateways' token."""
        return _is_same(_bearer(authorization), self._gateway_digest)

    def is_comparator(self, authorization: str | None) -> bool:
        """Whether the header has the comparators' token."""
        return _is_same(_bearer(authorization), self._comparator_digest)

    def key(self, purpose: str) -> bytes:
        """Derive a secret key for one purpose, the same in each control process.

        It is made from the admin token alone, if there is one: what it signs outlives other tokens.
        """
        own = [self._digests[role] for role in sorted(self._digests)]
        admin = self._digests.get(Role.ADMIN)
        secret = admin or b"".join([*own, self._gateway_digest])
        return hmac.digest(secret, purpose.encode(), "sha256")

    def knows(self, authorization: str | None) -> bool:
        """Whether the header has any token of this control process, whatever it is good for."""
        shown = _bearer(authorization)
        links = self._gateway_digest, self._comparator_digest
        known = [*self._digests.values(), *links, self._alert_digest or _NO_TOKEN]
        # All are compared: the time taken reveals nothing.
        is_known = sum(_is_same(shown, digest) for digest in known) > 0
        return is_known or self._look_up(authorization)[0] is TokenStatus.VALID

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
        role, _ = self._holder(authorization)
        if is_alerts or role is Role.ADMIN:
            return
        if role is not None:
            raise Forbidden(f"found the role {role.name.lower()}, wanted Alertmanager's or admin")
        raise self._refusal(authorization, "the alert token")

    def authority_of(self, authorization: str | None) -> Authority:
        """The right of a sender of alerts, for the history."""
        role, identity = self._holder(authorization)
        if role is None:
            return Authority(role="alerts")
        return Authority(role=role.name.lower(), identity=identity and identity.name)

    def _holder(self, authorization: str | None) -> tuple[Role | None, Identity | None]:
        shown = _bearer(authorization)
        # Every token is compared, and digests are equally long: the time taken reveals nothing.
        found = [role for role, digest in self._digests.items() if _is_same(shown, digest)]
        if found:
            return max(found), None
        status, identity = self._look_up(authorization)
        if status is TokenStatus.VALID and identity is not None:
            return Role[identity.role.upper()], identity
        return None, None

    def _look_up(self, authorization: str | None) -> tuple[TokenStatus, Identity | None]:
        # By its digest, of which the time that the search takes reveals nothing that helps: a token
        # that has a wanted digest cannot be made.
        digest = _digest(_bearer(authorization)).hex()
        return self.identities().look_up(digest, self.now())

    def _refusal(self, authorization: str | None, wanted: str = "a known token") -> Unauthorized:
        status, _ = self._look_up(authorization)
        known = self.identities().aside
        if status is TokenStatus.EXPIRED:
            return Unauthorized("found a token that has expired; wanted one that is valid")
        if status is TokenStatus.REVOKED:
            return Unauthorized("found a token that was revoked; wanted one that is valid")
        wanted = f"wanted the header `authorization: Bearer TOKEN` with {wanted}"
        if known is not None:
            wanted += f"; no identity is let in: {known.text}"
        return Unauthorized(wanted)


def _actor(actor: str | None) -> str:
    """Check the name in `x-penumbra-actor`; returns it, or nothing if there is none.

    Raises:
        RequestInvalid: It is not a valid name.
    """
    if not actor:
        return ""
    name = _decoded(actor).strip()
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
    return name


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
