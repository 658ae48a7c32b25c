"""Selection of the requests to mirror, and the hashes by which they are identified. Pure.

The decision is a hash of the run and of the gateway's own id of the request: the same in every
process, made before anything of the answer is known, and independent of the variant that answers. A
client cannot choose it: one that sends the same `x-request-id` with each request would be mirrored
always or never. Another run chooses other requests.

Reading order: compile_mirror, MirrorSelection.chosen, comparable.
"""

from collections.abc import Collection, Iterable

import mmh3

from penumbra.monitoring.observations import Run
from penumbra.router.flags.bucketing import TOTAL, position, salt
from penumbra.router.flags.routing_table import ModelSnapshot, Watch

_RANGE = 2**64


class _WatchSelection:
    """The selection by one watch."""

    __slots__ = ("_baseline", "_generate", "_limit", "_slice_limits", "_stem", "run")

    def __init__(self, model: str, baseline: str, watch: Watch) -> None:
        self.run = Run(model, watch.candidate, watch.run)
        self._baseline = baseline
        self._generate = watch.generate
        self._limit = _limit(watch.mirror)
        self._slice_limits = {name: _limit(share) for name, share in watch.mirror_slices.items()}
        self._stem = b"mirror\0" + watch.run.encode() + b"\0"

    def selects(self, own_id: bytes, slice_name: str, variant: str) -> bool:
        """Whether the watch mirrors a request that `variant` is to answer."""
        if variant not in (self._baseline, self.run.candidate):
            return False  # the pair would compare two candidates, which no guardrail asks for
        limit = self._slice_limits.get(slice_name, self._limit)
        return limit > 0 and hash64(self._stem + own_id) < limit

    def is_answered_again(self, own_id: str) -> bool:
        """Whether the other arm answers the request as well."""
        return is_answered_again(self.run.id, own_id, self._generate)


class MirrorSelection:
    """The selection by all watches of one model."""

    __slots__ = ("_watches", "baseline")

    def __init__(self, name: str, model: ModelSnapshot) -> None:
        self.baseline = model.baseline
        self._watches = [_WatchSelection(name, model.baseline, watch) for watch in model.watches]

    def chosen(
        self, own_id: bytes, slice_name: str, variant: str, outside: Collection[str] = ()
    ) -> tuple[Run, ...]:
        """Return the runs that a request is mirrored for; empty if it is not mirrored.

        Args:
            own_id: The gateway's own id of the request.
            slice_name: Its slice.
            variant: The variant that was decided to answer it.
            outside: The candidates whose scope it is not in.
        """
        return tuple(
            watch.run
            for watch in self._watches
            if watch.run.candidate not in outside and watch.selects(own_id, slice_name, variant)
        )

    def wants_decode(self, runs: tuple[Run, ...], own_id: bytes) -> bool:
        """Whether the decoding of a request's answer is to be read.

        It is held against that of another answer, so only requests that are answered again have it
        read.

        Args:
            runs: The runs that it is mirrored for.
            own_id: The gateway's own id of it.
        """
        draw_id = own_id.decode("latin-1")
        return any(
            watch.run in runs and watch.is_answered_again(draw_id) for watch in self._watches
        )


def compile_mirror(name: str, model: ModelSnapshot) -> MirrorSelection | None:
    """Make the selection for a model's requests; None if none of them is mirrored."""
    watches = model.watches
    if not any(watch.mirror > 0 or any(watch.mirror_slices.values()) for watch in watches):
        return None
    return MirrorSelection(name, model)


def comparable(runs: Iterable[Run], baseline: str, answered_by: str) -> tuple[Run, ...]:
    """Return the runs for which an answer of this variant is one of the two arms."""
    return tuple(run for run in runs if answered_by in (baseline, run.candidate))


def is_answered_again(run_id: str, draw_id: str, share: float) -> bool:
    """Whether the other arm answers this request too: fixed by its id, the same in every process.

    Args:
        run_id: Id of the run.
        draw_id: The id by which the request is drawn.
        share: Share of the mirrored requests that are answered again.
    """
    return falls_in(f"{run_id}:generate", draw_id, share)


def falls_in(name: str, draw_id: str, share: float) -> bool:
    """Whether a request is among a share of the requests, drawn under a name."""
    return position(salt(name), draw_id) < share * TOTAL


def hash64(data: bytes) -> int:
    """Hash data to 64 bits, the same in every process and on every machine."""
    value: int = mmh3.hash64(data, signed=False)[0]
    return value


def session_hash(tenant: str, session: bytes | None) -> int:
    """Hash a session to 64 bits; 0 if there is none, and only then.

    The tenant is part of it, because two tenants may use one id for two sessions.
    """
    return (hash64(tenant.encode() + b"\0" + session) or 1) if session else 0


def _limit(share: float) -> int:
    return round(share * _RANGE)
