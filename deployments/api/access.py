"""Access control: bearer tokens, and the roles that they stand for."""

import hashlib
import hmac
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Protocol

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


@dataclass(frozen=True, slots=True)
class Issued:
    """A token of an issuer, as far as it is known."""

    status: TokenStatus
    role: Role | None = None
    """None: none of its claims has a role here."""
    actor: str = ""
    """Name that the history shows."""
    identity: str = ""
    """The issuer, and its name for the caller."""


class TokenIssuer(Protocol):
    """Issuer of tokens that are taken beside the control process's own."""

    async def prepare(self, token: str) -> None:
        """Fetch what is needed to look a token up.

        Raises:
            IssuerUnavailable: It cannot be had.
        """

    def look_up(self, token: str) -> Issued:
        """Return the validity of a token, and what it stands for; asks nothing of the issuer."""


@dataclass(frozen=True, slots=True)
class _Holder:
    role: Role | None
    actor: str = ""
    identity: str | None = None
    """None: the token is of the environment."""

    @property
    def role_name(self) -> str:
        return "none" if self.role is None else self.role.name.lower()


class Access:
    """The tokens of one control process: of its environment, of identities, and of an issuer.

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
        self.issuer: TokenIssuer | None = None
        """Issuer of further tokens."""
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
        holder = self._holder(authorization)
        if holder is None:
            raise self._refusal(authorization)
        role = _require_role(holder, least)
        told = _actor(actor)
        if holder.identity is None:
            return Caller(role, told or role.name.lower())
        note = "" if told in (holder.actor, holder.identity) else told
        return Caller(role, holder.actor, holder.identity, note)

    async def prepare(self, authorization: str | None) -> None:
        """Make a token of the issuer ready to be looked at; tokens that are known wait for nothing.

        Raises:
            IssuerUnavailable: The issuer does not tell the key of a token that looks like its own.
        """
        if self.issuer is not None and not self._is_own(authorization):
            await self.issuer.prepare(_bearer(authorization))

    def cause_of(self, authorization: str | None) -> Cause:
        """The reason for which a request with this header, which no token opens, is refused."""
        if not authorization:
            return Cause.NO_TOKEN
        if self.knows(authorization):
            return Cause.NOT_ALLOWED
        statuses = self._look_up(authorization)[0], self._issued(authorization).status
        return next((_CAUSES[each] for each in statuses if each in _CAUSES), Cause.UNKNOWN_TOKEN)

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
        if self._is_own(authorization):
            return True
        return self._issued(authorization).status is TokenStatus.VALID

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
        if is_alerts:
            return
        holder = self._holder(authorization)
        if holder is None:
            raise self._refusal(authorization, "the alert token")
        if holder.role is not Role.ADMIN:
            raise Forbidden(f"found the role {holder.role_name}, wanted Alertmanager's or admin")

    def authority_of(self, authorization: str | None) -> Authority:
        """The right of a sender of alerts, for the history."""
        holder = self._holder(authorization)
        if holder is None:
            return Authority(role="alerts")
        return Authority(role=holder.role_name, identity=holder.identity)

    def _is_own(self, authorization: str | None) -> bool:
        """Whether the header has a token of the environment, or a valid one of an identity."""
        shown = _bearer(authorization)
        links = self._gateway_digest, self._comparator_digest
        known = [*self._digests.values(), *links, self._alert_digest or _NO_TOKEN]
        # All are compared: the time taken reveals nothing.
        is_known = sum(_is_same(shown, digest) for digest in known) > 0
        return is_known or self._look_up(authorization)[0] is TokenStatus.VALID

    def _holder(self, authorization: str | None) -> _Holder | None:
        shown = _bearer(authorization)
        # Every token is compared, and digests are equally long: the time taken reveals nothing.
        found = [role for role, digest in self._digests.items() if _is_same(shown, digest)]
        if found:
            return _Holder(max(found))
        status, identity = self._look_up(authorization)
        if status is TokenStatus.VALID and identity is not None:
            return _Holder(Role[identity.role.upper()], identity.name, identity.name)
        issued = self._issued(authorization)
        if issued.status is TokenStatus.VALID:
            return _Holder(issued.role, issued.actor, issued.identity)
        return None

    def _issued(self, authorization: str | None) -> Issued:
        if self.issuer is None:
            return Issued(TokenStatus.UNKNOWN)
        return self.issuer.look_up(_bearer(authorization))

    def _look_up(self, authorization: str | None) -> tuple[TokenStatus, Identity | None]:
        # By its digest, of which the time that the search takes reveals nothing that helps: a token
        # that has a wanted digest cannot be made.
        digest = _digest(_bearer(authorization)).hex()
        return self.identities().look_up(digest, self.now())

    def _refusal(self, authorization: str | None, wanted: str = "a known token") -> Unauthorized:
        cause = self.cause_of(authorization)
        known = self.identities().aside
        if cause is Cause.EXPIRED_TOKEN:
            return Unauthorized("found a token that has expired; wanted one that is valid")
        if cause is Cause.REVOKED_TOKEN:
            return Unauthorized("found a token that was revoked; wanted one that is valid")
        wanted = f"wanted the header `authorization: Bearer TOKEN` with {wanted}"
        if known is not None:
            wanted += f"; no identity is let in: {known.text}"
        return Unauthorized(wanted)


def _require_role(holder: _Holder, least: Role) -> Role:
    if holder.role is None:
        raise Forbidden("found no role here for the claims of this token (control.oidc.roles)")
    if holder.role < least:
        raise Forbidden(f"found the role {holder.role_name}, wanted {least.name.lower()}")
    return holder.role


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
