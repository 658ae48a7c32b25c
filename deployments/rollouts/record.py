"""Record of a rollout, and the flag and the watch that follow from it. Pure.

A record changes only by an event, so it is part of the installation's state and can be replayed.
It does not hold the evidence, which is the fold of the stored reports of the record's run.

Reading order: Rollout, RolloutRecord, flag_after, watch_of.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.rollouts.findings import AGGREGATE
from penumbra.deployments.rollouts.spec import LATENCY, SHADOW, RolloutSpec
from penumbra.monitoring.observations import Signal
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Watch
from penumbra.router.flags.slices import OTHER

_STRICT = ConfigDict(extra="forbid", frozen=True)

Key = tuple[str, str]
"""(model, candidate)."""
SUSPECT_AA = 0.5
"""Least share of the A/A arm where the evidence is suspicious: half a verdict's pairs or more."""
MOST_BUILDS = 100
"""Pairs of builds whose runs are counted; those of the longest ago are forgotten first."""


class Phase(StrEnum):
    """Phase of a rollout. The values are stored."""

    OFF = "off"
    """Ended, by an operator or because the configuration no longer has the candidate."""
    SHADOW = "shadow"
    """Compared on mirrored requests; no client gets the candidate."""
    LIVE = "live"
    """At a stage with a share of the traffic."""
    PROMOTED = "promoted"
    """Through all stages; watched for drift."""
    ROLLED_BACK = "rolled_back"
    """Taken out of service until an operator re-arms it."""


SERVING = frozenset({Phase.LIVE, Phase.PROMOTED})
WATCHED = frozenset({Phase.SHADOW, Phase.LIVE, Phase.PROMOTED})


class Verdict(StrEnum):
    """Verdict on a run by its evidence."""

    PASS = "pass"  # noqa: S105 - no password
    """Within tolerance on every required slice."""
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """Undecided at the horizon. Never a pass."""
    ERROR = "error"
    """The instrument is broken, so its observations count for nothing."""


class Hold(BaseModel):
    """Hold on a rollout: it may not advance until it is resumed."""

    model_config = _STRICT

    by: Literal["operator", "guard"]
    cause: str


class Arbitration(BaseModel):
    """Comparison of the baseline with itself after a rollback by a quality signal.

    The live share is gone at once, but the verdict is not final: were the instrument at fault, the
    baseline would differ from itself in the same way.
    """

    model_config = _STRICT

    signal: str
    slices: tuple[str, ...] = ()
    """Slices that are looked at: the culprits, or the one with the most evidence; empty: all."""
    until_pairs: int = Field(ge=1)
    """Pairs of the baseline with itself, in these slices, after which the verdict is final at last.
    """

    def pairs(self, counts: Mapping[str, int]) -> int:
        """Sum the pairs of the slices that are looked at."""
        return sum(
            count for name, count in counts.items() if not self.slices or name in self.slices
        )


