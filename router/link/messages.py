"""Messages between a gateway, or a comparator, and the control process. Both ends use this module.

    gateway                                  control process
       | -- Hello(gateway, pid, epoch, ...) -> |
       | <-- Push(store, snapshot) ----------- |   at once, then for every new epoch
       | -- EpochApplied(epoch, digest) -----> |   the snapshot is in force
       | -- Refused(epoch, detail) ----------> |   ... or it is not, and the last one stays
       | -- Renew(nonce, stopped) -----------> |   a few times within a lease
       | <-- LeaseGrant(nonce, seconds, ...) - |   counted from when the Renew was sent
       | -- Answers(counts) -----------------> |   what clients got in the last minute
       | -- Report(source, seq, runs) -------> |   observations (penumbra.monitoring.observations)
       | <-- Stored(incarnation, seq) -------- |   the observations are durable
       | -- Feedback(nonce, id, ...) --------> |   a user's judgement of an answer
       | <-- Seek(nonce, id) ----------------- |   another gateway's user judged this request
       | -- Found(nonce, attribution) -------> |
       | <-- FeedbackDone(nonce, ...) -------- |   it is durable, or no gateway knows the request
       | -- Locate(nonce, id) ---------------> |   which build gave this stored response?
       | <-- Located(nonce, attribution) ----- |   after the others were asked (Seek, Found)

A comparator speaks the same on its own path. It neither renews nor passes feedback, but is asked
for signs of life:

    comparator                               control process
       | <-- Probe(nonce) -------------------- |   a few times within a lease
       | -- Beat(nonce, stopped) ------------> |   it was alive when the Probe was sent

A sign of life is asked for, and counts from when it was asked for: an answer that was stuck in a
buffer proves nothing about later. A message is one JSON object in one WebSocket text message; the
field `type` tells messages apart.

**Versions.** The two ends may be of different versions, so what is added later must not break the
link:

- A field that the reader does not know is ignored, at every level. A new field therefore has a
  default, which is what an older peer means by leaving it out.
- A message of a `type` that the reader does not know is ignored and logged (`UnknownMessage`).
- A report with a value that its field cannot have is refused (`UnreadableReport`): it is logged,
  counted and acknowledged, for to send it again is of no use.
- Malformed JSON, a missing field without a default, a value of the wrong kind, and a message of the
  other direction end the connection (`LinkError`).
- `Hello.version` is the version of these messages. It is raised only for a change that the rules
  above do not cover, such as a new value of an enumeration.
- The routing table in a `Push` is an exception: a gateway refuses a table with a field that it does
  not know, because it would decide differently from the other gateways. Fields that have their
  default value are not sent, so only a table that uses the new field is refused. A default must
  therefore never change.
"""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

import msgspec

from penumbra.monitoring.answers import MOST_COUNTS, AnswerCount
from penumbra.monitoring.observations import Report
from penumbra.router.bounds import MODELS
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.link.attribution import Attribution as Attribution
from penumbra.router.link.attribution import Found as Found
from penumbra.router.link.attribution import Locate as Locate
from penumbra.router.link.attribution import Located as Located
from penumbra.router.link.attribution import Seek as Seek
from penumbra.router.link.older_gateways import loosened, stricter
from penumbra.router.link.table_identity import Restriction, TableName, store_of, store_text
from penumbra.router.link.unreadable_report import UnreadableReport, unreadable_report

PATH = "/gateway/v1/link"
COMPARATOR_PATH = "/comparator/v1/link"
LEADER_HEADER = "x-penumbra-leader"
"""Response header of a control process that turns a link away: base URL of the one that leads."""
VERSION = 1
"""Version of the messages that this process sends."""


Stopped = Annotated[dict[str, tuple[str, ...]], msgspec.Meta(max_length=MODELS)]


