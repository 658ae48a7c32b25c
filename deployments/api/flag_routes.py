"""Routes under /admin/v1: read flags and their history, and change flags."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penumbra.deployments.api.access import Access, Caller, Role
from penumbra.deployments.api.flag_schemas import (
    ChangeView,
    ErrorBody,
    FlagsView,
    FlagView,
    GatewaysView,
    GatewayView,
    HistoryItem,
    HistoryView,
    ImportBody,
    OneFlagView,
    PinBody,
    ReasonBody,
    SetBody,
    SplitBody,
    UnpinBody,
)
from penumbra.deployments.api.guarded_route import CallerCheck, GuardedRoute, body_of_most
from penumbra.deployments.control import authorship
from penumbra.deployments.control.authorship import Author
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.errors import (
    FlagRefused,
    NotFound,
    PreconditionRequired,
    RequestInvalid,
)
from penumbra.deployments.evidence.stored_fold import fold_stored
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.history import flag_edits
from penumbra.deployments.history.changes import Change
from penumbra.deployments.history.events import Kind
from penumbra.deployments.history.state import EMPTY
from penumbra.router.bounds import FLAG_BODY_BYTES
from penumbra.router.flags.flagd_export import to_flagd
from penumbra.router.flags.flagd_import import FlagdInvalid, from_flagd
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot

# Parses the header and documents it; `Access` checks the token.
_BEARER = HTTPBearer(auto_error=False, description="A viewer's, operator's or admin's token.")

MOST_EPOCH = 2**63 - 1
"""Largest epoch that a database holds."""
_EPOCH_DIGITS = 19
_FLAG_BODY = body_of_most(FLAG_BODY_BYTES)

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody}
    for status in (400, 401, 403, 404, 408, 409, 413, 422, 428, 431, 500, 503)
}
"""Errors that every admin route may answer."""

IfMatch = Annotated[
    str | None, Header(description="The epoch that the change is based on; 409 if it is outdated.")
]


def admin_router(
    controller: Controller, publisher: Publisher, access: Access, now: Callable[[], float]
) -> APIRouter:
    """Builds all routes of flags; `build_api` describes the arguments."""
    router = APIRouter(
        prefix="/admin/v1",
        responses=ERRORS,
        route_class=GuardedRoute,
    )
    # Verbs first: the path of a flag takes everything, for the model's name may hold slashes.
    _add_verbs(router, controller, access)
    _add_flagd(router, controller, access)
    _add_flags(router, controller, access)
    _add_history(router, controller, access)

    @router.get("/gateways", tags=["gateways"], dependencies=[viewer_of(access)])
    async def gateways() -> GatewaysView:
        """List the connected gateways, and the epoch that each has in force."""
        views = [GatewayView.of(link, now()) for link in publisher.links]
        return GatewaysView(epoch=controller.state.epoch, gateways=views)

    return router


class CallerOf(CallerCheck):
    """Dependency of a route: the caller, whose role is at least `least`.

    Args:
        access: The tokens and roles.
        least: The role that the route needs.
    """

    def __init__(self, access: Access, least: Role) -> None:
        self._access = access
        self._least = least

    async def prepare(self, request: Request) -> None:
        """See CallerCheck."""
        await self._access.prepare(request.headers.get("authorization"))

    def check(self, request: Request) -> None:
        """See CallerCheck."""
        shown = request.headers.get("authorization")
        actor = request.headers.get("x-penumbra-actor")
        caller = self._access.identify(shown, actor, self._least)

        def still_may() -> None:
            self._access.identify(shown, actor, self._least)

        authorship.begin(Author(caller.actor, caller.authority, still_may))

    def __call__(
        self,
        shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
        x_penumbra_actor: Annotated[
            str | None,
            Header(description="Name of the person or tool; by default the token's role."),
        ] = None,
    ) -> Caller:
        """Identify the caller; raises as `Access.identify` does."""
        authorization = f"{shown.scheme} {shown.credentials}" if shown else None
        return self._access.identify(authorization, x_penumbra_actor, self._least)


def caller_of(access: Access, least: Role) -> Any:
    """Makes a dependency: the caller, whose role is at least `least`."""
    return Depends(CallerOf(access, least))


def viewer_of(access: Access) -> Any:
    """Makes a dependency: a caller who may read."""
    return caller_of(access, Role.VIEWER)


def _add_verbs(router: APIRouter, controller: Controller, access: Access) -> None:
    Operator = Annotated[Caller, caller_of(access, Role.OPERATOR)]  # noqa: N806 - a type

    async def apply(change: Change) -> ChangeView:
        return ChangeView.of(await controller.apply(change))

    @router.post("/flags/{model:path}/kill", tags=["flags"])
    async def kill(
        model: str, body: ReasonBody, caller: Operator, if_match: IfMatch = None
    ) -> ChangeView:
        """Give every client the baseline."""
        edits = {model: flag_edits.set_killed(True)}
        return await apply(
            Change(Kind.KILL, caller.actor, body.reason, edits, _parse_epoch(if_match))
        )

    @router.post("/flags/{model:path}/unkill", tags=["flags"])
    async def unkill(
        model: str, body: ReasonBody, caller: Operator, if_match: IfMatch = None
    ) -> ChangeView:
        """Undo a kill: the flag decides again."""
        edits = {model: flag_edits.set_killed(False)}
        return await apply(
            Change(Kind.UNKILL, caller.actor, body.reason, edits, _parse_epoch(if_match))
        )

    @router.post("/flags/{model:path}/pin", tags=["flags"])
    async def pin(
        model: str, body: PinBody, caller: Operator, if_match: IfMatch = None
    ) -> ChangeView:
        """Always give this variant to one tenant, or to one user or session."""
        edits = {model: flag_edits.add_pin(body.pin())}
        return await apply(
            Change(Kind.PIN, caller.actor, body.reason, edits, _parse_epoch(if_match))
        )

    @router.post("/flags/{model:path}/unpin", tags=["flags"])
    async def unpin(
        model: str, body: UnpinBody, caller: Operator, if_match: IfMatch = None
    ) -> ChangeView:
        """Remove a pin."""
        edits = {model: flag_edits.remove_pin(body.kind, body.subject)}
        return await apply(
            Change(Kind.UNPIN, caller.actor, body.reason, edits, _parse_epoch(if_match))
        )

    @router.post("/flags/{model:path}/split", tags=["flags"])
    async def split(
        model: str, body: SplitBody, caller: Operator, if_match: IfMatch = None
    ) -> ChangeView:
        """Set all shares; a candidate that is left out gets no share."""
        edits = {model: flag_edits.set_split(body.split)}
        return await apply(
            Change(Kind.SPLIT, caller.actor, body.reason, edits, _parse_epoch(if_match))
        )


def _add_flags(router: APIRouter, controller: Controller, access: Access) -> None:
    admin = caller_of(access, Role.ADMIN)

    @router.get("/flags", tags=["flags"], dependencies=[viewer_of(access)])
    async def list_flags() -> FlagsView:
        """List the flags of all models."""
        return FlagsView.of(controller.state)

    @router.get("/flags/{model:path}", tags=["flags"], dependencies=[viewer_of(access)])
    async def show_flag(model: str, response: Response) -> OneFlagView:
        """Show the flag of one model; `ETag` is the epoch to send as `If-Match`."""
        state = controller.state
        found = _require_model(state.models, model)
        response.headers["etag"] = f'"{state.epoch}"'
        view = FlagView.of(model, found, state.changed[model])
        return OneFlagView(epoch=state.epoch, **view.model_dump())

    @router.put("/flags/{model:path}", tags=["flags"], dependencies=[_FLAG_BODY])
    async def set_flag(
        model: str, body: SetBody, caller: Annotated[Caller, admin], if_match: IfMatch = None
    ) -> ChangeView:
        """Replace a whole flag, if it is unchanged since the epoch in `If-Match`."""
        epoch = _parse_epoch(if_match)
        if epoch is None:
            raise PreconditionRequired(
                "wanted the header `if-match: EPOCH`, the epoch at which you read the flag",
                param="if-match",
            )
        edits = {model: flag_edits.replace_with(body.flag)}
        change = Change(Kind.SET, caller.actor, body.reason, edits, epoch)
        return ChangeView.of(await controller.apply(change))


def _add_flagd(router: APIRouter, controller: Controller, access: Access) -> None:
    admin = caller_of(access, Role.ADMIN)

    @router.get("/flagd", tags=["flagd"], dependencies=[viewer_of(access)])
    async def export_flags(model: str | None = None) -> dict[str, Any]:
        """Export the flags as flagd JSON: all of them, or one model's."""
        models = controller.state.models
        return to_flagd(models if model is None else {model: _require_model(models, model)})

    @router.put("/flagd", tags=["flagd"], dependencies=[_FLAG_BODY])
    async def import_flags(
        body: ImportBody, caller: Annotated[Caller, admin], if_match: IfMatch = None
    ) -> ChangeView:
        """Replace the flags in a flagd document, all or none. Blocks of the guard stay."""
        try:
            flags = from_flagd(body.flagd, controller.state.models)
        except FlagdInvalid as error:
            raise FlagRefused(str(error), param="flagd") from error
        edits = {name: flag_edits.import_over(flag) for name, flag in flags.items()}
        change = Change(Kind.IMPORT, caller.actor, body.reason, edits, _parse_epoch(if_match))
        return ChangeView.of(await controller.apply(change))


