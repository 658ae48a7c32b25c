r"""Token tap: asks the engine for token ids and takes them out of what the client gets.

A tapped request gets `"return_token_ids":true` as its last field. vLLM (0.32) then writes arrays
where it writes `null` otherwise, in fields that are there either way. It also sends events that it
would have held back: those whose token gave a tool or reasoning parser nothing to say yet. So the
client's bytes are restored by two replacements, without reading any JSON:

- every `"token_ids":[...]` and `"prompt_token_ids":[...]` becomes `...:null`,
- an event with an empty delta, no logprobs, no finish reason and an array of token ids is removed.

Why bytes are enough: such a field begins with a quote right after `{` or `,`. A quote *inside* a
JSON string is written `\"`, so it follows a backslash; a quote that *ends* one is followed by `,`,
`:`, `}`, `]` or a blank, never by a letter. So the quote opens a string outside of any other, and
what follows is that whole string, its end, a colon and an array: a key and a value of the engine's
own. The same holds for `_SILENT`. Text, tool arguments and log-probability tokens are strings, so
nothing that a model or a user writes can look like it (a Hypothesis test tries).

Requests for which token ids change more than that are not tapped: see `tap_body`.

Reading order: tap_body, TokenTap, strip.
"""

import re
from typing import Any

import msgspec

from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.upstream.port import UpstreamRequest

LIMIT_BYTES = 4 * 1024 * 1024
"""A longer answer is not stored for the comparator."""

FIELD = b"return_token_ids"
_ASK = b',"return_token_ids":true}'
_MARK = b'token_ids":['
_KEYS = frozenset({b',"', b'{"'})
_LONG_KEYS = frozenset({b',"prompt_', b'{"prompt_'})
_SILENT = b'"delta":{},"logprobs":null,"finish_reason":null,"token_ids":['

_ENCODINGS = re.compile(rb"^accept-encoding:.*\r\n", re.MULTILINE)

_LONGEST_OPENING = len(b'{"prompt_token_ids":[')


class _Wishes(msgspec.Struct):
    """Fields of a request with which token ids would change the answer beyond restoring."""

    return_token_ids: msgspec.Raw = msgspec.Raw()
    echo: Any = None
    return_prompt_text: Any = None
    kv_transfer_params: Any = None
    use_beam_search: Any = None


_read_wishes = msgspec.json.Decoder(_Wishes).decode


