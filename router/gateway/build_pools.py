"""The connection pools of one gateway process: an upstream for each variant of its table."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping

from penumbra.router.flags.routing_table import Snapshot, Variant
from penumbra.router.secret_values import api_key_of
from penumbra.router.settings import LimitSettings
from penumbra.router.upstream.batched_writes import BatchedWrites
from penumbra.router.upstream.http import HttpUpstream, PoolLimits
from penumbra.router.upstream.port import Upstream

log = logging.getLogger(__name__)

Key = tuple[str, Variant]
"""Model and variant: a variant that changes gets a pool of its own."""


class BuildPools:
    """The upstreams of the table in force.

    Args:
        make: (model, variant) -> Upstream.
    """

    def __init__(self, make: Callable[[str, Variant], Upstream]) -> None:
        self._make = make
        self._upstreams: dict[Key, Upstream] = {}

    def prepare(self, snapshot: Snapshot) -> dict[Key, Upstream]:
        """The upstreams of a table: those there are, and new ones for what has changed.

        Raises:
            ValueError: A variant has no usable address.
        """
        keys = [
            (name, variant)
            for name, model in snapshot.models.items()
            for variant in model.variants.values()
        ]
        return {key: self._upstreams.get(key) or self._make(*key) for key in keys}

    def replace(self, upstreams: dict[Key, Upstream]) -> list[Upstream]:
        """Put prepared upstreams into force; returns those that are retired, to be closed."""
        before, self._upstreams = self._upstreams, upstreams
        return [before[key] for key in before.keys() - upstreams.keys()]

    def of(self, snapshot: Snapshot) -> dict[str, dict[str, Upstream]]:
        """Model -> variant -> upstream, for the table in force."""
        return {
            name: {variant: self._upstreams[name, at] for variant, at in model.variants.items()}
            for name, model in snapshot.models.items()
        }

    def close(self) -> None:
        """Close the pooled connections of all upstreams."""
        close_all(self._upstreams.values())


def close_all(upstreams: Iterable[Upstream]) -> None:
    """Close the idle connections of upstreams now, and busy ones when their answer ends."""
    for upstream in upstreams:
        if isinstance(upstream, HttpUpstream):
            upstream.close()


def connections(builds: Mapping[str, Mapping[str, Upstream]]) -> dict[tuple[str, ...], int]:
    """(model, variant, `busy` or `idle`) -> open connections.

    Args:
        builds: Model -> variant -> upstream.
    """
    counts: dict[tuple[str, ...], int] = {}
    for model, found in builds.items():
        for variant, upstream in found.items():
            if isinstance(upstream, HttpUpstream):
                idle = upstream.idle_connections
                counts[model, variant, "idle"] = idle
                counts[model, variant, "busy"] = upstream.open_connections - idle
    return counts


def http_pool(
    model: str, variant: Variant, limits: LimitSettings, writes: BatchedWrites
) -> HttpUpstream:
    """Make the pool of a variant, with its key from the environment.

    Raises:
        ValueError: The variant has no usable address.
    """
    api_key = api_key_of(os.environ, variant.api_key_env)
    if variant.api_key_env and not api_key:
        log.warning("upstream_key_missing", extra={"variable": variant.api_key_env})
    return HttpUpstream(
        model,
        variant.url,
        api_key=api_key,
        ca_file=variant.ca_file,
        limits=PoolLimits(
            limits.connect_seconds,
            limits.upstream_connections,
            limits.upstream_connection_seconds,
        ),
        writes=writes,
    )
