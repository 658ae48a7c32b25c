"""Specification of an installation, `penumbra.yaml`: models, variants, slices, flags, processes.

All models are frozen and strict. `penumbra.deployments.config.loader.load` reads the file, and
checks the conditions that span several fields.

Reading order: PenumbraSpec, ModelSpec, VariantSpec, EngineSpec.
"""

import platform
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from penumbra.deployments.history.identities import RoleName
from penumbra.router.addresses import (
    announced_address,
    is_loopback,
    join_host_port,
    local_host,
)
from penumbra.router.bounds import MODELS
from penumbra.router.flags.routing_table import NAME, Flag, SliceRule, StickyHeader
from penumbra.router.settings import (
    ClientTlsSettings,
    KeySettings,
    LimitSettings,
    Origin,
    TlsSettings,
)
from penumbra.router.shadow.settings import (
    Budget,
    DeadlineSettings,
    HeadroomSettings,
    HealthSettings,
    QueueLimits,
    SelfTestSettings,
)
from penumbra.router.upstream.base_url import WANTED_BASE_URL, read_base_url

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*$"
"""Pattern of a model's name; `organisation/name` matches too."""

HUB = "hf://"
"""Prefix of a source that the engine fetches from a model hub, instead of a folder."""

ControlUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+/?$")]
"""Base URL of a control process, http://HOST:PORT."""

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class Autoscaling(BaseModel):
    """Bounds on the number of replicas; Ray Serve scales between them by load."""

    model_config = _STRICT

    min: int = Field(ge=0)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"found min {self.min} over max {self.max}, wanted min ≤ max")
        return self


class Placement(BaseModel):
    """Ray placement group of one replica: the resource bundles, and how they lie on the nodes."""

    model_config = _STRICT

    bundles: tuple[dict[str, float], ...] = Field(min_length=1)
    """Resource name (CPU, GPU, ...) -> amount."""
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"


class EngineSpec(BaseModel):
    """A build that Penumbra hosts: one Ray Serve application of vLLM replicas."""

    model_config = _STRICT

    source: str = Field(min_length=1)
    """Folder of the weights, relative to the file; or `hf://organisation/name`."""
    scheme: str = Field(default="unquantized", pattern=NAME)
    """Storage format of the weights: bf16, w8a8-int8, w4a16-int4, ..."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    replicas: int | None = Field(default=None, ge=1)
    """Fixed number of replicas; 1 if neither this nor `autoscaling` is given."""
    autoscaling: Autoscaling | None = None
    cpus: float = Field(default=1.0, ge=0)
    """Number of CPUs that Ray reserves for one replica."""
    gpus: float = Field(default=0.0, ge=0)
    """Number of GPUs of one replica."""
    placement: Placement | None = None
    """Replaces the one bundle made of `cpus` and `gpus`."""
    threads: str | None = None
    """Cores that the CPU backend binds its threads to: `0`, `0-3`, `0,2`; null leaves it free."""
    engine_args: dict[str, JsonValue] = {}
    """Engine arguments, passed to vLLM as they are."""
    env: dict[str, str] = {}
    """Environment variables of the replica."""
    startup_seconds: float = Field(default=900.0, gt=0)
    """Longest time from a replica's start to ready."""

    @model_validator(mode="after")
    def _one_kind_of_scaling(self) -> Self:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("found both replicas and autoscaling, wanted one of them")
        return self

    @property
    def is_from_hub(self) -> bool:
        """Whether the engine fetches the weights itself."""
        return self.source.startswith(HUB)

    @property
    def model_source(self) -> str:
        """Model argument of vLLM: a folder, or the name on the hub."""
        return self.source.removeprefix(HUB)

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and most replicas."""
        if self.autoscaling is not None:
            return self.autoscaling.min, self.autoscaling.max
        count = self.replicas or 1
        return count, count


class VariantSpec(BaseModel):
    """One servable build: hosted here (`engine`), or a vLLM-compatible server elsewhere (`url`)."""

    model_config = _STRICT

    engine: EngineSpec | None = None
    url: str | None = Field(default=None, json_schema_extra={"wanted": WANTED_BASE_URL})
    """Base URL; `/v1/...` is appended, also where it ends in `/v1` already."""
    ca_file: str | None = Field(default=None, min_length=1)
    """Certificates that sign the server's, relative to the file; by default the system's. It must
    lie at the same place for every gateway and comparator."""
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        json_schema_extra={"wanted": "the name of an environment variable"},
    )
    """Environment variable of the gateways that holds the server's API key."""

    @field_validator("url")
    @classmethod
    def _url_is_usable(cls, url: str | None) -> str | None:
        if url is not None:
            read_base_url(url)
        return url

    @model_validator(mode="after")
    def _hosted_or_external(self) -> Self:
        if (self.engine is None) == (self.url is None):
            found = "neither engine nor url" if self.engine is None else "both engine and url"
            raise ValueError(f"found {found}, wanted exactly one of them")
        if self.engine is not None and self.api_key_env is not None:
            raise ValueError("found api_key_env with engine, wanted it only with url")
        if self.ca_file is not None and not (self.url and read_base_url(self.url).is_tls):
            raise ValueError("found ca_file without an https url, wanted it only with one")
        return self


