"""What a gateway and the control process say to each other on the link; shared by both ends.

    gateway                              control
       | -- Hello(gateway, pid, epoch) --> |
       | <-- Push(store, snapshot) ------- |   at once, then for every new epoch
       | -- Applied(epoch) --------------> |   the snapshot is in force
       | -- Refused(epoch, detail) ------> |   ... or it is not, and the last one stays

One JSON object in each WebSocket text message, told apart by `type`. Unknown fields are errors.
"""

import msgspec

from router.snapshot import Snapshot

PATH = "/gateway/v1/link"


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


class Applied(msgspec.Struct, frozen=True, tag="applied", forbid_unknown_fields=True):
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


FromGateway = Hello | Applied | Refused

_from_gateway: msgspec.json.Decoder[FromGateway] = msgspec.json.Decoder(FromGateway)
_from_control: msgspec.json.Decoder[Push] = msgspec.json.Decoder(Push)
_encode = msgspec.json.Encoder().encode


def push_of(store: str, snapshot: Snapshot) -> str:
    """The message that carries a snapshot, encoded: once an epoch, however many gateways."""
    raw = msgspec.Raw(snapshot.model_dump_json().encode())
    return encode(Push(store=store, snapshot=raw))


def encode(message: FromGateway | Push) -> str:
    """The text of a message."""
    return _encode(message).decode()


def from_gateway(text: str | bytes) -> FromGateway:
    """Read what a gateway said.

    Raises:
        LinkError: It is no message of a gateway.
    """
    try:
        return _from_gateway.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkError(f"no message of a gateway: {error}") from error


def from_control(text: str | bytes) -> Push:
    """Read what the control process said.

    Raises:
        LinkError: It is no message of the control process.
    """
    try:
        return _from_control.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LinkError(f"no message of the control process: {error}") from error
