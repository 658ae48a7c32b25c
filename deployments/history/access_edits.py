"""Changes of identities, each from the identities as they are to what the event holds. Pure."""

import unicodedata
from datetime import datetime, timedelta

from penumbra.deployments.actors import RESERVED
from penumbra.deployments.errors import Conflict, NotFound, RequestInvalid
from penumbra.deployments.history.events import Draft, Kind
from penumbra.deployments.history.identities import (
    MOST_IDENTITIES,
    MOST_TOKENS,
    AccessPayload,
    Identities,
    Identity,
    RoleName,
    Token,
)
from penumbra.deployments.history.set_aside import ACCESS

NAME_CHARS = 128
"""Largest length of an identity's name."""
_ROLES = frozenset({"viewer", "operator", "admin"})


def add(
    known: Identities,
    name: str,
    role: RoleName,
    sha256: str,
    lifetime: timedelta | None,
    now: datetime,
) -> AccessPayload:
    """Add an identity with one token.

    Args:
        known: All identities.
        name: Its name.
        role: Its role.
        sha256: Digest of its token.
        lifetime: Time for which the token is valid; None: until it is revoked.
        now: With a timezone.

    Raises:
        RequestInvalid: The name cannot be one.
        Conflict: There is one that looks like it, or there are too many.
    """
    name = _name(name)
    like = known.like(name)
    if like is not None:
        raise Conflict(f"found the identity {like.name} already, wanted another name", param="name")
    if len(known.by_name) >= MOST_IDENTITIES:
        raise Conflict(f"found {len(known.by_name)} identities, wanted at most {MOST_IDENTITIES}")
    token = _token(sha256, lifetime, now)
    after = Identity(name=name, role=role, since=now, tokens=(token,))
    return AccessPayload(before=None, after=after)


def rotate(
    known: Identities,
    name: str,
    sha256: str,
    grace: timedelta,
    lifetime: timedelta | None,
    now: datetime,
) -> AccessPayload:
    """Give an identity a new token; the one that it had stays valid for a while.

    A third one, if there is one, ends at once.

    Args:
        known: All identities.
        name: Name of the identity.
        sha256: Digest of the new token.
        grace: Time from now for which the newest of the tokens before stays valid, if it does not
            end sooner; 0: it ends at once.
        lifetime: Time for which the new token is valid; None: for as long as the one before was
            meant to be.
        now: With a timezone.

    Raises:
        NotFound: There is no such identity.
    """
    before = _existing(known, name)
    last = before.tokens[0]
    if lifetime is None and last.until is not None:
        lifetime = last.until - last.since
    kept: tuple[Token, ...] = ()
    if grace > timedelta(0):
        until = now + grace if last.until is None else min(last.until, now + grace)
        kept = (last.model_copy(update={"until": until}),)
    tokens = (_token(sha256, lifetime, now), *kept)[:MOST_TOKENS]
    return AccessPayload(before=before, after=before.model_copy(update={"tokens": tokens}))


def revoke(known: Identities, name: str) -> AccessPayload:
    """End all tokens of an identity.

    Raises:
        NotFound: There is no such identity.
    """
    return AccessPayload(before=_existing(known, name), after=None)


def draft_of(payload: AccessPayload, actor: str, reason: str) -> Draft:
    """Draft the event of a change."""
    return Draft(kind=Kind.ACCESS, actor=actor, reason=reason, model=ACCESS, payload=payload)


def _existing(known: Identities, name: str) -> Identity:
    found = known.by_name.get(name)
    if found is None:
        raise NotFound(f"found no identity {name!r}: see `penumbra access list`", param="name")
    return found


def _token(sha256: str, lifetime: timedelta | None, now: datetime) -> Token:
    return Token(sha256=sha256, since=now, until=None if lifetime is None else now + lifetime)


def _name(name: str) -> str:
    found = unicodedata.normalize("NFC", name)
    is_one = found == found.strip() and found.isprintable() and "/" not in found
    if not is_one or not 0 < len(found) <= NAME_CHARS or found in {".", ".."}:
        raise RequestInvalid(
            f"name: found {name!r:.200}, wanted 1 to {NAME_CHARS} printable characters without"
            " slashes, and no blank at the ends",
            param="name",
        )
    if unicodedata.normalize("NFKC", found).casefold() in RESERVED | _ROLES:
        raise RequestInvalid(
            f"name: found {name!r}, which stands for no person or tool; wanted another name",
            param="name",
        )
    return found