class LinkError(ValueError):
    """The peer sent something that is no message of the link, or that it may not send now."""

    code = "link_protocol"


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """The first message of a gateway or a comparator.

    Fields that have their default value are not sent: a control process of before `version` refuses
    a `hello` with a field that it does not know.
    """

    gateway: str
    pid: int
    store: str
    """The store that its routing table came from; empty for the one that it booted with."""
    epoch: int
    host: str = ""
    """The machine (or pod): a comparator guards the gateways of its own."""
    metrics: str = ""
    """Address of its /metrics: `HOST:PORT`; `:PORT` at the address that it connects from; empty if
    it has none, or is older than this field."""
    version: int = 1
    """Version of the messages that it sends (`VERSION`); 1 if it is older than this field."""
    generation: int = 1
    """With `store`, `epoch` and `digest`, the name of the table that it has in force."""
    digest: str = ""
    restrictions: dict[str, Restriction] = {}
    """Model -> what that table takes away: a store that went back may have forgotten it."""
    processes: int = 0
    """Gateway processes that share a tenant's limits, this one included; 0 for a comparator, and
    for a gateway that is older than this field: it does not take the keys of a `Push`."""
    needs_keys: bool = False
    """Whether it listens beyond its own machine, and so lets no caller in without a key."""

    def table_name(self) -> TableName:
        """The name of the table that it has in force."""
        return TableName(store_of(self.store), self.generation, self.epoch, self.digest)


class EpochApplied(msgspec.Struct, frozen=True, tag="applied", omit_defaults=True):
    """Tells that every further request is decided by this epoch (or a later one)."""

    epoch: int
    generation: int = 1
    digest: str = ""
    """Of the table that is in force, as its `Push` named it; empty if it is older than names."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Tells that the epoch was not put into force, and why."""

    epoch: int
    detail: str


class Push(msgspec.Struct, frozen=True, tag="snapshot", omit_defaults=True):
    """The routing table of the newest epoch."""

    store: str
    """Identity of the store, with its generation from the second on (`store_text`); epochs of two
    stores or generations cannot be compared."""
    snapshot: msgspec.Raw
    generation: int = 1
    digest: str = ""
    """Digest of the event that made the epoch."""
    keys: tuple[dict[str, Any], ...] | None = None
    """API keys in force (`KeySettings`); None: none are told. Beside the table, so that a gateway
    of before this field takes the table all the same."""
    own: dict[str, Any] | None = None
    """Model -> what the table says of single candidates (`OwnRestrictions`), beside it for the same
    reason: without it the table is stricter. None: nothing."""

    def name_of(self, table: Snapshot) -> TableName:
        """The table's name."""
        return TableName(store_of(self.store), self.generation, table.epoch, self.digest)

    def table(self) -> Snapshot:
        """Read the routing table.

        Raises:
            ValueError: It is no routing table (pydantic's `ValidationError`).
        """
        table = Snapshot.model_validate_json(bytes(self.snapshot))
        if self.own is not None:
            table = loosened(table, self.own)
        if self.keys is None:
            return table
        keys = tuple(KeySettings.model_validate(key) for key in self.keys)
        return table.model_copy(update={"keys": keys})


class Renew(msgspec.Struct, frozen=True, tag="renew", omit_defaults=True):
    """Asks whether the guard is alive. The gateway counts the lease from when it asked."""

    nonce: int
    stopped: Stopped = {}
    """Model -> candidates of whose requests its comparator takes none
    (`penumbra.router.mirror.evidence_flow`)."""
    is_by_candidate: bool = False
    """Whether it understands `LeaseGrant.without`."""
    kills: dict[str, str] = {}
    """Model -> why an operator killed it in this process itself."""


class LeaseGrant(msgspec.Struct, frozen=True, tag="lease", omit_defaults=True):
    """The answer to a `Renew`: for how long candidates may go on getting live traffic."""

    nonce: int
    seconds: dict[str, float]
    """Model -> seconds from when the `Renew` was sent; 0 for one that has no live guard."""
    full_seconds: float
    """Seconds for a model whose guard is alive at this very moment."""
    without: Stopped = {}
    """Model -> candidates that its lease is not for: the evidence about them has stopped, and that
    about another live one flows. Only for a gateway that asked `is_by_candidate`."""


class Answers(msgspec.Struct, frozen=True, tag="answers"):
    """The answers that clients of a gateway got in the last minute.

    Sent at once, then every second in which they changed; the last one counts until the next.
    """

    counts: Annotated[tuple[AnswerCount, ...], msgspec.Meta(max_length=MOST_COUNTS)] = ()