class ModelSpec(BaseModel):
    """One public model name."""

    model_config = _STRICT

    baseline: str
    """The variant at full precision; every fallback goes to it."""
    variants: dict[str, VariantSpec] = Field(min_length=1)
    """Variants by name. Their order places the first ones in splits (docs/flags.md)."""
    slices: tuple[SliceRule, ...] = Field(default=(), max_length=20)
    flag: Flag = Flag()
    """The flag to begin with; a flag in the store takes precedence."""
    sticky_headers: tuple[StickyHeader, ...] = Field(default=(), max_length=8)
    """Headers that name a user, as those of chat front ends do (docs/flags.md), in lower case."""


class GatewaySpec(BaseModel):
    """The gateway processes of this machine."""

    model_config = _STRICT

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    """Port that all gateway processes share."""
    processes: int = Field(default=1, ge=1, le=64)
    internal_port: int = Field(default=8100, ge=1, le=65535)
    """Port of the first process's metrics and health, at `metrics.host`; the others count up."""
    tls: TlsSettings | None = None
    """Certificate and key of the port, which speaks https then; null is plain http."""
    allowed_origins: tuple[Origin, ...] = ()
    """Origins of web pages whose scripts may read answers (CORS), e.g. https://chat.example; `*` is
    every origin."""


class ControlTls(TlsSettings):
    """Certificate of the control process's port, and the authority of its clients' certificates."""

    client_ca: Path | None = None
    """Certificates that those of gateways and comparators must be signed by; null: they show none.
    """
    require_client_certificate: Literal["links", "all"] = "links"
    """With `client_ca`: who must show a certificate. One that is shown must be signed by it anyway.
    """


class OidcSpec(BaseModel):
    """An issuer of tokens (OpenID Connect) that the admin API takes beside its own."""

    model_config = _STRICT

    issuer: str = Field(min_length=9, max_length=256)
    """URL of the issuer, exactly as in its tokens; http only on this machine."""
    audience: str = Field(min_length=1, max_length=256)
    """Audience that its tokens must be for."""
    role_claim: str = Field(default="roles", min_length=1, max_length=256)
    """Claim with the roles or groups, a text or a list of them; `realm_access/roles` is the claim
    `roles` within `realm_access`."""
    roles: dict[str, RoleName] = Field(min_length=1, max_length=100)
    """Value of that claim -> role here; the highest one counts."""
    name_claim: str | None = Field(default=None, min_length=1, max_length=256)
    """Claim that names the caller in the history, behind the issuer; null is the subject (`sub`).
    """
    ca_file: Path | None = Field(default=None, strict=False)
    """Certificates that the issuer's must be signed by; null is the system's."""

    @field_validator("issuer")
    @classmethod
    def _issuer_is_reached_securely(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        is_own = parts.scheme == "http" and is_loopback(parts.hostname or "")
        has_rest = bool(parts.query or parts.fragment or parts.username)
        if not parts.hostname or has_rest or not (parts.scheme == "https" or is_own):
            raise ValueError(f'found "{issuer}", wanted https://HOST[/PATH]')
        return issuer


class ControlSpec(BaseModel):
    """The control process."""

    model_config = _STRICT

    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=1, le=65535)
    address: ControlUrl | None = None
    """Base URL at which gateways and the other control processes of the store reach this one; null
    is `host` and `port`."""
    others: tuple[ControlUrl, ...] = ()
    """Addresses of the store's other control processes, for this machine's gateways."""
    tls: ControlTls | None = None
    """Certificate and key of the port, which speaks https then; null is plain http."""
    ca_file: Path | None = Field(default=None, strict=False)
    """Certificates that the control processes' must be signed by; null is the system's."""
    client_certificate: Path | None = Field(default=None, strict=False)
    """Certificate that this machine's gateways, comparator and commands show; null: none."""
    client_key: Path | None = Field(default=None, strict=False)
    """Its private key."""
    oidc: OidcSpec | None = None
    """Issuer of tokens for people and tools; null: none. Needs the extra `oidc`."""
    store: str | None = None
    """SQLAlchemy URL; null is the SQLite file `penumbra.db` in the state folder."""
    acknowledge_seconds: float = Field(default=1.0, gt=0, le=30)
    """Longest time that a change waits for the gateways' acknowledgement before it is answered."""
    lease_seconds: float = Field(default=10.0, ge=1, le=300)
    """Time for which candidates keep live traffic without a sign of life of their guard."""
    feedback_days: int = Field(default=30, ge=1, le=3650)
    """Number of days for which users' judgements are kept."""
    report_days: float = Field(default=30.0, ge=0.1, le=3650)
    """Number of days for which the reports of a watched run are kept; after that their evidence
    goes on, and a rollback of before then cannot be computed anew."""

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("found one of client_certificate and client_key, wanted both or none")
        return self

    @property
    def client_tls(self) -> ClientTlsSettings:
        """The files by which this machine's processes and commands know the control processes."""
        return ClientTlsSettings(
            ca_file=self.ca_file, certificate=self.client_certificate, key=self.client_key
        )


