"""Schemas of the routes of identities: bodies that they read, and views that they return."""

from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import BaseModel, Field

from penumbra.deployments.api.flag_schemas import ReasonBody
from penumbra.deployments.history.identities import Identities, Identity, RoleName

MOST_SECONDS = 10 * 366 * 86400
"""Longest validity that can be asked for."""
_DAY = 86400

Lifetime = Annotated[
    int | None,
    Field(
        ge=1,
        le=MOST_SECONDS,
        description="Seconds for which the token is valid; null: until it is revoked.",
        examples=[90 * _DAY],
    ),
]


class AddBody(ReasonBody):
    """An identity to add."""

    name: Annotated[str, Field(max_length=128, examples=["alice"])]
    role: Annotated[RoleName, Field(examples=["operator"])]
    expires_seconds: Lifetime = None


class RotateBody(ReasonBody):
    """A new token for an identity."""

    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_SECONDS,
            description="Seconds for which the token of before stays valid; 0: none.",
        ),
    ] = _DAY
    expires_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_SECONDS,
            description="Seconds for which the new token is valid; null: as the one of before.",
        ),
    ] = None


class TokenView(BaseModel):
    """One token of an identity, without the token itself."""

    id: str
    """First 12 digits of its SHA-256."""
    since: datetime
    until: datetime | None
    is_valid: bool


class IdentityView(BaseModel):
    """One identity."""

    name: str
    role: RoleName
    since: datetime
    tokens: list[TokenView]
    """The newest first."""

    @classmethod
    def of(cls, identity: Identity, now: datetime) -> Self:
        """Makes the view of an identity, at a time."""
        tokens = [
            TokenView(
                id=token.sha256[:12],
                since=token.since,
                until=token.until,
                is_valid=token.is_valid(now),
            )
            for token in identity.tokens
        ]
        return cls(name=identity.name, role=identity.role, since=identity.since, tokens=tokens)


class IdentitiesView(BaseModel):
    """All identities."""

    identities: list[IdentityView]
    problem: str | None
    """Why no identity is let in; null: they are."""

    @classmethod
    def of(cls, known: Identities, now: datetime) -> Self:
        """Makes the view of all identities, at a time."""
        views = [IdentityView.of(each, now) for each in known.by_name.values()]
        return cls(identities=views, problem=known.aside.text if known.aside else None)


class NewTokenView(IdentityView):
    """An identity with its new token, which is told this once."""

    token: str

    @classmethod
    def with_token(cls, identity: Identity, token: str, now: datetime) -> Self:
        """Makes the view of an identity and its new token."""
        return cls(**IdentityView.of(identity, now).model_dump(), token=token)


def lifetime_of(seconds: int | None) -> timedelta | None:
    """The validity that a body asks for."""
    return None if seconds is None else timedelta(seconds=seconds)
