"""Which requests are mirrored, for whom, and as what they are known. Pure.

The decision is a hash of the request id and the run: the same in every process, made before
anything of the answer is known, and independent of who gets which variant. Another run chooses
other requests.

Reading order: MirrorSelection.chosen, Mirroring, compile_mirror.
"""

from collections.abc import Iterable

import mmh3

from penumbra.monitoring.observations import Run
from penumbra.router.flags.routing_table import ModelSnapshot, Watch

_RANGE = 2**64


class _Chooser:
    """One watch, ready to be asked."""

    __slots__ = ("_baseline", "_limit", "_slice_limits", "_stem", "run")

    def __init__(self, model: str, baseline: str, watch: Watch) -> None:
        self.run = Run(model, watch.candidate, watch.run)
        self._baseline = baseline
        self._limit = _limit(watch.mirror)
        self._slice_limits = {name: _limit(share) for name, share in watch.mirror_slices.items()}
        self._stem = b"mirror\0" + watch.run.encode() + b"\0"

    def wants(self, request_id: bytes, slice_name: str, variant: str) -> bool:
        """Whether the watch mirrors a request that `variant` is to answer."""
        if variant not in (self._baseline, self.run.candidate):
            return False  # the pair would compare two candidates, which no guardrail asks for
        limit = self._slice_limits.get(slice_name, self._limit)
        return limit > 0 and hash64(self._stem + request_id) < limit


class MirrorSelection:
    """The watches of one model that mirror anything, ready to be asked."""

    __slots__ = ("_choosers", "baseline")

    def __init__(self, name: str, model: ModelSnapshot) -> None:
        self.baseline = model.baseline
        self._choosers = [_Chooser(name, model.baseline, watch) for watch in model.watches]

    def chosen(self, request_id: bytes, slice_name: str, variant: str) -> tuple[Run, ...]:
        """The runs that a request is mirrored for; none: it is not.

        Args:
            request_id: The request's id as it is on the wire.
            slice_name: Its slice.
            variant: Who was decided to answer it.
        """
        return tuple(
            chooser.run
            for chooser in self._choosers
            if chooser.wants(request_id, slice_name, variant)
        )


def compile_mirror(name: str, model: ModelSnapshot) -> MirrorSelection | None:
    """What decides for a model's requests; None if none of them is mirrored."""
    watches = model.watches
    if not any(watch.mirror > 0 or any(watch.mirror_slices.values()) for watch in watches):
        return None
    return MirrorSelection(name, model)


def comparable(runs: Iterable[Run], baseline: str, answered_by: str) -> tuple[Run, ...]:
    """The runs for which an answer of this variant is one of the two arms."""
    return tuple(run for run in runs if answered_by in (baseline, run.candidate))


def hash64(data: bytes) -> int:
    """64 bits, the same in every process and on every machine."""
    value: int = mmh3.hash64(data, signed=False)[0]
    return value


def session_hash(tenant: str, session: bytes | None) -> int:
    """What a session is known as; never 0, which stands for none.

    Two tenants may use one id for two sessions.
    """
    return (hash64(tenant.encode() + b"\0" + session) or 1) if session else 0


def _limit(share: float) -> int:
    return round(share * _RANGE)
