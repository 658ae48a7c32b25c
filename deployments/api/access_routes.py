"""Routes /admin/v1/access: identities, for admins alone."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from penumbra.deployments.api.access import Access, Caller, Role
from penumbra.deployments.api.access_schemas import (
    AddBody,
    IdentitiesView,
    IdentityView,
    NewTokenView,
    RotateBody,
    lifetime_of,
)
from penumbra.deployments.api.flag_routes import ERRORS, caller_of
from penumbra.deployments.api.flag_schemas import Reason
from penumbra.deployments.api.guarded_route import GuardedRoute
from penumbra.deployments.control.access_service import AccessService


def access_router(service: AccessService, access: Access, now: Callable[[], datetime]) -> APIRouter:
    """Builds the routes of identities.

    Args:
        service: Changes them.
        access: The tokens and roles.
        now: Wall clock, by which tokens expire.
    """
    router = APIRouter(
        prefix="/admin/v1/access",
        tags=["access"],
        responses=ERRORS,
        route_class=GuardedRoute,
    )
    Admin = Annotated[Caller, caller_of(access, Role.ADMIN)]  # noqa: N806 - a type

    @router.get("", dependencies=[caller_of(access, Role.ADMIN)])
    async def list_identities() -> IdentitiesView:
        """List all identities, without their tokens."""
        return IdentitiesView.of(service.identities, now())

    @router.post("")
    async def add(body: AddBody, caller: Admin) -> NewTokenView:
        """Add an identity. Its token is told in this answer, and kept nowhere."""
        lifetime = lifetime_of(body.expires_seconds)
        found = await service.add(body.name, body.role, lifetime, caller.actor, body.reason)
        return NewTokenView.with_token(*found, now())

    @router.post("/{name}/rotate")
    async def rotate(name: str, body: RotateBody, caller: Admin) -> NewTokenView:
        """Give an identity a new token; the one of before stays valid for the grace time."""
        grace, lifetime = timedelta(seconds=body.grace_seconds), lifetime_of(body.expires_seconds)
        found = await service.rotate(name, grace, lifetime, caller.actor, body.reason)
        return NewTokenView.with_token(*found, now())

    @router.delete("/{name}")
    async def revoke(name: str, reason: Annotated[Reason, Query()], caller: Admin) -> IdentityView:
        """End all tokens of an identity, at once; returns what it was."""
        return IdentityView.of(await service.revoke(name, caller.actor, reason), now())

    return router
