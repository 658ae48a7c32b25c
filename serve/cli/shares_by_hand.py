"""Effects of a rollout that is to begin on the shares that operators gave by hand."""

from collections.abc import Iterator
from typing import Any

from penumbra.deployments.rollouts.spec import RolloutSpec
from penumbra.serve.cli.admin_client import AdminClient, AdminError, flag_path

Json = dict[str, Any]


def shares_by_hand(client: AdminClient, spec: RolloutSpec) -> list[str]:
    """Say what `rollout apply` takes away from, or does not change in, the model's flag."""
    try:
        flag = client.get(flag_path(spec.model))["flag"]
        rollouts = client.get("/rollouts")["rollouts"]
    except AdminError:
        return []  # the change itself says why
    own = next((each for each in rollouts if _is_of(each, spec)), None)
    if own is not None and own["stage"] != "off":
        return []  # its share is the running rollout's, which says so itself
    ruled = {each["candidate"] for each in rollouts if _is_running(each, spec.model)}
    return [*_effects(flag, spec), *_others(flag, spec, ruled)]


def _is_of(rollout: Json, spec: RolloutSpec) -> bool:
    return (rollout["model"], rollout["candidate"]) == (spec.model, spec.candidate)


def _is_running(rollout: Json, model: str) -> bool:
    return bool(rollout["model"] == model and rollout["stage"] != "off")


def _others(flag: Json, spec: RolloutSpec, ruled: set[str]) -> Iterator[str]:
    """Say what other candidates have, and keep.

    Args:
        flag: The model's flag.
        spec: The rollout that is to begin.
        ruled: The candidates whose share is decided by a rollout of their own.
    """
    if spec.scope is not None:
        yield f"only {spec.scope.text}: other requests are not compared, and get no share of it"
    name, split = spec.candidate, flag["split"].items()
    shares = {other: percent for other, percent in split if other != name and percent > 0}
    told = [
        f"{other} {percent:g} % by {'its rollout' if other in ruled else 'hand'}"
        for other, percent in shares.items()
    ]
    if told:
        yield f"{', '.join(told)} stays, and no stage has room for more than what that leaves"


def _effects(flag: Json, spec: RolloutSpec) -> Iterator[str]:
    name, share = spec.candidate, flag["split"].get(spec.candidate, 0)
    if share > 0:
        yield f"{name} has {share:g} % by hand: that ends now, the rollout begins in shadow"
    closed = flag.get("quarantined_for", {}).get(name)
    if closed:
        yield f"{name} is quarantined in {', '.join(closed)} by hand: the rollout decides that now"
    if name in flag["blocked"]:
        yield f"{name} is blocked: the block ends with the rollout, which begins in shadow"
    ways = [
        f"a pin of {pin['kind']} {pin['subject']}" for pin in flag["pins"] if pin["variant"] == name
    ]
    ways += [f"the rule {rule['name']}" for rule in flag["rules"] if _leads_to(rule, name)]
    if ways:
        yield f"{name} goes on getting requests by {', '.join(ways)}: no stage changes that"
    if flag["killed"]:
        yield f"{spec.model} is killed: no stage with a share begins before `penumbra flags unkill`"


def _leads_to(rule: Json, name: str) -> bool:
    return bool(rule["variant"] == name or (rule["split"] or {}).get(name, 0) > 0)
