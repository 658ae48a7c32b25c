"""A gateway without sockets: client connections whose bytes a test feeds, in any pieces."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from penumbra.router.flags.routing_table import Flag, ModelSnapshot, SliceRule, Snapshot, Variant
from penumbra.router.gateway.client_protocol import GatewayProtocol
from penumbra.router.gateway.cold_routes import build_public_app
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.settings import GatewaySettings, KeySettings, LimitSettings, TenantLimits
from penumbra.router.upstream.fake import FakeUpstream, Script, whole
from penumbra.router.upstream.port import Upstream, UpstreamRequest

LONG_SECONDS = 1000.0
"""More than any limit of the gateway."""
CHAT = "/v1/chat/completions"
BODY_BYTES = 200_000
"""Limit on bodies: more than what is decoded at once."""
WHOLE = {"object": "chat.completion", "choices": [{"message": {"content": "hello"}}]}
CHUNK = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
TABLE = Snapshot(
    epoch=1,
    models={
        "demo": ModelSnapshot(
            baseline="full",
            variants={"full": Variant(url="http://full"), "int8": Variant(url="http://int8")},
            slices=(SliceRule.model_validate({"name": "code", "match": {"code": True}}),),
            flag=Flag(split={"int8": 50}),
        )
    },
)


class WireTransport(asyncio.Transport):
    """The transport of a connection that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol | None = None
        self.sent = bytearray()
        self.is_reading_paused = False
        self.is_eof_sent = False
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_eof_sent:
            raise RuntimeError("cannot write after the end")
        if not self._is_closing:
            self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_eof_sent = True

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if self.protocol is not None:
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, error)


class Wire:
    """One client connection of a gateway."""

    def __init__(self, gateway: "WireGateway") -> None:
        self.transport = WireTransport()
        self._protocol = GatewayProtocol(
            gateway.gateway, config=gateway.config, server_state=ServerState(), app_state={}
        )
        self.transport.protocol = self._protocol
        self._protocol.connection_made(self.transport)

    def feed(self, data: bytes) -> None:
        """Receive bytes; they are lost if the connection is closed, as those on their way are."""
        if not self.transport.is_closing():
            self._protocol.data_received(data)

    def forget_heads(self) -> None:
        """Have the gateway parse every head, also one that repeats the last."""
        self._protocol._heads_to_learn = 0

    def lose(self, error: Exception | None = None) -> None:
        """Lose the client."""
        self.transport.lose(error)

    @property
    def sent(self) -> bytes:
        return bytes(self.transport.sent)


class WireGateway:
    """A gateway of one or more models whose clock stands still until a test moves it.

    Args:
        answer: (variant, request) -> the upstream's script.
        snapshot: The routing table.
        tenants: Limits by tenant; the key of a tenant is its name.
        limits: Other limits.
    """

    def __init__(
        self,
        answer: Callable[[str, UpstreamRequest], Script],
        snapshot: Snapshot,
        tenants: dict[str, TenantLimits],
        limits: LimitSettings,
    ) -> None:
        self.now = 0.0
        keys = tuple(
            KeySettings(tenant=name, sha256=hashlib.sha256(name.encode()).hexdigest(), limits=given)
            for name, given in tenants.items()
        )

        def connect(model: str, variant: Variant) -> Upstream:
            return FakeUpstream(model, lambda request: answer(variant.url, request))

        settings = GatewaySettings(snapshot=snapshot, keys=keys, limits=limits)
        self.gateway = Gateway(settings, lambda: self.now, connect)
        app = cast("Any", build_public_app(self.gateway))
        self.config = uvicorn.Config(app, log_config=None, lifespan="off")
        self.config.load()

    def connect(self) -> Wire:
        return Wire(self)

    def in_flight(self, tenant: str) -> int:
        """Places of a tenant that are taken."""
        return self.gateway.keys.identify(b"Bearer " + tenant.encode()).tenant.in_flight

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and expire what is over its deadline."""
        self.now += seconds
        for item in [item for item in self.gateway.timed if item.deadline <= self.now]:
            item.expire(self.now)


async def turns(count: int = 20) -> None:
    """Let so many turns of the event loop pass."""
    for _ in range(count):
        await asyncio.sleep(0)


def chat(**more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "demo", "messages": [{"role": "user", "content": "hi"}], **more}


def request(
    body: bytes | dict[str, Any], *headers: str, key: str | None = "acme", path: str = CHAT
) -> bytes:
    """The bytes of a request; headers are lines."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: x", *headers]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if not any(line.startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join([*lines, "", ""]).encode() + data


def wire_gateway(
    answer: Callable[[str, UpstreamRequest], Script] = lambda _url, _request: whole(WHOLE),
    **tenant: int,
) -> WireGateway:
    """A gateway of two builds; `acme` has limits and `other` has none."""
    tenants = {"acme": TenantLimits(**tenant), "other": TenantLimits()}
    return WireGateway(answer, TABLE, tenants, LimitSettings(body_bytes=BODY_BYTES))
