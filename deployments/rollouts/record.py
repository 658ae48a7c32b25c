"""Record of a rollout. Pure.

A record changes only by an event, so it is part of the installation's state and can be replayed.
It does not hold the evidence, which is the fold of the stored reports of the record's run.

Reading order: Rollout, RolloutRecord; the flag and the watches that follow are in flag_effects.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from penumbra.deployments.rollouts.spec import SHADOW, RolloutSpec
from penumbra.router.flags.routing_table import ModelSnapshot
from penumbra.router.flags.slices import OTHER

_STRICT = ConfigDict(extra="forbid", frozen=True)

Key = tuple[str, str]
"""(model, candidate)."""
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


class Graduation(BaseModel):
    """Facts of a candidate that has become the baseline."""

    model_config = _STRICT

    baseline: str
    """The baseline before, to which a rollback goes back."""
    kept_until: datetime
    """Until when that is to stay in the configuration."""


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
    stage_epoch: int = Field(default=0, ge=0)
    """Epoch at which a stage with a share began: answers of the candidate that were decided by an
    older one are no evidence of it. 0 in shadow, and in older stores."""
    stage_from_seconds: float = Field(default=0.0, ge=0)
    """Seconds of evidence (`findings.Flow`) of pairs of no known epoch that the run had then."""
    stage_from_pairs: int = Field(default=0, ge=0)
    """Pairs that it had then, likewise."""
    frozen: str | None = None
    """Reason why the instrument is broken and promotion frozen; None: it works."""
    frozen_at: datetime | None = None
    """Since when, while it is; None in older stores."""
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
    """Signals whose `hold` or `alert` was carried out in this run; `horizon` if its hold was, and
    `builds` if that of builds that go on changing was."""
    arbitration: Arbitration | None = None
    """What is done after a rollback to make its verdict final; None: nothing."""
    outside: tuple[str, ...] | None = None
    """Of an older release, while the rollout is live: the slices that operators had quarantined
    when it went live, and `Flag.quarantined` is the rollout's. None: it is not. The next change of
    the rollout makes its quarantine that of its candidate alone."""
    fingerprints: dict[str, str] = {}
    """Variant -> digest of the build that the run compares."""
    calibration: dict[str, Any] | None = None
    """Tolerances read from the first pairs, and how."""
    earlier_runs: dict[str, int] = {}
    """Builds, by `builds_key` -> runs before this one that had enough pairs to prove a slice, and
    the revalidations in them."""
    is_condemned: bool = False
    """Whether the rollout ended after a rollback: the build stays blocked until it is armed again
    or applied anew."""
    is_counted: bool = False
    """Whether this run has had enough pairs to prove a slice."""
    stale: dict[str, str] = {}
    """Proven slices, and `AGGREGATE`, whose workload has left what they were proven on -> how.
    They keep their traffic, and count as not proven until they are proven anew."""
    revalidations: int = Field(default=0, ge=0)
    """How often proofs were begun anew for that in this run; each counts as a run."""
    graduated: Graduation | None = None
    """Set while the candidate is the model's baseline because of this rollout."""
    rebuilds: int = Field(default=0, ge=0)
    """Restarts in quick succession because a build had changed, this run's included."""

    @property
    def runs_so_far(self) -> dict[str, int]:
        """`earlier_runs` of the run after this one."""
        key = builds_key(self.fingerprints)
        runs = dict(self.earlier_runs)
        if self.is_counted:
            runs[key] = runs.pop(key, 0) + 1 + self.revalidations  # the latest last
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
        """The stage in a word: `shadow`, `5`, `promoted`, `graduated`, `rolled_back`, `off`."""
        if self.record.phase is Phase.LIVE:
            return stage_name(self.spec, self.record.stage_index)
        if self.record.graduated is not None:
            return "graduated"
        return self.record.phase.value


def open_runs(rollouts: Iterable[Rollout]) -> list[str]:
    """The runs of the rollouts that have not ended."""
    return [each.record.run for each in rollouts if each.record.phase is not Phase.OFF]


def stage_name(spec: RolloutSpec, index: int) -> str:
    """Name of a stage: `shadow`, `1`, `5`, ..."""
    stage = spec.stages[index]
    return SHADOW if stage == SHADOW else f"{stage:g}"


def slices_of(model: ModelSnapshot) -> tuple[str, ...]:
    """Every slice of a model."""
    return (*(rule.name for rule in model.slices), OTHER)


def join_names(names: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Join two sequences in order, each name once."""
    return tuple(dict.fromkeys((*names, *others)))
