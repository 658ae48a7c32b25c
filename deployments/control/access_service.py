"""Identities of an installation: added, given other tokens, and revoked, each by an event."""

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from penumbra.deployments.control.controller import Controller
from penumbra.deployments.history import access_edits
from penumbra.deployments.history.identities import AccessPayload, Identities, Identity, RoleName

TOKEN_PREFIX = "pt-"  # noqa: S105 - a mark for scanners of leaked secrets, not a token
_TOKEN_BYTES = 32


class AccessService:
    """The identities of one control process's installation.

    A change is in force here when it is durable: nothing waits for gateways, which know no
    identities.

    Args:
        controller: Makes all changes.
        now: Wall clock, by which tokens expire.
        make_token: Returns a new token; by default of 256 random bits.
    """

    def __init__(
        self,
        controller: Controller,
        now: Callable[[], datetime],
        make_token: Callable[[], str] = lambda: TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES),
    ) -> None:
        self._controller = controller
        self._now = now
        self._make_token = make_token

    @property
    def identities(self) -> Identities:
        """The identities as the store has them."""
        return self._controller.state.identities

    async def add(
        self, name: str, role: RoleName, lifetime: timedelta | None, actor: str, reason: str
    ) -> tuple[Identity, str]:
        """Add an identity; returns it and its token, which is kept nowhere.

        Args:
            name: Its name.
            role: Its role.
            lifetime: Time for which its token is valid; None: until it is revoked.
            actor: Who adds it.
            reason: Why.

        Raises:
            DeploymentsError: It was refused (`access_edits.add`), or cannot be stored; nothing was
                changed, but for `StoreInDoubt`.
        """
        token = self._make_token()

        def edit(known: Identities) -> AccessPayload:
            return access_edits.add(known, name, role, _sha256(token), lifetime, self._now())

        return await self._change(edit, actor, reason), token

    async def rotate(
        self, name: str, grace: timedelta, lifetime: timedelta | None, actor: str, reason: str
    ) -> tuple[Identity, str]:
        """Give an identity a new token; returns it and the token.

        Args:
            name: Name of the identity.
            grace: Time for which the token of before stays valid.
            lifetime: Time for which the new one is valid; None: as the one of before.
            actor: Who does it.
            reason: Why.

        Raises:
            DeploymentsError: As for `add`.
        """
        token = self._make_token()

        def edit(known: Identities) -> AccessPayload:
            return access_edits.rotate(known, name, _sha256(token), grace, lifetime, self._now())

        return await self._change(edit, actor, reason), token

    async def revoke(self, name: str, actor: str, reason: str) -> Identity:
        """End all tokens of an identity; returns what it was.

        Raises:
            DeploymentsError: As for `add`.
        """
        return await self._change(lambda known: access_edits.revoke(known, name), actor, reason)

    async def _change(
        self, edit: Callable[[Identities], AccessPayload], actor: str, reason: str
    ) -> Identity:
        async with self._controller.writing():
            payload = edit(self.identities)
            draft = access_edits.draft_of(payload, actor, reason)
            await self._controller.commit([draft])
        found = payload.after or payload.before
        if found is None:
            raise AssertionError("a change of an identity names one")
        return found


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
