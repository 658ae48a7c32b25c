"""Settings of a comparator process: frozen, read once at start, passed down.

The watches, which say what to compare, are not part of them: they come with the routing table from
the control process.
"""

import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from penumbra.router.settings import ClientTlsSettings

_STRICT = ConfigDict(extra="forbid", frozen=True)


class QueueLimits(BaseModel):
    """Limits of the requests that wait or are under way; requests over them are shed."""

    model_config = _STRICT

    items: int = Field(default=512, ge=1)
    bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Once this many wait, nothing more is taken; so at most one frame over it is queued."""
    in_flight: int = Field(default=4, ge=1, le=256)
    """Comparisons under way at once."""
    age_seconds: float = Field(default=30.0, gt=0)
    """From the end of the client's answer to the start of its comparison."""
    connections: int = Field(default=64, ge=1)
    """Gateway processes of the machine that may connect."""


class Budget(BaseModel):
    """Limit of the engine time that comparing may cost."""

    model_config = _STRICT

    engine_seconds_per_minute: float = Field(default=30.0, gt=0)
    """Time that engines spend on scores and shadow answers, all engines together, as measured from
    outside."""


class HeadroomSettings(BaseModel):
    """Load from which an engine is left to its clients. The gauges are vLLM's own."""

    model_config = _STRICT

    running: int = Field(default=16, ge=1)
    """Requests in the batch, the comparator's own included."""
    waiting: int = Field(default=0, ge=0)
    """Requests that wait for a place in the batch."""
    kv_ratio: float = Field(default=0.8, gt=0, le=1)
    """Share of the KV cache that is in use."""
    poll_seconds: float = Field(default=0.5, gt=0)
    """Interval at which the gauges are read."""
    stale_seconds: float = Field(default=3.0, gt=0)
    """Gauges older than this count as unknown. An engine with unknown gauges gets one comparison
    at a time."""


class SelfTestSettings(BaseModel):
    """Self-test: the baseline scored against itself."""

    model_config = _STRICT

    seconds: float = Field(default=3600.0, gt=0)
    """Interval of self-tests."""
    retry_seconds: float = Field(default=30.0, gt=0, le=60)
    """Interval after a self-test that failed: a failure expires that is not told again within 200 s
    of evidence."""
    largest_gap: float = Field(default=0.5, gt=0)
    """Nats by which a token's log-probability may differ between two scores of the same tokens."""
    displacement: float = Field(default=0.005, gt=0, lt=1)
    """Mean displacement that is still numerical noise."""


class DeadlineSettings(BaseModel):
    """Deadlines of a variant; past one the score or the answer is missing."""

    model_config = _STRICT

    score_seconds: float = Field(default=15.0, gt=0, le=120)
    generate_seconds: float = Field(default=60.0, gt=0)
    connect_seconds: float = Field(default=2.0, gt=0)


class HealthSettings(BaseModel):
    """Condition under which a watched candidate counts as unhealthy."""

    model_config = _STRICT

    seconds: float = Field(default=1.0, gt=0)
    """Interval of health checks."""
    failures: int = Field(default=5, ge=1)
    """Bad answers in a row that trip."""


class ShadowSettings(BaseModel):
    """Everything one comparator process needs to start."""

    model_config = _STRICT

    comparator_id: str = Field(default="comparator-0", min_length=1)
    control_url: str
    """Base URL of the control process, e.g. http://127.0.0.1:8090."""
    other_control_urls: tuple[str, ...] = ()
    """Base URLs of the other control processes of the same store: one of all of them leads."""
    control_tls: ClientTlsSettings = ClientTlsSettings()
    """For a `control_url` of https."""
    socket_path: Path
    """Unix socket on which the gateways of the machine hand requests over; private to the user."""
    machine: str = Field(default_factory=platform.node, min_length=1)
    """Name of the machine, the same for this comparator and its gateways: by default the host
    name. Containers that share the socket but no host name are given one."""
    internal_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of /metrics and /health."""
    internal_host: str = Field(default="127.0.0.1", min_length=1)
    """Address that the internal port is bound to. The port asks for no key."""
    announce: str | None = Field(default=None, min_length=1)
    """Host under which Prometheus reaches the internal port; by default `internal_host`, and if
    that is every address, the one from which this process connects to the control process."""
    limits: QueueLimits = QueueLimits()
    budget: Budget = Budget()
    headroom: HeadroomSettings = HeadroomSettings()
    self_test: SelfTestSettings = SelfTestSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    health: HealthSettings = HealthSettings()
    bets: int = Field(default=100_000, ge=1)
    """Prompts, and sessions, that a run remembers at least: its horizon."""
    generation_tokens: int = Field(default=2048, ge=1)
    """Tokens that a shadow answer may have where the request sets no lower limit."""
    fingerprint_seconds: float = Field(default=60.0, gt=0)
    """Interval at which fingerprints and context lengths are read."""
    niceness: int = Field(default=10, ge=0, le=19)
    """Number added to the process's nice value, so that gateways come first."""