def _add_history(router: APIRouter, controller: Controller, access: Access) -> None:
    @router.get("/history", tags=["history"], dependencies=[viewer_of(access)])
    async def history(
        model: str | None = None,
        after: Annotated[int | None, Query(ge=0, le=MOST_EPOCH)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> HistoryView:
        """List changes with actor, time and reason, oldest first.

        Without `after` these are the latest changes, with it the first ones after that epoch. With
        `model` these are the changes of its flag only. They are fewer than `limit` where they are
        large: ask for those after the last one.
        """
        if model is not None and model not in controller.state.flags:
            raise NotFound.among("model", model, controller.state.flags)
        if after is None:
            events = await controller.read(lambda store: store.latest(limit, model))
        else:
            events = await controller.read(lambda store: store.page(after, limit, model))
        return HistoryView(items=[HistoryItem.of(event) for event in events])

    @router.get("/snapshots/{epoch}", tags=["history"], dependencies=[viewer_of(access)])
    async def snapshot(epoch: int) -> Snapshot:
        """Return the routing table of an epoch, computed anew from the history, without keys."""
        if not 0 < epoch <= controller.state.epoch:
            raise NotFound(f"found no epoch {epoch}, wanted 1 to {controller.state.epoch}")
        table = await controller.read(
            lambda store: fold_stored(EMPTY, store.stored(until=epoch)).snapshot()
        )
        return table.model_copy(update={"keys": None})


def _require_model(models: Mapping[str, ModelSnapshot], name: str) -> ModelSnapshot:
    if name not in models:
        raise NotFound.among("model", name, models)
    return models[name]


def _parse_epoch(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > _EPOCH_DIGITS:
        raise RequestInvalid(f"if-match: found {if_match:.80}, wanted an epoch", param="if-match")
    return int(text)
