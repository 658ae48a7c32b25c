"""API keys and the limits of their tenants, as files and routing tables have them. Pure."""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

_STRICT = ConfigDict(extra="forbid", frozen=True)

KEY_ID_CHARS = 12
"""First characters of a key's digest: they name the key wherever it is shown."""


class TenantLimits(BaseModel):
    """Limits of one tenant, enforced by each gateway process for its share (limit / processes)."""

    model_config = _STRICT

    concurrency: int | None = Field(default=None, ge=1)
    """Requests in flight at once."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Token bucket: requests a minute; a burst may hold a sixth of it."""


class KeySettings(BaseModel):
    """One API key, known by its digest only."""

    model_config = _STRICT

    tenant: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the key, in hex (`penumbra keys new` prints both)."""
    may_pin: bool = False
    """Whether a request with this key may choose its variant with `x-penumbra-variant`."""
    limits: TenantLimits = TenantLimits()

    @property
    def key_id(self) -> str:
        """Name of the key: the first characters of its digest."""
        return self.sha256[:KEY_ID_CHARS]


def limit_problems(keys: Iterable[KeySettings], processes: int) -> Iterator[str]:
    """Problems of limits that are too small to be divided: each process would let one through."""
    for index, key in enumerate(keys):
        for name in TenantLimits.model_fields:
            limit = getattr(key.limits, name)
            if limit is not None and limit < processes:
                yield (
                    f"keys[{index}].limits.{name}: found {limit} with {processes} gateway"
                    f" processes, wanted at least {processes}: each process keeps its share of a"
                    f" limit (or set gateway.processes to {limit})"
                )
