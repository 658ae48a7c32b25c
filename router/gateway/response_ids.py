"""Responses that engines store: their ids are read from the answers as they pass, and asked for.

A request with `previous_response_id` goes on from a stored response, whose history is known only to
the build that made it.

Reading order: dispatch_noting, NotingClient, ask_home.
"""

import asyncio
import re
from typing import Any

import msgspec

from penumbra.router import sse
from penumbra.router.dispatch.attempt import Client
from penumbra.router.dispatch.dispatch import Dispatch
from penumbra.router.errors import GatewayError
from penumbra.router.gateway.api_keys import Caller
from penumbra.router.gateway.body_peek import BodyPeek
from penumbra.router.gateway.compiled_table import Routed
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.gateway.request_trace import RequestTrace
from penumbra.router.link.response_homes import ResponseHomes
from penumbra.router.upstream.port import Headers

RESPONSES = b"/v1/responses"
"""Start of the paths whose answers an engine stores."""
_DECODED_BYTES = 256 * 1024
_SEARCHED_BYTES = 4096
_ID = re.compile(rb'"id"[ \t\r\n]*:[ \t\r\n]*"(resp[_-][^"\\]{1,200})"')


class _Response(msgspec.Struct):
    id: Any = None


class _Told(msgspec.Struct):
    id: Any = None
    response: _Response | None = None
    """In the events of a stream."""


_read = msgspec.json.Decoder(_Told).decode


def ask_home(gateway: Gateway, peek: BodyPeek, caller: Caller) -> asyncio.Future[None] | None:
    """Ask the other gateways which build made the response that a request goes on from.

    Returns:
        A future that is done soon, after which `Gateway.route` may know the build; None: there is
        no need to ask, or no way.
    """
    model = gateway.snapshot.models.get(peek.model)
    if model is None or model.flag.killed or len(model.variants) <= 1 + len(model.flag.blocked):
        return None
    return gateway.feedback.homes.ask(peek.previous_response_id, caller.tenant.name)


def dispatch_noting(
    gateway: Gateway, routed: Routed, client: Client, trace: RequestTrace | None, caller: Caller
) -> Dispatch:
    """Make the dispatch of a request whose answer is stored, and note where that is."""
    noting = NotingClient(client, gateway.feedback.homes, routed, caller.tenant.name)
    dispatch = noting.dispatch = gateway.dispatch(routed, noting, trace)
    return dispatch


def read_response_id(payload: bytes) -> str | None:
    """The id in a whole response, or in the data of a stream's event; None if there is none."""
    if len(payload) > _DECODED_BYTES:
        found = _ID.search(payload, 0, _SEARCHED_BYTES)
        return found[1].decode("latin-1") if found else None
    try:
        told = _read(payload)
    except (ValueError, RecursionError):
        return None  # it is not of that form
    found_id = told.id if told.response is None else told.response.id
    return found_id if isinstance(found_id, str) and found_id else None


class NotingClient:
    """Passes an answer on to its client, and notes where the response was made. A `Client`.

    Args:
        client: The client.
        homes: Remembers the response.
        routed: The request.
        tenant: The tenant that made it.
    """

    __slots__ = ("_client", "_homes", "_routed", "_tenant", "dispatch")

    def __init__(self, client: Client, homes: ResponseHomes, routed: Routed, tenant: str) -> None:
        self._client = client
        self._homes = homes
        self._routed = routed
        self._tenant = tenant
        self.dispatch: Dispatch | None = None
        """The request's dispatch; let go of once the response is noted, for it holds this."""

    def send_whole(self, status: int, headers: Headers, body: bytes) -> None:
        """See `Client`."""
        if status < 300:
            self._note(body)
        self.dispatch = None
        self._client.send_whole(status, headers, body)

    def send_head(self, status: int, headers: Headers) -> None:
        """See `Client`."""
        self._client.send_head(status, headers)

    def send_piece(self, data: bytes) -> None:
        """See `Client`."""
        if self.dispatch is not None:
            payload = data if data.startswith(b"{") else next(sse.payloads(data), None)
            if payload is not None:  # else there are comments only
                self._note(payload)
        self._client.send_piece(data)

    def finish(self) -> None:
        """See `Client`."""
        self.dispatch = None
        self._client.finish()

    def break_off(self) -> None:
        """See `Client`."""
        self.dispatch = None
        self._client.break_off()

    def send_error(self, error: GatewayError) -> None:
        """See `Client`."""
        self.dispatch = None
        self._client.send_error(error)

    def note_first_data(self) -> None:
        """See `Client`."""
        self._client.note_first_data()

    def count_repeat(self) -> None:
        """See `Client`."""
        self._client.count_repeat()

    def _note(self, payload: bytes) -> None:
        dispatch, self.dispatch = self.dispatch, None
        found = read_response_id(payload)
        if found is not None and dispatch is not None:
            variant, slice_name = dispatch.attempt.name, dispatch.slice_name
            server = self._routed.model.attribution(variant, slice_name, self._tenant)
            self._homes.note(found, server)
