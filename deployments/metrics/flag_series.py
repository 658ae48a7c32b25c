"""Series of the flags, the links, the guard's liveness and feedback.

Reading order: flag_series; the other functions stand alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.history.state import State
from penumbra.deployments.metrics.control_metrics import FeedbackKey, Series
from penumbra.deployments.rollouts.record import WATCHED, Rollout, slices_of
from penumbra.monitoring.telemetry import control, labels
from penumbra.monitoring.vocabulary import role_of
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Snapshot

_DIGITS = 16
"""Digits of a fingerprint that are exposed; the texts of rollouts show as many."""


def flag_series(state: State) -> Iterator[Series]:
    """Makes the series of the flags in force, for the configured models."""
    models = state.models.items()
    yield (
        control.FLAG_SHARE,
        {
            (name, variant, role_of(variant, model.baseline)): share
            for name, model in models
            for variant, share in shares_of(model).items()
        },
    )
    yield (
        control.QUARANTINED,
        {
            (name, slice_name): float(slice_name in model.flag.quarantined_for_any)
            for name, model in models
            for slice_name in slices_of(model)
        },
    )
    yield control.KILLED, {(name,): float(model.flag.killed) for name, model in models}
    digests = _fingerprints(state.rollouts.values())
    yield (
        control.VARIANT_INFO,
        {
            (name, variant, role_of(variant, model.baseline), digests.get((name, variant), "")): 1.0
            for name, model in models
            for variant in model.variants
        },
    )


def shares_of(model: ModelSnapshot) -> dict[str, float]:
    """Returns variant -> its share of the default split as it acts now; the sum is 1."""
    shares = {name: _share(model.flag, name) for name in model.variants}
    given = sum(share for name, share in shares.items() if name != model.baseline)
    return shares | {model.baseline: max(0.0, 1.0 - given)}


def feedback_series(state: State, counts: Mapping[FeedbackKey, int]) -> Iterator[Series]:
    """Makes the series of users' judgements.

    All possible label values begin at 0, so that the first judgement is an increase. A judgement of
    a model that is not configured any more has no role, and is not exposed.
    """
    keys = {
        (name, variant, slice_name, is_content): 0
        for name, model in state.models.items()
        for variant in model.variants
        for slice_name in slices_of(model)
        for is_content in (True, False)
    }
    content, discontent = labels.JUDGEMENT.values
    yield (
        control.FEEDBACK,
        {
            (
                name,
                variant,
                role_of(variant, state.models[name].baseline),
                slice_name,
                content if is_content else discontent,
            ): count
            for (name, variant, slice_name, is_content), count in {**keys, **counts}.items()
            if name in state.models
        },
    )


def link_series(links: Iterable[Link], epoch: int) -> Iterator[Series]:
    """Makes the series of the store's epoch and of each gateway's epoch.

    Args:
        links: Links of the connected gateways.
        epoch: The newest epoch.
    """
    links = tuple(links)
    yield control.EPOCH, {(): epoch}
    yield control.GATEWAYS, {(): len(links)}
    yield control.OUTDATED_GATEWAYS, {(): sum(link.epoch < epoch for link in links)}
    yield control.GATEWAY_EPOCH, {(name,): at for name, at in _epochs(links).items()}


def guard_series(
    liveness: GuardLiveness, snapshot: Snapshot, hosts: Iterable[str], now: float
) -> Iterator[Series]:
    """Makes the series of the age of each model's last sign of life of its guard."""
    ages = liveness.ages(snapshot, hosts, now)
    yield control.GUARD_AGE, {(name,): age for name, age in ages.items()}
    yield control.GUARD_LEASE, {(): liveness.lease_seconds}


def _share(flag: Flag, variant: str) -> float:
    is_out = flag.killed or variant in flag.blocked
    return 0.0 if is_out else flag.split.get(variant, 0.0) / 100.0


def _fingerprints(rollouts: Iterable[Rollout]) -> dict[tuple[str, str], str]:
    """Returns (model, variant) -> first digits, of the latest run; watched rollouts come first."""
    found: dict[tuple[str, str], str] = {}
    by_age = sorted(
        rollouts,
        key=lambda rollout: (rollout.record.phase in WATCHED, rollout.record.since.timestamp()),
    )
    for rollout in by_age:
        for variant, digest in rollout.record.fingerprints.items():
            found[rollout.spec.model, variant] = digest[:_DIGITS]
    return found


def _epochs(links: Iterable[Link]) -> dict[str, int]:
    """Returns gateway -> epoch in force.

    If gateways of several machines have one name, the machine is appended to it. A process that
    connected again before its broken link was noticed has two links for seconds: the older epoch
    counts.
    """
    hosts: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for link in links:
        hosts[link.hello.gateway][link.hello.host].append(link.epoch)
    return {
        name if len(by_host) == 1 else f"{name}@{host}": min(epochs)
        for name, by_host in hosts.items()
        for host, epochs in by_host.items()
    }