class RolloutRecord(BaseModel):
    """Progress of one rollout."""

    # `stage_index` is stored as `step`, its name in older stores.
    model_config = _STRICT | ConfigDict(serialize_by_alias=True, validate_by_name=True)

    phase: Phase
    stage_index: int = Field(default=0, ge=0, alias="step")
    """Index of the stage in the spec; 0 is shadow."""
    since: datetime
    """When the stage began."""
    run: str
    """Id of the run, `NAME-ROUND`; every run has evidence of its own."""
    slices: tuple[str, ...]
    """Every slice of the model, as it was when the run began."""
    cause: str
    """Cause of the last change."""
    held: Hold | None = None
    frozen: str | None = None
    """Reason why the instrument is broken and promotion frozen; None: it works."""
    verdict: Verdict | None = None
    """None: not decided yet."""
    is_passed: bool = False
    """Whether the run has had the verdict pass; unchanged while the instrument is broken."""
    proven: tuple[str, ...] = ()
    """Slices that were proven within tolerance where the baseline answered; they get live traffic.
    """
    proven_live: tuple[str, ...] = ()
    """Those of them that were proven where the candidate answered as well; empty in older stores,
    until their reports are folded again."""
    released: dict[str, tuple[str, ...]] | None = None
    """Slice -> its channels (`penumbra.router.flags.released_channels`) that were proven by
    themselves; those of proven slices get live traffic. None in older stores, whose runs release
    text by chat and completions."""
    quarantined: tuple[str, ...] = ()
    """Slices that the guard found beyond tolerance."""
    suspects: tuple[str, ...] = ()
    """Slices whose evidence called for a closer look; `AGGREGATE`: all together. The baseline is
    compared with itself more often in them."""
    answered: tuple[str, ...] = ()
    """Signals whose `hold` or `alert` was carried out in this run; `horizon` if its hold was."""
    arbitration: Arbitration | None = None
    """What is done after a rollback to make its verdict final; None: nothing."""
    outside: tuple[str, ...] | None = None
    """Slices that operators had quarantined when the rollout went live; None: it is not live."""
    fingerprints: dict[str, str] = {}
    """Variant -> digest of the build that the run compares."""
    calibration: dict[str, Any] | None = None
    """Tolerances read from the first pairs, and how."""
    earlier_runs: dict[str, int] = {}
    """Builds, by `builds_key` -> runs before this one that had enough pairs to prove a slice."""
    is_counted: bool = False
    """Whether this run has had enough pairs to prove a slice."""

    @property
    def runs_so_far(self) -> dict[str, int]:
        """`earlier_runs` of the run after this one."""
        key = builds_key(self.fingerprints)
        runs = dict(self.earlier_runs)
        if self.is_counted:
            runs[key] = runs.pop(key, 0) + 1  # the latest last
        return dict(list(runs.items())[-MOST_BUILDS:])

    @property
    def next_run(self) -> str:
        """The id of the run after this one."""
        name, _, number = self.run.rpartition("-")
        return f"{name}-{int(number) + 1}"


def builds_key(fingerprints: Mapping[str, str]) -> str:
    """Name the builds that a run compares, whatever their variants are called."""
    return "/".join(sorted(fingerprints.values()))


class Rollout(BaseModel):
    """Spec and record of one rollout."""

    model_config = _STRICT

    # Stored as JSON, where a tuple is a list: strict only where operators write it.
    spec: RolloutSpec
    record: RolloutRecord

    @property
    def key(self) -> Key:
        """(model, candidate)."""
        return self.spec.model, self.spec.candidate

    @property
    def share(self) -> float:
        """Percent of the live traffic that the stage gives to the candidate."""
        is_serving = self.record.phase in SERVING
        return self.spec.shares[self.record.stage_index] if is_serving else 0.0

    @property
    def stage(self) -> str:
        """The stage in a word: `shadow`, `5`, `promoted`, `rolled_back`, `off`."""
        if self.record.phase is Phase.LIVE:
            return stage_name(self.spec, self.record.stage_index)
        return self.record.phase.value


def stage_name(spec: RolloutSpec, index: int) -> str:
    """Name of a stage: `shadow`, `1`, `5`, ..."""
    stage = spec.stages[index]
    return SHADOW if stage == SHADOW else f"{stage:g}"


def slices_of(model: ModelSnapshot) -> tuple[str, ...]:
    """Every slice of a model."""
    return (*(rule.name for rule in model.slices), OTHER)


def flag_after(flag: Flag, before: Rollout | None, after: Rollout) -> Flag:
    """The model's flag once the rollout has changed from `before` to `after`.

    After a rollback the candidate is blocked. Its share stays, so that answers have the reason
    GUARD, until another candidate goes live and needs the room.
    """
    candidate = after.spec.candidate
    quarantined = _quarantine_after(flag, before, after)
    if after.record.phase is Phase.ROLLED_BACK:
        blocked = join_names(flag.blocked, (candidate,))
        return flag.model_copy(update={"blocked": blocked, "quarantined": quarantined})
    split = {name: share for name, share in flag.split.items() if name != candidate}
    if after.share > 0:
        split = {name: share for name, share in split.items() if name not in flag.blocked}
        split[candidate] = after.share
    update = {
        "split": split,
        "blocked": tuple(name for name in flag.blocked if name != candidate),
        "quarantined": quarantined,
    }
    return flag.model_copy(update=update)


