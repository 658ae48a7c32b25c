"""What a gateway and the control process say to each other on the link; shared by both ends.

    gateway                              control
       | -- Hello(gateway, pid, epoch) --> |
       | <-- Push(store, snapshot) ------- |   at once, then for every new epoch
       | -- EpochApplied(epoch) --------------> |   the snapshot is in force
       | -- Refused(epoch, detail) ------> |   ... or it is not, and the last one stays
       | -- Renew(nonce) ----------------> |   a few times within a lease
       | <-- LeaseGrant(nonce, seconds, ...) -- |   counted from when the Renew was sent
       | -- Report(source, seq, runs) ---> |   observations (penumbra.monitoring.observations)
       | <-- Stored(incarnation, seq) ---- |   they are durable
       | -- Feedback(nonce, id, ...) ----> |   a user's judgement of an answer
       | <-- Seek(nonce, id) ------------- |   to the other gateways, if this one did not serve it
       | -- Found(nonce, attribution) ---> |
       | <-- FeedbackDone(nonce, ...) ---- |   it is durable, or nobody knows the request

A comparator speaks the same on its own path; it neither renews nor passes feedback, but is asked
for signs of life:

    comparator                           control
       | <-- Probe(nonce) ---------------- |   a few times within a lease
       | -- Beat(nonce) -----------------> |   it was alive when the Probe was sent

Whoever needs a sign of life asks for it, and counts from when it asked: an answer that was stuck in
a buffer proves nothing about later. One JSON object in each WebSocket text message, told apart by
`type`. Unknown fields are errors.
"""

from typing import Any

import msgspec

from penumbra.monitoring.observations import Report
from penumbra.router.flags.routing_table import Snapshot

PATH = "/gateway/v1/link"
COMPARATOR_PATH = "/comparator/v1/link"


class LinkError(ValueError):
    """The other end said something that is no message of the link."""

    code = "link_protocol"


class Hello(msgspec.Struct, frozen=True, tag="hello", forbid_unknown_fields=True):
    """The gateway's first message."""

    gateway: str
    pid: int
    store: str
    """The store that its routing table came from; empty for the one that it booted with."""
    epoch: int
    host: str = ""
    """The machine (or pod): a comparator guards the gateways of its own."""
    metrics: str = ""
    """Where its /metrics is: `HOST:PORT`; `:PORT` at the address that it connects from; empty if it
    has none, or is older than this field."""


class EpochApplied(msgspec.Struct, frozen=True, tag="applied", forbid_unknown_fields=True):
    """From now on every request is decided by this epoch (or a later one)."""

    epoch: int


class Refused(msgspec.Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """The epoch was not put into force."""

    epoch: int
    detail: str


class Push(msgspec.Struct, frozen=True, tag="snapshot", forbid_unknown_fields=True):
    """The routing table of the newest epoch."""

    store: str
    """Identity of the store; epochs of two stores cannot be compared."""
    snapshot: msgspec.Raw

    def table(self) -> Snapshot:
        """The routing table.

        Raises:
            ValueError: It is none (pydantic's `ValidationError`).
        """
        return Snapshot.model_validate_json(bytes(self.snapshot))


class Renew(msgspec.Struct, frozen=True, tag="renew", forbid_unknown_fields=True):
    """Is the guard alive? The gateway counts the lease from when it asked."""

    nonce: int


class LeaseGrant(msgspec.Struct, frozen=True, tag="lease", forbid_unknown_fields=True):
    """For how long candidates may go on getting live traffic."""

    nonce: int
    seconds: dict[str, float]
    """Model -> seconds from when the `Renew` was sent; 0 for one that has no live guard."""
    full_seconds: float
    """What a model gets whose guard is alive this very moment."""


class Probe(msgspec.Struct, frozen=True, tag="probe", forbid_unknown_fields=True):
    """Is the comparator alive, and does it compare?"""

    nonce: int


class Beat(msgspec.Struct, frozen=True, tag="beat", forbid_unknown_fields=True):
    """The answer to a `Probe`: it does."""

    nonce: int


class Stored(msgspec.Struct, frozen=True, tag="stored", forbid_unknown_fields=True):
    """All reports of this incarnation up to this one are durable."""

    process_start_id: str = msgspec.field(name="incarnation")
    seq: int


class Attribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who served a request."""

    model: str
    variant: str
    slice: str


class Feedback(msgspec.Struct, frozen=True, tag="feedback", forbid_unknown_fields=True):
    """A user's judgement of one answer."""

    nonce: int
    request_id: str
    tenant: str
    """Who judges; only the tenant that made the request may."""
    attribution: Attribution | None
    """None if another gateway process served it."""
    thumb: bool | None = None
    """True is up."""
    score: float | None = None
    """In [0, 1]."""
    is_escalated: bool = False
    metadata: dict[str, Any] = {}


class Seek(msgspec.Struct, frozen=True, tag="seek", forbid_unknown_fields=True):
    """Who served this request?"""

    nonce: int
    request_id: str
    tenant: str


class Found(msgspec.Struct, frozen=True, tag="found", forbid_unknown_fields=True):
    """The answer to a `Seek`; None: not this process."""

    nonce: int
    attribution: Attribution | None


class FeedbackDone(msgspec.Struct, frozen=True, tag="feedback_done", forbid_unknown_fields=True):
    """The answer to a `Feedback`."""

    nonce: int
    attribution: Attribution | None
    """None: no gateway remembers the request, and nothing was stored."""
    error: str | None = None
    """Why it was not stored: a code of `penumbra.router.errors.STATUS`."""


FromGateway = Hello | EpochApplied | Refused | Renew | Beat | Report | Feedback | Found
FromControl = Push | LeaseGrant | Probe | Stored | Seek | FeedbackDone

_from_gateway: msgspec.json.Decoder[FromGateway] = msgspec.json.Decoder(FromGateway)
_from_control: msgspec.json.Decoder[FromControl] = msgspec.json.Decoder(FromControl)
_encode = msgspec.json.Encoder().encode


def push_of(store: str, snapshot: Snapshot) -> str:
    """The message that carries a snapshot, encoded: once an epoch, however many gateways."""
    raw = msgspec.Raw(snapshot.model_dump_json().encode())
    return encode(Push(store=store, snapshot=raw))


def encode(message: FromGateway | FromControl) -> str:
    """The text of a message."""
    return _encode(message).decode()


def from_gateway(text: str | bytes) -> FromGateway:
    """Read what a gateway said.

    Raises:
        LinkError: It is no message of a gateway.
    """
    try:
        return _from_gateway.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LinkError(f"no message of a gateway: {error}") from error


def from_control(text: str | bytes) -> FromControl:
    """Read what the control process said.

    Raises:
        LinkError: It is no message of the control process.
    """
    try:
        return _from_control.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LinkError(f"no message of the control process: {error}") from error


def link_url(url: str, path: str = PATH) -> str:
    """The WebSocket address of the link for a base URL of the control process.

    Raises:
        ValueError: The scheme is none of http, https, ws, wss.
    """
    scheme, separator, rest = url.partition("://")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if not separator or scheme not in schemes:
        raise ValueError(
            f'control_url: found "{url}", wanted http://HOST:PORT or https://HOST:PORT'
        )
    return f"{schemes[scheme]}://{rest.rstrip('/')}{path}"
