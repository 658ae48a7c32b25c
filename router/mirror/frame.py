"""A mirrored request on its way from a gateway to the comparator: a frame on a local socket. Pure.

A frame is its length (4 bytes, big-endian) and a msgpack array of `MirrorFrame`'s fields.
"""

import msgspec

LENGTH_BYTES = 4
LARGEST_FRAME_BYTES = 32 * 1024 * 1024


class MirrorFrame(msgspec.Struct, frozen=True, array_like=True):
    """What the client asked, and the whole answer that it got."""

    request_id: str
    model: str
    variant: str
    """Who answered."""
    candidates: tuple[str, ...]
    """Whose watches chose this request."""
    slice: str
    epoch: int
    """Of the routing table that decided it."""
    path: str
    """`/v1/chat/completions` or `/v1/completions`."""
    prompt_hash: int
    """64 bits."""
    session: int
    """64-bit hash of the session; 0 if there is none."""
    body: bytes
    """As the client sent it."""
    is_stream: bool
    answer: bytes
    """As the engine sent it, token ids included: JSON, or server-sent events."""
    answered_at: float
    """Monotonic seconds of the machine (CLOCK_MONOTONIC is shared by its processes)."""
    first_byte_seconds: float
    total_seconds: float
    trace: str = ""
    """`traceparent` of the request's span, if it is traced; a gateway of before sends none."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MirrorFrame)


def frame(mirrored: MirrorFrame) -> bytes:
    """The frame of one mirrored request."""
    body = _encoder.encode(mirrored)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read_frame(body: bytes) -> MirrorFrame:
    """What a frame carries, its length left out.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _decoder.decode(body)
