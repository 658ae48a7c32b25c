"""Settings of a gateway process: frozen, read once at start, passed down.

The flags and the routing table come as a `Snapshot` from the control process.
"""

import platform
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from penumbra.router.addresses import is_loopback
from penumbra.router.bounds import BODY_BYTES
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.tenant_keys import KeySettings as KeySettings
from penumbra.router.flags.tenant_keys import TenantLimits as TenantLimits
from penumbra.router.flags.tenant_keys import limit_problems as limit_problems
from penumbra.router.upstream.base_url import read_base_url

_STRICT = ConfigDict(extra="forbid", frozen=True)


Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[a-z0-9.:\[\]-]+)$")]
"""Origin of a web page as browsers send it, e.g. `https://chat.example:8443`; `*` is every one."""


GRACE_SECONDS = 30
"""Time in which a gateway that is told to end ends the answers under way."""


class TlsSettings(BaseModel):
    """Certificate of the gateway's own port; renewed files are noticed within seconds."""

    model_config = _STRICT

    certificate: Path
    """Certificate and those in between, up to the authority, in PEM form."""
    key: Path
    """Its private key in PEM form, without a password."""


class ClientTlsSettings(BaseModel):
    """Files by which a process verifies the control process, and shows who it is itself."""

    model_config = _STRICT

    ca_file: Path | None = None
    """Certificates that the control process's must be signed by, in PEM form; None: the system's.
    """
    certificate: Path | None = None
    """Certificate that is shown, with those in between, in PEM form; None: none is."""
    key: Path | None = None
    """Its private key in PEM form, without a password."""

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("found one of a client's certificate and key, wanted both or none")
        return self


class LimitSettings(BaseModel):
    """Limits on the size and the time of requests, and on the time of answers."""

    model_config = _STRICT

    body_bytes: int = Field(default=BODY_BYTES, ge=1024)
    header_bytes: int = Field(default=32 * 1024, ge=1024)
    """All header lines of one request together, the request line included."""
    header_lines: int = Field(default=72, ge=8)
    """Header lines of one request. HAProxy, in front of our replicas, takes 100; the gateway adds
    up to five."""
    header_seconds: float = Field(default=10.0, gt=0)
    """From the first byte of a request to the end of its head."""
    body_seconds: float = Field(default=60.0, gt=0)
    """From the end of the head to the end of the body."""
    client_write_seconds: float = Field(default=60.0, gt=0)
    """Longest time in which a client reads nothing of what was sent to it."""
    keep_alive_seconds: float = Field(default=75.0, gt=0)
    connect_seconds: float = Field(default=2.0, gt=0)
    first_byte_seconds: float = Field(default=120.0, gt=0)
    """From a request for a stream to its first event with data; comments are none."""
    candidate_first_byte_seconds: float = Field(default=30.0, gt=0)
    """The same for a candidate; after it the baseline is asked."""
    whole_answer_seconds: float = Field(default=600.0, gt=0)
    """From a request for a whole answer to its head. For a candidate that has answered 20 such
    requests lately, three times the longest of them, but at least `candidate_first_byte_seconds`,
    if that is less."""
    idle_seconds: float = Field(default=60.0, gt=0)
    """Between two events with data of a stream, or two pieces of a whole answer."""
    upstream_connections: int = Field(default=4096, ge=1)
    """Open connections to one variant, idle ones included, in one gateway process."""
    upstream_connection_seconds: float = Field(default=300.0, gt=0)
    """Longest life of such a connection: new ones go to the addresses that the name then has."""


class GatewaySettings(BaseModel):
    """Everything one gateway process needs to start.

    Raises:
        ValueError: no keys are configured and `host` is not a loopback address, a tenant's limit is
            below the number of processes, or a variant's URL is none.
    """

    model_config = _STRICT

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    """Shared by all gateway processes of the machine (SO_REUSEPORT)."""
    internal_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of this one process: /metrics, /health, /ready, /debug/snapshot."""
    internal_host: str = Field(default="127.0.0.1", min_length=1)
    """Address that the internal port is bound to. Its routes ask for no key."""
    announce: str | None = Field(default=None, min_length=1)
    """Host at which Prometheus reaches the internal port. By default it is `internal_host`; if that
    is every address, the address from which this process connects to the control process."""
    gateway_id: str = "gateway-0"
    processes: int = Field(default=1, ge=1, le=64)
    """Gateway processes that share the port; tenant limits are divided by it."""
    keys: tuple[KeySettings, ...] = ()
    """API keys until the control process tells of others, which hold from then on."""
    keys_file: Path | None = None
    """File that this one process keeps the keys in that it was told last, and starts with; None
    starts with `keys` each time."""
    kills_file: Path | None = None
    """File that this one process keeps the kills in that an operator gave it itself, and starts
    with; None keeps none."""
    allowed_origins: tuple[Origin, ...] = ()
    """Origins of web pages whose scripts may read answers (CORS)."""
    tls: TlsSettings | None = None
    """The port speaks https with it; null is plain http."""
    limits: LimitSettings = LimitSettings()
    control_url: str | None = None
    """Base URL of the control process, e.g. http://127.0.0.1:8090; None runs on `snapshot`."""
    other_control_urls: tuple[str, ...] = ()
    """Base URLs of the other control processes of the same store: one of all of them leads."""
    control_tls: ClientTlsSettings = ClientTlsSettings()
    """For a `control_url` of https."""
    shadow_socket: Path | None = None
    """Unix socket of the comparator of this machine; None mirrors nothing."""
    machine: str = Field(default_factory=platform.node, min_length=1)
    """Name of the machine, the same for its comparator and all its gateways; by default the host
    name. Containers that share the socket but no host name need one set."""
    snapshot: Snapshot
    """Routing table until the control process has sent a newer one."""

    @field_validator("snapshot")
    @classmethod
    def _urls_are_usable(cls, snapshot: Snapshot) -> Snapshot:
        for model_name, model in snapshot.models.items():
            for variant_name, variant in model.variants.items():
                try:
                    read_base_url(variant.url)
                except ValueError as error:
                    path = f"models.{model_name}.variants.{variant_name}.url"
                    raise ValueError(f"{path}: {error}") from error
        return snapshot

    @model_validator(mode="after")
    def _open_gateway_stays_on_loopback(self) -> Self:
        if self.keys or is_loopback(self.host):
            return self
        raise ValueError(
            f"gateway.host is {self.host!r} but no keys are configured: without keys the gateway"
            " binds a loopback address only (127.0.0.1, ::1 or localhost). Add a key"
            " (`penumbra keys new TENANT`) or bind loopback."
        )

    @model_validator(mode="after")
    def _every_process_has_a_share_of_each_limit(self) -> Self:
        for text in limit_problems(self.keys, self.processes):
            raise ValueError(text)
        return self
