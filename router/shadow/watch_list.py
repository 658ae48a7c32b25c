"""Watch list: the models, builds and runs of the routing table that are compared now."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from penumbra.monitoring.observations import Run
from penumbra.router.flags.bucketing import TOTAL, position, salt
from penumbra.router.flags.routing_table import ModelSnapshot, Snapshot, Variant, Watch
from penumbra.router.mirror.frame import MirrorFrame
from penumbra.router.mirror.selection import falls_in, is_answered_again
from penumbra.router.mirror.shed_reason import ShedReason
from penumbra.router.secret_values import api_key_of
from penumbra.router.shadow.recent_keys import RecentKeys
from penumbra.router.shadow.turn_choice import TurnChoice
from penumbra.router.upstream.http import HttpUpstream
from penumbra.router.upstream.port import Upstream

Connect = Callable[[str, Variant, str | None], Upstream]
"""(model, variant, API key) -> the upstream."""


class WatchedRun:
    """One run, and the conversations and sessions that were compared in it.

    Args:
        run: Its name in reports.
        watch: The watch that says what is observed.
        since_epoch: Epoch of the first routing table in which it was seen: a request that an older
            one decided belongs to an earlier run.
        bets: Conversations, and sessions, that it remembers.
    """

    def __init__(self, run: Run, watch: Watch, since_epoch: int, bets: int) -> None:
        self.run = run
        self.watch = watch
        self.since_epoch = since_epoch
        self._prompts = RecentKeys(bets)
        self._sessions = RecentKeys(bets)
        self._turns = TurnChoice()

    def chooses(self, mirrored: MirrorFrame) -> bool:
        """Whether this turn of its conversation may be compared; called once for each request."""
        key = mirrored.session or mirrored.cluster(self.watch.cluster)
        draw = position(salt(f"{self.run.id}:turn"), mirrored.draw_id) / TOTAL
        return self._turns.chooses(key, draw)

    def repeats(self, mirrored: MirrorFrame) -> ShedReason | None:
        """Return why the request repeats an earlier one; None if its conversation is new."""
        if mirrored.cluster(self.watch.cluster) in self._prompts:
            return ShedReason.REPEATED_PROMPT
        if mirrored.session and mirrored.session in self._sessions:
            return ShedReason.REPEATED_SESSION
        return None

    def note(self, mirrored: MirrorFrame) -> None:
        """Remember the conversation and the session of a request that is compared."""
        self._prompts.add(mirrored.cluster(self.watch.cluster))
        if mirrored.session:
            self._sessions.add(mirrored.session)

    def generates(self, draw_id: str) -> bool:
        """Whether the other arm answers this request too: fixed by its id."""
        return is_answered_again(self.run.id, draw_id, self.watch.generate)

    def runs_aa(self, mirrored: MirrorFrame) -> bool:
        """Whether the baseline is compared with itself on this request: fixed by its id."""
        share = max(self.watch.aa, self.watch.aa_slices.get(mirrored.slice, 0.0))
        return falls_in(f"{self.run.id}:aa", mirrored.draw_id, share)


@dataclass(frozen=True, slots=True)
class WatchedModel:
    """One model with at least one rollout."""

    name: str
    baseline: str
    upstreams: dict[str, Upstream]
    """Upstreams of the baseline and of every watched candidate."""
    runs: dict[str, WatchedRun]
    """Candidate -> its run."""

    def candidates(self) -> dict[str, Upstream]:
        """Return the upstreams of the watched candidates."""
        return {name: self.upstreams[name] for name in self.runs}


class WatchList:
    """All watched models, kept up to date from the routing tables.

    Args:
        connect: Makes an upstream, which is used for as long as its address stays.
        bets: Prompts, and sessions, that each run remembers.
    """

    def __init__(self, connect: Connect, bets: int) -> None:
        self._connect = connect
        self._bets = bets
        self._upstreams: dict[tuple[str, Variant], Upstream] = {}
        self.models: dict[str, WatchedModel] = {}
        self.epoch = 0
        """Epoch of the routing table in force; 0 before the first."""
        self.has_changed = asyncio.Event()
        """Set when a routing table comes into force. A reader clears it before it waits."""

    @property
    def runs(self) -> list[WatchedRun]:
        """All watched runs."""
        return [run for model in self.models.values() for run in model.runs.values()]

    def apply(self, snapshot: Snapshot) -> None:
        """Watch the runs of this routing table, and close upstreams that are no longer used."""
        upstreams: dict[tuple[str, Variant], Upstream] = {}
        models = {
            name: self._model(name, model, snapshot.epoch, upstreams)
            for name, model in snapshot.models.items()
            if model.watches
        }
        retired = [up for key, up in self._upstreams.items() if key not in upstreams]
        self.models, self._upstreams, self.epoch = models, upstreams, snapshot.epoch
        for upstream in retired:
            _close(upstream)
        self.has_changed.set()

    def close(self) -> None:
        """Close idle connections now, and busy ones when their answer ends."""
        for upstream in self._upstreams.values():
            _close(upstream)

    def _model(
        self,
        name: str,
        model: ModelSnapshot,
        epoch: int,
        upstreams: dict[tuple[str, Variant], Upstream],
    ) -> WatchedModel:
        runs = {watch.candidate: self._run(name, watch, epoch) for watch in model.watches}
        own = {}
        for variant_name in (model.baseline, *runs):
            variant = model.variants[variant_name]
            key = (name, variant)
            upstream = self._upstreams.get(key) or upstreams.get(key)
            if upstream is None:
                secret = api_key_of(os.environ, variant.api_key_env)
                upstream = self._connect(name, variant, secret)
            own[variant_name] = upstreams[key] = upstream
        return WatchedModel(name, model.baseline, own, runs)

    def _run(self, model: str, watch: Watch, epoch: int) -> WatchedRun:
        known = self.models.get(model)
        old = known.runs.get(watch.candidate) if known else None
        if old is not None and old.run.id == watch.run:
            if old.watch.aa < watch.aa == 1.0:  # what was compared before was not compared so
                return WatchedRun(old.run, watch, old.since_epoch, self._bets)
            old.watch = watch
            return old
        return WatchedRun(Run(model, watch.candidate, watch.run), watch, epoch, self._bets)


def _close(upstream: Upstream) -> None:
    if isinstance(upstream, HttpUpstream):
        upstream.close()
