"""Identities: the people and tools that may use the admin API, each with tokens of its own. Pure.

The SHA-256 of a token is all that is ever stored of it. A token is 256 random bits, so its digest
can be neither guessed nor turned back, and needs no salt.

Reading order: Identity, Identities.look_up, Identities.after.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.history.set_aside import SetAside

_STRICT = ConfigDict(extra="forbid", frozen=True)

RoleName = Literal["viewer", "operator", "admin"]

MOST_IDENTITIES = 1000
"""Most identities at once."""
MOST_TOKENS = 2
"""Most tokens of an identity that are valid at once: the newest one, and the one it replaces."""
_MOST_REVOKED = 1000


class Token(BaseModel):
    """A token of an identity, without the token itself."""

    model_config = _STRICT

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the token, 64 hexadecimal digits."""
    since: datetime
    until: datetime | None = None
    """End of its validity, by the wall clock of the control process; None: it has none."""

    def is_valid(self, now: datetime) -> bool:
        """Whether it is valid at this time."""
        return self.until is None or now < self.until


class Identity(BaseModel):
    """One person or tool."""

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=128)
    role: RoleName
    since: datetime
    """When it was added."""
    tokens: tuple[Token, ...] = Field(min_length=1, max_length=MOST_TOKENS)
    """The newest first."""


class AccessPayload(BaseModel):
    """An identity before and after a change."""

    model_config = _STRICT

    before: Identity | None
    """None: it was added."""
    after: Identity | None
    """None: it was revoked."""

    @property
    def name(self) -> str:
        """Name of the identity; empty in a payload that says nothing."""
        found = self.after or self.before
        return found.name if found else ""

    @property
    def change(self) -> str:
        """The change in one word: `added`, `rotated` or `revoked`."""
        if self.after is None:
            return "revoked"
        return "added" if self.before is None else "rotated"


class TokenStatus(StrEnum):
    """The validity of a token that is shown."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    """It was revoked with its identity, or replaced before its time was over."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Identities:
    """All identities of an installation."""

    by_name: Mapping[str, Identity] = field(default_factory=dict)
    """In the order in which they were added."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Digest of a token -> name of its identity."""
    revoked: Mapping[str, str] = field(default_factory=dict)
    """Digest of a revoked token -> name that its identity had; of the latest 1,000."""
    aside: SetAside | None = None
    """A change that cannot be read. It may be a revocation, so no identity is let in meanwhile."""

    def look_up(self, sha256: str, now: datetime) -> tuple[TokenStatus, Identity | None]:
        """Return the status of a token, and its identity if there still is one.

        Args:
            sha256: Digest of the token, 64 hexadecimal digits.
            now: Current time, with a timezone.
        """
        name = self.owners.get(sha256)
        if name is None:
            is_revoked = sha256 in self.revoked
            return (TokenStatus.REVOKED if is_revoked else TokenStatus.UNKNOWN), None
        found = self.by_name[name]
        if self.aside is not None:
            return TokenStatus.UNKNOWN, found
        token = next(each for each in found.tokens if each.sha256 == sha256)
        return (TokenStatus.VALID if token.is_valid(now) else TokenStatus.EXPIRED), found

    def like(self, name: str) -> Identity | None:
        """Return the identity that a person would take this name for."""
        wanted = _looks(name)
        return next((each for each in self.by_name.values() if _looks(each.name) == wanted), None)

    def after(self, payload: AccessPayload) -> "Identities":
        """Return the identities after a change.

        Raises:
            ValueError: The change is none of the identity that is there.
        """
        before, after, name = payload.before, payload.after, payload.name
        if not name or self.by_name.get(name) != before:
            raise ValueError(f"the identity {name!r} is not as this change found it")
        by_name = {key: each for key, each in self.by_name.items() if key != name or after}
        owners = {sha256: owner for sha256, owner in self.owners.items() if owner != name}
        if after is not None:
            by_name[name] = after
            owners |= {token.sha256: name for token in after.tokens}
        gone = (
            [token.sha256 for token in before.tokens if token.sha256 not in owners]
            if before
            else []
        )
        revoked = {key: owner for key, owner in self.revoked.items() if key not in gone}
        revoked |= dict.fromkeys(gone, name)
        latest = dict([*revoked.items()][-_MOST_REVOKED:])
        return replace(self, by_name=by_name, owners=owners, revoked=latest)


def is_role_enough(role: RoleName, least: RoleName) -> bool:
    """Whether a role may do what another one may; each may do all that those below it may."""
    order: tuple[RoleName, ...] = ("viewer", "operator", "admin")
    return order.index(role) >= order.index(least)


def _looks(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
