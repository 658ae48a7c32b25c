"""Routes /admin/v1/configuration: read the configuration in force, plan and apply another one."""

from typing import Annotated

from fastapi import APIRouter

from penumbra.deployments.api.access import Access, Caller, Role
from penumbra.deployments.api.configuration_schemas import (
    ConfigurationBody,
    ConfigurationView,
    PlanView,
    RevocationView,
)
from penumbra.deployments.api.flag_routes import ERRORS, caller_of, viewer_of
from penumbra.deployments.api.flag_schemas import GatewaysReached, ReasonBody, milliseconds
from penumbra.deployments.api.guarded_route import GuardedRoute, body_of_most
from penumbra.deployments.control.configuration_service import ConfigurationService, Proposal
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.control.key_revocation import revoke_key
from penumbra.router.bounds import FLAG_BODY_BYTES


def configuration_router(
    service: ConfigurationService, controller: Controller, access: Access
) -> APIRouter:
    """Builds the routes of the configuration.

    Args:
        service: Plans and applies proposals.
        controller: The controller that holds the configuration in force.
        access: The tokens and roles.
    """
    router = APIRouter(
        prefix="/admin/v1/configuration",
        tags=["configuration"],
        responses=ERRORS,
        route_class=GuardedRoute,
    )

    @router.get("", dependencies=[viewer_of(access)])
    async def read_configuration() -> ConfigurationView:
        """Return the configuration in force; keys by the first characters of their digest."""
        return ConfigurationView.of(controller.state)

    # It may hold whole flags, of new models.
    @router.put("", dependencies=[body_of_most(FLAG_BODY_BYTES)])
    async def apply_configuration(
        body: ConfigurationBody, caller: Annotated[Caller, caller_of(access, Role.ADMIN)]
    ) -> PlanView:
        """Plan another configuration and put it into force, whole or not at all.

        The answer waits until the gateways have it: from then on a revoked key is refused by each.
        """
        proposal = Proposal(
            models=body.models,
            keys=body.keys,
            actor=caller.actor,
            reason=body.reason,
            local=body.local,
            expected_epoch=body.expected_epoch,
        )
        return PlanView.of(await service.propose(proposal, is_dry=body.dry_run))

    @router.post("/keys/{key_id}/revoke")
    async def revoke(
        key_id: str, body: ReasonBody, caller: Annotated[Caller, caller_of(access, Role.ADMIN)]
    ) -> RevocationView:
        """Take an API key out of those in force, whatever else a file would change.

        The answer waits until the gateways have it: from then on the key is refused by each.
        """
        author = caller.actor, body.reason
        epoch, arrival = await revoke_key(controller, service.rollouts, key_id, author, service.now)
        return RevocationView(
            epoch=epoch,
            gateways=GatewaysReached.of(arrival),
            propagation_ms=milliseconds(arrival.seconds),
        )

    return router
