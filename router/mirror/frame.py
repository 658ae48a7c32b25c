"""Frames that carry mirrored requests from a gateway to the comparator on a local socket. Pure.

A frame is its length (4 bytes, big-endian) and a msgpack array of `MirrorFrame`'s fields.

The two ends may be of different versions. A new field is added at the end and has a default: an
older comparator ignores elements that it does not know, and a newer one fills in the default for a
field that an older gateway does not send.
"""

import msgspec

from penumbra.router.flags.routing_table import Cluster

LENGTH_BYTES = 4


class MirrorFrame(msgspec.Struct, frozen=True, array_like=True):
    """A mirrored request: the client's request and the whole answer that it got."""

    request_id: str
    model: str
    variant: str
    """The variant that answered."""
    candidates: tuple[str, ...]
    """The candidates whose watches chose this request."""
    slice: str
    epoch: int
    """Epoch of the routing table that decided it."""
    path: str
    """Path of the request, without a query."""
    prompt_hash: int
    """64-bit hash of the prompt."""
    session: int
    """64-bit hash of the session; 0 if there is none."""
    body: bytes
    """The request as the client sent it."""
    is_stream: bool
    answer: bytes
    """The answer as the engine sent it, token ids included: JSON, or server-sent events."""
    answered_at: float
    """Monotonic seconds of the machine (CLOCK_MONOTONIC is shared by its processes)."""
    first_byte_seconds: float
    total_seconds: float
    trace: str = ""
    """`traceparent` of the request's span, if it is traced; an older gateway sends none."""
    own_id: str = ""
    """The gateway's own id of the request, by which it is drawn; an older gateway sends none."""
    root: int = 0
    """64-bit hash of the root of its conversation; 0 from an older gateway."""
    was_paused: bool = False
    """Whether its client did not keep up, so that the time tells nothing of the variant."""
    partial_for: tuple[str, ...] = ()
    """In place of `candidates` if the answer is not whole: its client left, or the baseline failed.
    An older comparator takes no part in such a request: it would call the answer broken."""
    problem: str = ""
    """How the baseline failed, which was asked first, and gave no answer; empty: it did not."""
    latencies: tuple[str, ...] = ()
    """Latencies of the answer (`Signal` values) that a shadow answer's may be held against: those
    that the gateway measured, and of a candidate's those that it could not judge itself. An older
    gateway sends none."""

    @property
    def is_partial(self) -> bool:
        """Whether the client left before the end, so that this is how far its answer had come."""
        return bool(self.partial_for) and not self.problem

    @property
    def draw_id(self) -> str:
        """The id that decides what else is done with the request."""
        return self.own_id or self.request_id

    def cluster(self, kind: Cluster) -> int:
        """The key of those requests whose answers depend on each other."""
        return self.prompt_hash if kind == "prompt" else self.root or self.prompt_hash


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MirrorFrame)


def frame(mirrored: MirrorFrame) -> bytes:
    """Encode one mirrored request as a frame."""
    body = _encoder.encode(mirrored)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read_frame(body: bytes) -> MirrorFrame:
    """Decode a frame without its length.

    Raises:
        msgspec.DecodeError: It is no mirrored request.
    """
    return _decoder.decode(body)
