"""Events of a store that has lost others: what it forgot to take away is taken away again. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from penumbra.deployments.actors import RECOVERY
from penumbra.deployments.errors import Conflict
from penumbra.deployments.history import access_edits, graduation
from penumbra.deployments.history.config_effects import draft_of, graduates
from penumbra.deployments.history.events import ConfigPayload, Draft, FlagPayload, Kind
from penumbra.deployments.history.state import State, apply_drafts
from penumbra.deployments.rollouts.record import WATCHED, Rollout, join_names, slices_of
from penumbra.deployments.rollouts.transitions import (
    DecisionStep,
    StepKind,
    replace_fields,
    roll_back,
)
from penumbra.router.flags.routing_table import Flag, ModelSnapshot
from penumbra.router.link.table_identity import Restriction


@dataclass(frozen=True, slots=True)
class Known:
    """The newest state of a store that a process has seen, and what its flags took away."""

    generation: int
    epoch: int
    digest: str
    """Of the event that made the epoch; empty if only the epoch is known."""
    restrictions: Mapping[str, Restriction] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    """Digests of tokens of identities that had been revoked."""


def draft_recovery(state: State, known: Known, reason: str, now: datetime) -> list[Draft]:
    """Draft what the state lacks of what was taken away; none of it is taken back.

    A candidate that a rollout had lost is rolled back, and stays so until it is re-armed. The last
    event of each model is of the kind `recover`. An identity of which a token had been revoked is
    revoked.
    """
    drafts = [*_revocations(state, known.revoked, reason)]
    state = apply_drafts(state, drafts, now)
    for name, restriction in known.restrictions.items():
        if name not in state.models:
            continue
        more = _drafts_of(state, name, restriction, reason, now)
        state = apply_drafts(state, more, now)
        drafts += more
    return drafts


def draft_notice(state: State, reason: str) -> Draft:
    """Draft the event that tells that a store went back, and changes nothing."""
    payload = ConfigPayload(models=dict(state.models))
    return Draft(kind=Kind.CONFIG, actor=RECOVERY, reason=reason, model=None, payload=payload)


def _revocations(state: State, revoked: frozenset[str], reason: str) -> Iterator[Draft]:
    for name, identity in state.identities.by_name.items():
        if any(token.sha256 in revoked for token in identity.tokens):
            payload = access_edits.revoke(state.identities, name)
            yield access_edits.draft_of(payload, RECOVERY, reason)


def _drafts_of(
    state: State, name: str, restriction: Restriction, reason: str, now: datetime
) -> list[Draft]:
    taken = _taken_back(state, name, restriction, reason, now)
    state = apply_drafts(state, taken, now)
    model, flag = state.models[name], state.flags[name]
    blocked = [
        candidate
        for candidate in restriction.blocked
        if candidate in model.variants and candidate not in (*flag.blocked, model.baseline)
    ]
    known = slices_of(model)
    quarantined = [
        slice_name
        for slice_name in restriction.of_all
        if slice_name in known and slice_name not in flag.quarantined
    ]
    closed = _forgotten_closed(model, flag, restriction)
    is_killed = flag.killed or not restriction.killed
    if not blocked and not quarantined and not closed and is_killed:
        return taken
    drafts = taken
    for key, rollout in state.rollouts.items():
        own = [*quarantined, *closed.get(rollout.spec.candidate, ())]
        changed = _rollout_after(rollout, blocked, own, reason, now)
        if key[0] == name and changed is not None:
            draft = draft_of(state, changed, RECOVERY, reason)
            state = apply_drafts(state, [draft], now)
            drafts.append(draft)
    before = state.flags[name]
    update = {
        "killed": before.killed or restriction.killed,
        "blocked": join_names(before.blocked, blocked),
        "quarantined": join_names(before.quarantined, quarantined),
        "quarantined_for": {**before.quarantined_for, **_joined(before.quarantined_for, closed)},
    }
    payload = FlagPayload(before=before, after=before.model_copy(update=update))
    drafts.append(
        Draft(kind=Kind.RECOVER, actor=RECOVERY, reason=reason, model=name, payload=payload)
    )
    return drafts


def _taken_back(
    state: State, name: str, restriction: Restriction, reason: str, now: datetime
) -> list[Draft]:
    """Take baselines back that had graduated, and were rolled back in what the store forgot."""
    drafts: list[Draft] = []
    order = graduation.Order(RECOVERY, reason, now)
    for candidate in graduates(state, name, state.models[name].baseline):
        if candidate not in restriction.blocked:
            break
        try:
            found = graduation.take_back(state, state.rollouts[name, candidate], order)
        except Conflict:
            break  # its old baseline is gone or starting: an operator is told of the store
        state = apply_drafts(state, found, now)
        drafts += found
    return drafts


def _forgotten_closed(
    model: ModelSnapshot, flag: Flag, restriction: Restriction
) -> dict[str, list[str]]:
    """Candidate -> slices in which it may not answer, and the store forgot it."""
    known = slices_of(model)
    found = {
        candidate: [
            name for name in names if name in known and name not in flag.closed_to(candidate)
        ]
        for candidate, names in restriction.quarantined_for.items()
        if candidate in model.variants
    }
    return {candidate: names for candidate, names in found.items() if names}


def _joined(
    own: Mapping[str, tuple[str, ...]], closed: Mapping[str, list[str]]
) -> dict[str, tuple[str, ...]]:
    return {name: join_names(own.get(name, ()), names) for name, names in closed.items()}


def _rollout_after(
    rollout: Rollout, blocked: list[str], quarantined: list[str], reason: str, now: datetime
) -> Rollout | None:
    record = rollout.record
    if record.phase not in WATCHED:
        return None
    if rollout.spec.candidate in blocked:
        record, _ = roll_back(record, now, DecisionStep(StepKind.ROLLBACK, reason))
    elif quarantined:
        record = replace_fields(
            record, quarantined=join_names(record.quarantined, quarantined), cause=reason
        )
    else:
        return None
    return rollout.model_copy(update={"record": record})
