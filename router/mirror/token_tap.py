r"""A tapped answer: the engine is asked for token ids, and the client never sees them.

A tapped request gets `"return_token_ids":true` as its last field. vLLM (0.32) then writes arrays
where it writes `null` otherwise, in fields that are there either way; and it sends events that it
would have kept back: those whose token gave a tool or reasoning parser nothing to say yet. So the
client's bytes are restored by two replacements, without reading any JSON:

- every `"token_ids":[...]` and `"prompt_token_ids":[...]` becomes `...:null`,
- an event with an empty delta, no logprobs, no finish reason and an array of token ids goes away.

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

KEEP_LIMIT_BYTES = 4 * 1024 * 1024
"""An answer longer than this is not kept for the comparator."""

FIELD = b"return_token_ids"
_ASK = b',"return_token_ids":true}'
_MARK = b'token_ids":['
_KEYS = frozenset({b',"', b'{"'})
_LONG_KEYS = frozenset({b',"prompt_', b'{"prompt_'})
_SILENT = b'"delta":{},"logprobs":null,"finish_reason":null,"token_ids":['

_ENCODINGS = re.compile(rb"^accept-encoding:.*\r\n", re.MULTILINE)

_LONGEST_OPENING = len(b'{"prompt_token_ids":[')


class _Wishes(msgspec.Struct):
    """Fields of a request with which token ids change more of the answer than can be undone."""

    return_token_ids: msgspec.Raw = msgspec.Raw()
    echo: Any = None
    return_prompt_text: Any = None
    kv_transfer_params: Any = None
    use_beam_search: Any = None


_read_wishes = msgspec.json.Decoder(_Wishes).decode


def tap_body(body: bytes) -> bytes | None:
    """The request with token ids asked for.

    Args:
        body: A JSON object with at least one field, as `read_request` accepts it.

    Returns:
        None if it must not be tapped: the client has its own wish about token ids (whatever it
        is), or asks for `echo` or `return_prompt_text` (vLLM leaves the prompt's text out once it
        gives its ids), for `kv_transfer_params` (free JSON, which may hold such fields), or for
        beam search.

    The field comes last, so that the engine's complaints about a body that it cannot read name the
    same position as they would have.
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
    """Whole events, or a whole JSON answer, as the client would have got them."""
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
    """Where the next array of token ids begins, its bracket left behind; -1: nowhere.

    A search for bytes and a look at what stands before: a sixth of a regular expression's time.
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
    """What is tapped of one request's answer: kept as the engine sent it, stripped for the client.

    Args:
        request: The client's request.
        body: The same with token ids asked for, see `tap_body`.
        keep_limit_bytes: How much of the answer is kept; of a longer one nothing is.
    """

    __slots__ = ("_carry", "_is_in_array", "_keep_limit", "_kept", "_kept_bytes", "lost", "request")

    def __init__(
        self, request: UpstreamRequest, body: bytes, keep_limit_bytes: int = KEEP_LIMIT_BYTES
    ) -> None:
        # Token ids cannot be taken out of an answer that something in between has compressed.
        headers = _ENCODINGS.sub(b"", request.headers)
        self.request: UpstreamRequest | None = UpstreamRequest(request.path, headers, body)
        """What to send in place of the client's request; None: no longer anything."""
        self.lost: ShedReason | None = None
        """Why there is nothing to hand over; None while there is."""
        self._keep_limit = keep_limit_bytes
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._carry = b""
        self._is_in_array = False

    def restart(self) -> None:
        """Nothing of this attempt's answer was seen by the client; another attempt begins."""
        self._kept, self._kept_bytes = [], 0

    def withdraws(self, status: int, body: bytes) -> bool:
        """Whether an answer is about the tap and not about the client's request.

        A server that does not know the field refuses it; an engine that refuses the request for
        another reason may repeat the body in its complaint. Either way the client must get the
        answer to its own request, so it is to be sent as it was.
        """
        if self.request is None or not 400 <= status < 500 or FIELD not in body:
            return False
        self.request = None
        self.lose(ShedReason.REFUSED)
        return True

    def lose(self, reason: ShedReason) -> None:
        """The answer is not one to be compared; the first reason counts."""
        if self.lost is None:
            self.lost = reason
        self._kept, self._kept_bytes = [], 0

    @property
    def answer(self) -> bytes:
        """The answer as the engine sent it."""
        return b"".join(self._kept)

    def feed(self, data: bytes) -> bytes:
        """Keep a piece of the answer; what the client gets of it, which may be nothing.

        The pieces of a stream are whole events, but for a last one that broke off.
        """
        if self.lost is None:
            self._keep(data)
        if not (self._carry or self._is_in_array) and data.endswith(b"\n\n"):
            return strip(data)
        return self._strip_part(data)

    def whole(self, body: bytes) -> bytes:
        """Keep a complete answer; what the client gets of it."""
        if self.lost is None:
            self._keep(body)
        return strip(body)

    def rest(self) -> bytes:
        """What was held back because it could have been the beginning of an array."""
        rest, self._carry = self._carry, b""
        return rest

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > self._keep_limit:
            self.lose(ShedReason.TOO_LARGE)

    def _strip_part(self, data: bytes) -> bytes:
        """Strip bytes that may end anywhere: of an answer too large to be held."""
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
    """Where a beginning of an opening may stand that goes on after the end; else the length."""
    start = max(0, len(data) - _LONGEST_OPENING)
    ends = [at for at in (data.rfind(b"{", start), data.rfind(b",", start)) if at >= 0]
    return max(ends) if ends else len(data)