class ShadowSpec(BaseModel):
    """The comparator of this machine: limits of its memory and of its cost to the engines."""

    model_config = _STRICT

    enabled: bool = True
    """Without a comparator nothing is mirrored, and no candidate in a rollout gets live traffic."""
    internal_port: int = Field(default=8095, ge=1, le=65535)
    """Port of its metrics and health, at `metrics.host`."""
    limits: QueueLimits = QueueLimits()
    budget: Budget = Budget()
    headroom: HeadroomSettings = HeadroomSettings()
    self_test: SelfTestSettings = SelfTestSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    health: HealthSettings = HealthSettings()


class MetricsSpec(BaseModel):
    """Address at which Prometheus reaches the metrics of this machine's gateways and comparator."""

    model_config = _STRICT

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address that the internal ports are bound to. They need no key: only Prometheus should reach
    them."""
    announce: str | None = Field(default=None, min_length=1)
    """Host that discovery names. The default is `host`; if that is every address, it is the address
    from which a process connects to the control process."""


class RaySpec(BaseModel):
    """The Ray cluster; used only if a variant has an `engine`."""

    model_config = _STRICT

    address: str | None = None
    """Address of an existing cluster; null starts a local one."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port of the HAProxy that carries the bytes to the replicas."""


class PenumbraSpec(BaseModel):
    """Content of `penumbra.yaml`."""

    model_config = _STRICT

    state_dir: Path = Field(default=Path(".penumbra"), strict=False)
    models: dict[str, ModelSpec] = Field(min_length=1, max_length=MODELS)
    gateway: GatewaySpec = GatewaySpec()
    limits: LimitSettings = LimitSettings()
    keys: tuple[KeySettings, ...] = ()
    control: ControlSpec = ControlSpec()
    shadow: ShadowSpec = ShadowSpec()
    metrics: MetricsSpec = MetricsSpec()
    ray: RaySpec = RaySpec()

    @property
    def needs_ray(self) -> bool:
        """Whether this installation hosts a variant."""
        return any(
            variant.engine is not None
            for model in self.models.values()
            for variant in model.variants.values()
        )

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store."""
        return self.control.store or f"sqlite:///{self.state_dir / 'penumbra.db'}"

    @property
    def control_address(self) -> str:
        """Base URL of the control process for processes anywhere."""
        if self.control.address is not None:
            return self.control.address
        address = announced_address(self.control.host, self.control.port)
        host = platform.node() if address[0] == ":" else ""
        return f"{self._control_scheme}://{host}{address}"

    @property
    def control_url(self) -> str:
        """Base URL of the control process for this machine's processes.

        With TLS it is its address, if there is one: the certificate is for that name.
        """
        if self.control.tls is not None and self.control.address is not None:
            return self.control.address.rstrip("/")
        return self.control_probe_url

    @property
    def control_probe_url(self) -> str:
        """Base URL of the control process for probes on its machine, which verify nothing."""
        own = join_host_port(local_host(self.control.host), self.control.port)
        return f"{self._control_scheme}://{own}"

    @property
    def _control_scheme(self) -> str:
        return "http" if self.control.tls is None else "https"