class Probe(msgspec.Struct, frozen=True, tag="probe"):
    """Asks whether the comparator is alive and compares."""

    nonce: int


class Beat(msgspec.Struct, frozen=True, tag="beat", omit_defaults=True):
    """The answer to a `Probe`: the comparator is alive and compares."""

    nonce: int
    stopped: Stopped = {}
    """Model -> candidates of whose requests it compares none."""


class Stored(msgspec.Struct, frozen=True, tag="stored"):
    """Tells that all reports of this process start up to this one are durable."""

    process_start_id: str = msgspec.field(name="incarnation")
    seq: int


class Feedback(msgspec.Struct, frozen=True, tag="feedback"):
    """A user's judgement of one answer."""

    nonce: int
    request_id: str
    tenant: str
    """The tenant that judges; only the one that made the request may."""
    attribution: Attribution | None
    """None if another gateway process served it."""
    thumb: bool | None = None
    """True is up."""
    score: float | None = None
    """In [0, 1]."""
    is_escalated: bool = False
    metadata: dict[str, Any] = {}


class FeedbackDone(msgspec.Struct, frozen=True, tag="feedback_done"):
    """The answer to a `Feedback`."""

    nonce: int
    attribution: Attribution | None
    """None: no gateway remembers the request, and nothing was stored."""
    error: str | None = None
    """Why it was not stored: a code of `penumbra.router.errors.STATUS`."""


@dataclass(frozen=True, slots=True)
class UnknownMessage:
    """A well-formed message of a type that a newer peer knows and this process does not."""

    type: str


FromGateway = (
    Hello | EpochApplied | Refused | Renew | Answers | Beat | Report | Feedback | Found | Locate
)
FromControl = Push | LeaseGrant | Probe | Stored | Seek | FeedbackDone | Located

_read_from_gateway: msgspec.json.Decoder[FromGateway] = msgspec.json.Decoder(FromGateway)
_read_from_control: msgspec.json.Decoder[FromControl] = msgspec.json.Decoder(FromControl)
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Typed(msgspec.Struct):
    """The one field that every message has."""

    type: str


_read_type = msgspec.json.Decoder(_Typed).decode
_KNOWN_TYPES = frozenset(
    kind.__struct_config__.tag for kind in (*get_args(FromGateway), *get_args(FromControl))
)


def push_of(store: str, snapshot: Snapshot, generation: int = 1, digest: str = "") -> str:
    """Encode the message that carries a snapshot: once an epoch, however many gateways there are.

    Fields at their default value are left out, so that an older gateway takes a table that does not
    use what it does not know; and what it must not refuse is beside the table.
    """
    strict, own = stricter(snapshot)
    written = strict.model_dump_json(exclude_defaults=True, exclude={"keys"})
    raw, keys = msgspec.Raw(written.encode()), None
    if snapshot.keys is not None:
        keys = tuple(key.model_dump(mode="json", exclude_defaults=True) for key in snapshot.keys)
    return encode(Push(store_text(store, generation), raw, generation, digest, keys, own or None))


def encode(message: FromGateway | FromControl) -> str:
    """Encode a message as JSON text."""
    return _encode(message).decode()


def from_gateway(text: str | bytes) -> FromGateway | UnknownMessage | UnreadableReport:
    """Read a message of a gateway or a comparator.

    Raises:
        LinkError: It is no message of a gateway.
    """
    try:
        return _read_from_gateway.decode(text)
    except msgspec.ValidationError as error:
        return unreadable_report(text, error) or _unknown(text, "a gateway", error)
    except _UNREADABLE as error:
        return _unknown(text, "a gateway", error)


def from_control(text: str | bytes) -> FromControl | UnknownMessage:
    """Read a message of the control process.

    Raises:
        LinkError: It is no message of the control process.
    """
    try:
        return _read_from_control.decode(text)
    except _UNREADABLE as error:
        return _unknown(text, "the control process", error)


def _unknown(text: str | bytes, sender: str, error: Exception) -> UnknownMessage:
    try:
        name = _read_type(text).type
    except _UNREADABLE:
        name = None
    if name is None or name in _KNOWN_TYPES:
        raise LinkError(f"no message of {sender}: {error}") from error
    return UnknownMessage(name)
