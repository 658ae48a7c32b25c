"""Routes of a gateway's internal port for operators who can reach no control process.

`POST /emergency/kills` kills a model in this process, at once; `GET` lists such kills. Both want
the gateways' token, which each gateway knows without asking: the rest of the internal port is open.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from penumbra.router.emergency_kills import EmergencyKill
from penumbra.router.errors import BadRequest, InvalidKey, ModelNotFound, RouteNotFound
from penumbra.router.gateway.cold_answers import (
    authorization_of,
    gateway_of,
    json_answer,
    read_small_body,
)
from penumbra.router.secret_values import SecretUnreadable

PATH = "/emergency/kills"
_BODY_BYTES = 16 * 1024
_REFUSAL_SECONDS = 1.0
"""A wrong token is answered after this time: tokens cannot be tried fast."""


def emergency_routes(read_token: Callable[[], str | None]) -> list[Route]:
    """Build the routes.

    Args:
        read_token: Reads the gateways' token; without one there is nothing at the path.
    """

    async def kills(request: Request) -> Response:
        """GET, POST /emergency/kills."""
        await _require_token(request, read_token)
        gateway = gateway_of(request)
        if request.method == "POST":
            return await _kill(request)
        return json_answer(request, {"kills": gateway.emergency.reasons})

    return [Route(PATH, kills, methods=["GET", "POST"])]


async def _kill(request: Request) -> Response:
    gateway = gateway_of(request)
    try:
        kill = EmergencyKill.model_validate_json(await read_small_body(request, _BODY_BYTES))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, found["loc"])) or "body"
        raise BadRequest(f"{place}: {found['msg']}", param=place) from error
    model = gateway.snapshot.models.get(kill.model)
    if model is None:
        known = ", ".join(sorted(gateway.snapshot.models)) or "none"
        name = kill.model[:200]
        raise ModelNotFound(f"the model {name!r} is not served here; known: {known}", param="model")
    is_kept = True
    if not model.flag.killed:  # otherwise its own flag says so already
        gateway.emergency.add(kill)
        gateway.apply(gateway.snapshot)
        is_kept = await gateway.emergency.keep()
    return json_answer(
        request,
        {
            "gateway": gateway.settings.gateway_id,
            "model": kill.model,
            "by_flag": model.flag.killed,
            "kept": is_kept,
        },
    )


async def _require_token(request: Request, read_token: Callable[[], str | None]) -> None:
    try:
        token = await asyncio.get_running_loop().run_in_executor(None, read_token)
    except SecretUnreadable:
        token = None
    if not token:
        raise RouteNotFound(f"there is nothing at {PATH}: this gateway has no token")
    given = (authorization_of(request) or b"").removeprefix(b"Bearer ")
    digests = (hashlib.sha256(each).digest() for each in (given, token.encode()))
    if not hmac.compare_digest(*digests):
        await asyncio.sleep(_REFUSAL_SECONDS)
        raise InvalidKey("wanted the header `authorization: Bearer TOKEN` with the gateways' token")