def tap_body(body: bytes) -> bytes | None:
    """Make the request body that asks for token ids.

    Args:
        body: A JSON object with at least one field, as `read_request` accepts it.

    Returns:
        None if the request must not be tapped: the client has its own wish about token ids
        (whatever it is), or asks for `echo` or `return_prompt_text` (vLLM leaves the prompt's text
        out once it gives its ids), for `kv_transfer_params` (free JSON, which may hold such
        fields), or for beam search.

    The field comes last, so that the engine's errors about a body that it cannot read name the same
    position as without it.
    """
    try:
        wishes = _read_wishes(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # the engine will refuse it, in its own words
    if bytes(wishes.return_token_ids):
        return None
    if wishes.echo or wishes.return_prompt_text or wishes.kv_transfer_params:
        return None
    if wishes.use_beam_search:
        return None
    return body.rstrip(b" \t\r\n")[:-1] + _ASK


def strip(data: bytes) -> bytes:
    """Restore whole events, or a whole JSON answer, to what the client gets without a tap."""
    if _SILENT in data:
        data = b"".join(event for event in _events(data) if _SILENT not in event)
    begin = _first_id(data, 0)
    if begin < 0:
        return data
    parts: list[bytes] = []
    start = 0
    while begin >= 0 and (end := data.find(b"]", begin)) >= 0:
        parts += (data[start : begin - 1], b"null")
        start = end + 1
        begin = _first_id(data, start)
    parts.append(data[start:])
    return b"".join(parts)


def _first_id(data: bytes, start: int) -> int:
    """Find the index after the bracket of the next array of token ids; -1 if there is none.

    It searches for bytes and checks those before them: a sixth of a regular expression's time.
    """
    at = data.find(_MARK, start)
    while at >= 0:
        if data[at - 2 : at] in _KEYS or data[max(0, at - 9) : at] in _LONG_KEYS:
            return at + len(_MARK)
        at = data.find(_MARK, at + 1)
    return -1


def _events(data: bytes) -> list[bytes]:
    *events, rest = data.split(b"\n\n")
    return [*(event + b"\n\n" for event in events), rest]


class TokenTap:
    """The tap of one request: stores the answer as sent by the engine, strips it for the client.

    Args:
        request: The client's request.
        body: Its body with token ids asked for, from `tap_body`.
        limit_bytes: Longest answer that is stored; nothing of a longer one is.
    """

    __slots__ = ("_carry", "_is_in_array", "_limit", "_stored", "_stored_bytes", "lost", "request")

    def __init__(
        self, request: UpstreamRequest, body: bytes, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        # Token ids cannot be taken out of an answer that a proxy in between has compressed.
        headers = _ENCODINGS.sub(b"", request.headers)
        self.request: UpstreamRequest | None = UpstreamRequest(
            request.path, headers, body, budget=request.budget
        )
        """The request to send in place of the client's; None once the tap is withdrawn."""
        self.lost: ShedReason | None = None
        """Reason why there is nothing to hand over; None while there is."""
        self._limit = limit_bytes
        self._stored: list[bytes] = []
        self._stored_bytes = 0
        self._carry = b""
        self._is_in_array = False

    def restart(self) -> None:
        """Forget this attempt's answer, of which the client saw nothing; another attempt begins."""
        self._stored, self._stored_bytes = [], 0

    def withdraws(self, status: int, body: bytes) -> bool:
        """Withdraw the tap if an answer refuses it, and return whether it was withdrawn.

        A server that does not know the field refuses it; an engine that refuses the request for
        another reason may repeat the body in its error. Either way the client must get the answer
        to its own request, so the request is to be sent as the client sent it.
        """
        if self.request is None or not 400 <= status < 500 or FIELD not in body:
            return False
        self.request = None
        self.lose(ShedReason.REFUSED)
        return True

    def lose(self, reason: ShedReason) -> None:
        """Give the answer up as one to compare; the first reason counts."""
        if self.lost is None:
            self.lost = reason
        self._stored, self._stored_bytes = [], 0

    @property
    def answer(self) -> bytes:
        """The answer as the engine sent it."""
        return b"".join(self._stored)

    def feed(self, data: bytes) -> bytes:
        """Store a piece of the answer, and return what the client gets, which may be nothing.

        The pieces of a stream are whole events, but for a last one that broke off.
        """
        if self.lost is None:
            self._store(data)
        if not (self._carry or self._is_in_array) and data.endswith(b"\n\n"):
            return strip(data)
        return self._strip_part(data)

    def whole(self, body: bytes) -> bytes:
        """Store a complete answer, and return what the client gets of it."""
        if self.lost is None:
            self._store(body)
        return strip(body)

    def rest(self) -> bytes:
        """Return the bytes held back because they could have been the beginning of an array."""
        rest, self._carry = self._carry, b""
        return rest

    def _store(self, data: bytes) -> None:
        self._stored.append(data)
        self._stored_bytes += len(data)
        if self._stored_bytes > self._limit:
            self.lose(ShedReason.TOO_LARGE)

    def _strip_part(self, data: bytes) -> bytes:
        """Strip bytes that may end anywhere: of an answer too large to be buffered."""
        data = self._carry + data
        self._carry = b""
        parts: list[bytes] = []
        while data:
            if self._is_in_array:
                _, end, data = data.partition(b"]")
                self._is_in_array = not end
                continue
            begin = _first_id(data, 0)
            if begin < 0:
                # Of what may go on as an opening, all but the array's first byte is at most here.
                cut = _possible_opening(data)
                parts.append(data[:cut])
                self._carry = data[cut:]
                break
            parts += (data[: begin - 1], b"null")
            data = data[begin:]
            self._is_in_array = True
        return b"".join(parts)


def _possible_opening(data: bytes) -> int:
    """Find the index of an opening that may go on after the end; the length if there is none."""
    start = max(0, len(data) - _LONGEST_OPENING)
    ends = [at for at in (data.rfind(b"{", start), data.rfind(b",", start)) if at >= 0]
    return max(ends) if ends else len(data)
