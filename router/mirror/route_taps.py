"""Taps of the routes besides chat and text completions, and the choice of a request's tap.

    responses   asks for `enable_response_messages`, which tell the token ids of prompt and answer
    messages    asks for nothing: no engine tells token ids there; the answer is compared by harm

A tapped response gets an id of the gateway's own, in the engine's form. An engine that stores
responses stores the tapped one, and the id tells every gateway that what is asked for later has to
be stripped as well (`is_tapped_id`).

Reading order: make_tap, ResponsesTap.
"""

import re
import secrets

import mmh3

from penumbra.router.flags.request_routes import MESSAGES, RESPONSES
from penumbra.router.mirror.response_messages import MessagesStripper, strip_messages
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_tap import TokenTap, decode_body, tap_body
from penumbra.router.upstream.port import UpstreamRequest

_FIELDS = (b"enable_response_messages", b"request_id")
_ASK = b',"enable_response_messages":true,"request_id":"%b"}'
_ID = re.compile(r"resp_([0-9a-f]{24})([0-9a-f]{8})")
_OUTPUT = b'"output_messages"'
_TOKENS = re.compile(rb'"tokens"\s*:\s*\[([0-9,\s]*)\]')


def make_tap(
    route: str,
    request: UpstreamRequest,
    *,
    is_decode_wanted: bool = False,
) -> TokenTap | None:
    """Make the tap of a request that can be compared.

    Args:
        route: Name of its route.
        request: The request as the client sent it.
        is_decode_wanted: Whether log-probabilities are asked for too, where the route tells them.

    Returns:
        None if it must not be tapped (`tap_body`).
    """
    if route == MESSAGES:
        return AnswerTap(request, request.body)
    if route == RESPONSES:
        return ResponsesTap(request)
    body = tap_body(request.body)
    if body is None:
        return None
    decode = decode_body(request.path, body) if is_decode_wanted else None
    return TokenTap(request, body, decode=decode)


class AnswerTap(TokenTap):
    """A tap that stores the answer and asks for nothing."""

    __slots__ = ()

    def withdraws(self, status: int, body: bytes) -> bool:
        """See `TokenTap`; there is nothing that a server could refuse."""
        del status, body
        return False

    def count_tokens(self) -> int | None:
        """See `TokenTap`; the answer does not tell."""
        return None

    def feed(self, data: bytes) -> bytes:
        """See `TokenTap`."""
        if self.lost is None:
            self._store(data)
        return data

    def whole(self, body: bytes) -> bytes:
        """See `TokenTap`."""
        return self.feed(body)


class ResponsesTap(TokenTap):
    """The tap of a Responses request.

    Args:
        request: The client's request: a JSON object with at least one field.
    """

    __slots__ = ("_messages",)

    def __init__(self, request: UpstreamRequest) -> None:
        ask = _ASK % tapped_id().encode("ascii")
        super().__init__(request, request.body.rstrip(b" \t\r\n")[:-1] + ask)
        self._messages = MessagesStripper()

    def restart(self) -> None:
        """See `TokenTap`."""
        super().restart()
        self._messages = MessagesStripper()

    def withdraws(self, status: int, body: bytes) -> bool:
        """See `TokenTap`."""
        is_about_it = any(field in body for field in _FIELDS)
        if self.request is None or not 400 <= status < 500 or not is_about_it:
            return False
        self.request = None
        self.lose(ShedReason.REFUSED)
        return True

    def count_tokens(self) -> int | None:
        """See `TokenTap`."""
        if self.lost is not None:
            return None
        answer = self.answer
        found: list[bytes] = _TOKENS.findall(answer, max(0, answer.rfind(_OUTPUT)))
        return sum(array.count(b",") + bool(array.strip()) for array in found)

    def feed(self, data: bytes) -> bytes:
        """See `TokenTap`."""
        if self.lost is None:
            self._store(data)
        return self._messages.feed(data)

    def whole(self, body: bytes) -> bytes:
        """See `TokenTap`."""
        if self.lost is None:
            self._store(body)
        return strip_messages(body)

    def rest(self) -> bytes:
        """See `TokenTap`."""
        return self._messages.rest()


def tapped_id() -> str:
    """Make the id of a tapped response. It is drawn: the id is all that guards a stored one."""
    name = secrets.token_hex(12)
    return f"resp_{name}{_check_of(name)}"


def is_tapped_id(response_id: str) -> bool:
    """Whether a response has an id that `tapped_id` made; one of others has by 1 in 4 billion."""
    found = _ID.fullmatch(response_id)
    return found is not None and _check_of(found[1]) == found[2]


def _check_of(name: str) -> str:
    return f"{mmh3.mmh3_32_uintdigest(b'tapped' + name.encode()):08x}"