def _quarantine_after(flag: Flag, before: Rollout | None, after: Rollout) -> tuple[str, ...]:
    record = after.record
    if record.phase in SERVING:
        proven = set(record.proven) - set(record.quarantined) - set(record.outside or ())
        return tuple(name for name in record.slices if name not in proven)
    if before is not None and before.record.phase in SERVING:
        known = set(record.slices)
        return tuple(name for name in before.record.outside or () if name in known)
    # It was not live: the quarantine is an operator's, or another rollout's.
    return flag.quarantined


def watch_of(rollout: Rollout) -> Watch | None:
    """The watch of a rollout: the observations that gateways and comparators make; None: none."""
    spec, record = rollout.spec, rollout.record
    if record.arbitration is not None:
        return _watch_of_arbitration(spec, record.run, record.arbitration)
    if record.phase not in WATCHED:
        return None
    failure = spec.guardrail(Signal.FAILURE)
    # Without a share of the alpha, gateways may not take traffic away for failures.
    fields: dict[str, float | int | None] = {"failure_alpha": None}
    if failure is not None and isinstance(failure.tolerance, float):
        fields["failure_tolerance"] = failure.tolerance
    if failure is not None and failure.share is not None:
        # The other half is the control process's own; see `guardrail_monitor.alpha_of`.
        fields["failure_alpha"] = spec.alpha * failure.share / 2 / spec.gateways
        if spec.gates.failure_requests is not None:
            fields["failure_requests"] = spec.gates.failure_requests
    for guardrail in spec.guardrails:
        if guardrail.signal in LATENCY:
            fields["latency_factor"] = guardrail.factor  # the same for both
    closer = max(SUSPECT_AA, spec.mirror.aa)
    return Watch(
        candidate=spec.candidate,
        run=record.run,
        mirror=spec.mirror.rate,
        mirror_slices=spec.mirror.slices,
        cluster=spec.mirror.cluster,
        generate=spec.mirror.generate,
        aa=closer if AGGREGATE in record.suspects else spec.mirror.aa,
        aa_slices={name: closer for name in record.suspects if name in record.slices},
        in_flight=spec.on_rollback,
        released=_released(record),
        **fields,
    )


def _released(record: RolloutRecord) -> dict[str, tuple[str, ...]] | None:
    """The channels that may go to the candidate; None where the candidate has no live share.

    There an older gateway, which does not know the field, still takes the table.
    """
    if record.phase not in SERVING or record.released is None:
        return None
    return {name: record.released.get(name, ()) for name in record.proven}


def _watch_of_arbitration(spec: RolloutSpec, run: str, arbitration: Arbitration) -> Watch:
    """The watch after a rollback: the slices in question, always with the A/A arm."""
    mirror = spec.mirror
    slices = {name: mirror.slices.get(name, mirror.rate) for name in arbitration.slices}
    return Watch(
        candidate=spec.candidate,
        run=run,
        mirror=0.0 if slices else mirror.rate,
        mirror_slices=slices or mirror.slices,
        cluster=mirror.cluster,
        generate=1.0,
        aa=1.0,
        failure_alpha=None,
        in_flight=spec.on_rollback,
    )


def watches_of(model: ModelSnapshot, rollouts: Iterable[Rollout]) -> tuple[Watch, ...]:
    """All watches of a model, only for candidates that it has."""
    watches = (
        watch_of(rollout) for rollout in rollouts if rollout.spec.candidate in model.variants
    )
    return tuple(watch for watch in watches if watch is not None)


def join_names(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Join two sequences in order, each name once."""
    return tuple(dict.fromkeys((*names, *others)))
