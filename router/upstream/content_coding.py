"""Answers that come compressed although nothing compressed was asked for.

The gateway reads answers and passes them to clients that may not know the coding, so gzip and
deflate are undone. Any other coding is passed on as it is.
"""

import zlib
from collections.abc import Iterator

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.upstream.exchange import UpstreamExchange
from penumbra.router.upstream.port import Headers

CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})
"""Codings that are undone; names in lower case."""

_PIECE_BYTES = 64 * 1024
_EXPANSION_BYTES = 8 * 1024 * 1024
"""Most bytes that one piece from the network may grow to: 10 ms of work."""
_GZIP = 16 + zlib.MAX_WBITS
"""zlib's words for the forms of its format: gzip, zlib's own, and none around the data."""
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_CHANGED = frozenset({b"content-encoding", b"content-length"})


class CannotDecode(ValueError):
    """The bytes are not of the coding that the answer names, or grow beyond the limit."""

    code = "cannot_decode"


def coding_of(headers: Headers) -> bytes:
    """Name of the one coding of an answer that is to be undone; empty if there is none."""
    found = b""
    for name, value in headers:
        if name == b"content-encoding":
            if found:
                return b""
            found = value.strip().lower()
    return found if found in CODINGS else b""


class Decoder:
    """Undoes a coding piece by piece: all that a piece holds comes out with it.

    Args:
        coding: One of `CODINGS`.
    """

    def __init__(self, coding: bytes) -> None:
        self._form = _ZLIB if coding == b"deflate" else _GZIP
        self._zlib = zlib.decompressobj(self._form)
        self._is_first = True

    @property
    def is_complete(self) -> bool:
        """Whether the compressed bytes may end here."""
        return self._is_first or self._zlib.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` stands for, in pieces that are not empty.

        Raises:
            CannotDecode: `data` is not of the coding, or grows beyond the limit.
        """
        left = _EXPANSION_BYTES
        piece = b""
        while data or len(piece) == _PIECE_BYTES:  # zlib may hold the rest of a full piece back
            if self._zlib.eof and data:  # one gzip file may be followed by another
                self._zlib = zlib.decompressobj(self._form)
            piece = self._decode(data)
            left -= len(piece)
            if left < 0:
                raise CannotDecode("a piece of the answer grows beyond the limit")
            if piece:
                yield piece
            data = self._zlib.unconsumed_tail or self._zlib.unused_data

    def _decode(self, data: bytes) -> bytes:
        try:
            piece = self._zlib.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            if not self._is_first or self._form == _GZIP:
                raise CannotDecode("the answer is not compressed as it says") from error
            piece = self._decode_raw(data)
        self._is_first = False
        return piece

    def _decode_raw(self, data: bytes) -> bytes:
        # Some servers send what deflate means without the header that RFC 9110 wants.
        self._zlib = zlib.decompressobj(_RAW)
        try:
            return self._zlib.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            raise CannotDecode("the answer is not compressed as it says") from error


class DecodingReceiver:
    """Hands a compressed answer over as if it had come without the coding.

    Args:
        exchange: The answer; aborted where it cannot be decoded.
        coding: One of `CODINGS`.
    """

    def __init__(self, exchange: UpstreamExchange, coding: bytes) -> None:
        self._receiver = exchange.receiver
        self._exchange = exchange
        self._decoder = Decoder(coding)

    def on_head(self, status: int, headers: Headers) -> None:
        """See `Receiver`."""
        self._receiver.on_head(status, [line for line in headers if line[0] not in _CHANGED])

    def on_body(self, data: bytes) -> None:
        """See `Receiver`."""
        try:
            for piece in self._decoder.feed(data):
                if self._exchange.is_over:
                    return
                self._receiver.on_body(piece)
        except CannotDecode as error:
            self._exchange.abort()
            self._receiver.on_fail(Outcome.GARBAGE, str(error))

    def on_end(self) -> None:
        """See `Receiver`."""
        if self._decoder.is_complete:
            self._receiver.on_end()
        else:
            self._receiver.on_fail(Outcome.DIED, "the compressed answer broke off")

    def on_fail(self, outcome: Outcome, detail: str) -> None:
        """See `Receiver`."""
        self._receiver.on_fail(outcome, detail)
