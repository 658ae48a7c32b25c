"""Token tap: asks the engine for token ids and takes them out of what the client gets.

A tapped request gets `"return_token_ids":true` as its last field. vLLM (0.32) then writes arrays
where it writes `null` otherwise, in fields that are there either way. It also sends events that it
would have held back: those whose token gave a tool or reasoning parser nothing to say yet. The
client's bytes are restored by `penumbra.router.mirror.token_ids`.

Where the decoding is to be read as well, it also gets a field that asks for the log-probabilities
of its tokens, unless the client has a wish of its own about them: then it gets what it asked for,
and no more is asked. They are taken out by `penumbra.router.mirror.decode_rows`.

Requests for which token ids change more than that are not tapped: see `tap_body`.

Reading order: tap_body, decode_body, TokenTap.
"""

import re
from typing import Any, Final

import msgspec

from penumbra.router.mirror.comparable import LONGEST_BODY_BYTES
from penumbra.router.mirror.decode_rows import RowsStripper, strip_rows
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.mirror.token_ids import EVENT_ENDS, first_array, possible_opening, strip
from penumbra.router.upstream.port import UpstreamRequest

LIMIT_BYTES = 4 * 1024 * 1024
"""A longer answer is not stored for the comparator."""

FIELD = b"return_token_ids"
_ASK = b',"return_token_ids":true}'
_ASK_ROWS: Final = {
    b"/v1/chat/completions": b',"logprobs":true',
    b"/v1/completions": b',"logprobs":0',
}
"""Path -> the field that asks for the log-probabilities of the chosen tokens, and no others."""
_ROWS_FIELD = b"logprobs"
_WISH, _ESCAPE = b"logprob", b"\\u"
"""Bytes of every field about log-probabilities, unless its name is spelled with escapes."""
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500
_IDS = re.compile(rb'"token_ids"\s*:\s*\[([0-9,\s]*)\]')
_ENCODINGS = re.compile(rb"^accept-encoding:.*\r\n", re.MULTILINE)


class _Wishes(msgspec.Struct):
    """Fields of a request with which token ids would change the answer beyond restoring."""

    return_token_ids: msgspec.Raw = msgspec.Raw()
    echo: Any = None
    return_prompt_text: Any = None
    kv_transfer_params: Any = None
    use_beam_search: Any = None


class _RowWishes(msgspec.Struct):
    """Fields of a request about log-probabilities."""

    logprobs: msgspec.Raw = msgspec.Raw()
    top_logprobs: msgspec.Raw = msgspec.Raw()
    logprob_token_ids: msgspec.Raw = msgspec.Raw()


_read_row_wishes = msgspec.json.Decoder(_RowWishes).decode
_read_wishes = msgspec.json.Decoder(_Wishes).decode


def tap_body(body: bytes) -> bytes | None:
    """Make the request body that asks for token ids.

    Args:
        body: A JSON object with at least one field, as `read_request` accepts it.

    Returns:
        None if the request must not be tapped: the client has its own wish about token ids
        (whatever it is), or asks for `echo` or `return_prompt_text` (vLLM leaves the prompt's text
        out once it gives its ids), for `kv_transfer_params` (free JSON, which may hold such
        fields), or for beam search; or it is so long that reading it would hold up the event loop.

    The field comes last, so that the engine's errors about a body that it cannot read name the same
    position as without it.
    """
    if len(body) > LONGEST_BODY_BYTES:
        return None
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


def decode_body(path: bytes, tapped: bytes) -> bytes | None:
    """Make the tapped body that also asks for the log-probabilities of its tokens.

    Args:
        path: The request's path.
        tapped: Its body, from `tap_body`.

    Returns:
        None if the client has a wish about log-probabilities, whatever it is, or if the route does
        not tell them.
    """
    ask = _ASK_ROWS.get(path)
    if ask is None or _has_row_wish(tapped):
        return None
    return tapped[: -len(_ASK)] + ask + _ASK


def _has_row_wish(body: bytes) -> bool:
    if _WISH not in body and _ESCAPE not in body:
        return False  # so it need not be read once more
    wishes = _read_row_wishes(body)
    return any(map(bytes, (wishes.logprobs, wishes.top_logprobs, wishes.logprob_token_ids)))


class TokenTap:
    """The tap of one request: stores the answer as sent by the engine, strips it for the client.

    Args:
        request: The client's request.
        body: Its body with token ids asked for, from `tap_body`.
        limit_bytes: Longest answer that is stored; nothing of a longer one is. One with
            log-probabilities may be twice as long, so that it has about as many tokens.
        decode: The body that also asks for log-probabilities, from `decode_body`; None: they are
            not asked for.
    """

    __slots__ = (
        "_body", "_carry", "_headers", "_is_in_array", "_is_object", "_limit", "_rows", "_stored",
        "_stored_bytes", "has_refused_decode", "lost", "request",
    )  # fmt: skip

    def __init__(
        self,
        request: UpstreamRequest,
        body: bytes,
        limit_bytes: int = LIMIT_BYTES,
        decode: bytes | None = None,
    ) -> None:
        # Token ids cannot be taken out of an answer that a proxy in between has compressed.
        headers = _ENCODINGS.sub(b"", request.headers)
        self._body = body
        self._headers = headers
        self._rows = RowsStripper() if decode is not None else None
        self.request: UpstreamRequest | None = UpstreamRequest(
            request.path, headers, decode or body, budget=request.budget
        )
        """The request to send in place of the client's; None once the tap is withdrawn."""
        self.has_refused_decode = False
        """Whether the engine refused to tell log-probabilities."""
        self.lost: ShedReason | None = None
        """Reason why there is nothing to hand over; None while there is."""
        self._limit = limit_bytes if decode is None else 2 * limit_bytes
        self._stored: list[bytes] = []
        self._stored_bytes = 0
        self._carry = b""
        self._is_in_array = False
        self._is_object: bool | None = None
        """Whether the pieces are those of one JSON object, which may hold blank lines anywhere."""

    def restart(self) -> None:
        """Forget this attempt's answer, of which the client saw nothing; another attempt begins."""
        self._stored, self._stored_bytes = [], 0
        if self._rows is not None:
            self._rows = RowsStripper()

    def withdraws(self, status: int, body: bytes) -> bool:
        """Withdraw the tap if an answer refuses it, and return whether it was withdrawn.

        A server that does not know the field refuses it; an engine that refuses the request for
        another reason may repeat the body in its error. Either way the client must get the answer
        to its own request, so the request is to be sent as the client sent it. If it is only the
        log-probabilities that the engine refuses, or may have failed on, the tap goes on without
        them.
        """
        if self.request is None or status < _FIRST_ERROR:
            return False
        if status >= _FIRST_SERVER_ERROR or FIELD not in body:
            return self._withdraws_decode(status, body)
        self.request = None
        self.lose(ShedReason.REFUSED)
        return True

    @property
    def asks_for_rows(self) -> bool:
        """Whether log-probabilities are asked for, on which an engine may fail with any status."""
        return self._rows is not None and self.request is not None

    def _withdraws_decode(self, status: int, body: bytes) -> bool:
        if self._rows is None or self.request is None:
            return False
        if status < _FIRST_SERVER_ERROR and _ROWS_FIELD not in body:
            return False
        path, budget = self.request.path, self.request.budget
        self.request = UpstreamRequest(path, self._headers, self._body, budget=budget)
        self._rows = None
        self.has_refused_decode = True
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

    def count_tokens(self) -> int | None:
        """Count the token ids of the stored answer; None if none is stored."""
        if self.lost is not None:
            return None
        arrays: list[bytes] = _IDS.findall(self.answer)
        return sum(array.count(b",") + bool(array.strip()) for array in arrays)

    def feed(self, data: bytes) -> bytes:
        """Store a piece of the answer, and return what the client gets, which may be nothing.

        The pieces of a stream are whole events, but for a last one that broke off.
        """
        if self.lost is None:
            self._store(data)
        if self._is_object is None:
            self._is_object = data.lstrip().startswith(b"{")
        if self._rows is not None:
            data = self._without_rows(data, self._rows)
        is_within = self._is_object or self._carry or self._is_in_array
        if not is_within and data.endswith(EVENT_ENDS):
            return strip(data)
        return self._strip_part(data)

    def whole(self, body: bytes) -> bytes:
        """Store a complete answer, and return what the client gets of it."""
        if self.lost is None:
            self._store(body)
        return strip(body if self._rows is None else strip_rows(body))

    def rest(self) -> bytes:
        """Return the bytes held back because they could have been the beginning of an array."""
        rest, self._carry = self._carry, b""
        return rest if self._rows is None else rest + self._rows.rest()

    def _without_rows(self, data: bytes, rows: RowsStripper) -> bytes:
        is_whole = not (self._is_object or rows.is_within) and data.endswith(EVENT_ENDS)
        return strip_rows(data) if is_whole else rows.feed(data)

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
            begin = first_array(data)
            if begin < 0:
                cut = possible_opening(data)
                parts.append(data[:cut])
                self._carry = data[cut:]
                break
            parts += (data[: begin - 1], b"null")
            data = data[begin:]
            self._is_in_array = True
        return b"".join(parts)
