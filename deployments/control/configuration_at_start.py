"""The configuration file at a start of the control process: a proposal, or what is in force.

The store holds the configuration in force. The file fills a store that has none, and otherwise is
compared only: a restart with an old file takes back nothing that was applied meanwhile. Where the
variants of this machine answer is a local matter, and follows the file at every start.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from penumbra.deployments.actors import CONFIGURATION
from penumbra.deployments.config.hosted_here import HostedHere
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.control.controller import Controller
from penumbra.deployments.errors import FlagRefused, StoredFlagInvalid
from penumbra.deployments.history.config_effects import apply_config, flags_after
from penumbra.deployments.history.config_plan import Action, plan_of
from penumbra.deployments.history.events import ConfigPayload
from penumbra.deployments.history.set_aside import EVERY_MODEL
from penumbra.deployments.history.split_places import keep_places
from penumbra.deployments.history.state import State
from penumbra.router.flags.routing_table import Flag
from penumbra.router.flags.validate import flag_problems

log = logging.getLogger(__name__)

_READDRESSED = "variants that are hosted here answer at another address"
_SHOWN_STEPS = 20


@dataclass(frozen=True, slots=True)
class FileAtStart:
    """The configuration file that a control process starts with."""

    name: str
    is_adopted: bool = False
    """Whether it takes the place of the configuration in force at each start."""
    read: Callable[[], tuple[PenumbraSpec, ConfigPayload]] | None = None
    """Reads it again; may raise `DeploymentsError`. None: it is not read again."""


async def configure_at_start(
    controller: Controller, payload: ConfigPayload, hosted: HostedHere, file: FileAtStart
) -> None:
    """Put a configuration into force at a start: the one in the store, else the file's.

    Args:
        controller: It leads, and has read the store.
        payload: The file's models, keys and engines, with the address of every variant.
        hosted: The variants that are hosted beside this process.
        file: The file.

    Raises:
        StoredFlagInvalid: A stored flag does not fit the configuration; tells what to do.
        StoreUnavailable: The store failed; nothing was changed.
    """
    state = controller.state
    is_lost = EVERY_MODEL in state.aside
    if is_lost and state.keys is not None and not file.is_adopted:
        # What cannot be read may have been a revocation; the file may be older than that.
        payload = payload.model_copy(update={"keys": state.keys})
    if file.is_adopted or not state.configured or is_lost:
        require_fitting_flags(flags_after(state, payload, datetime.now(UTC)), payload, file.name)
        await controller.configure(payload, CONFIGURATION)
        return
    in_force = ConfigPayload(models=dict(state.models))
    require_fitting_flags(state.flags, in_force, file.name)
    await controller.configure(_readdressed(state, hosted), CONFIGURATION, _READDRESSED)
    known = replace(controller.state, engines=hosted.in_force(controller.state.engines))
    tell_difference(known, payload, file)


def require_fitting(state: State, name: str, flag: Flag) -> None:
    """Check that a flag fits a model in force, if there is one of that name.

    Raises:
        FlagRefused: It does not; tells why, and what to do.
    """
    model = state.models.get(name)
    problems = [*flag_problems(model, flag)] if model is not None else []
    if problems:
        raise FlagRefused(
            f"the flag in the file does not fit what is in force of {name}: {'; '.join(problems)}."
            " Give --adopt too if the next start has it, and so puts the file into force",
            param="flag",
        )


def require_fitting_flags(
    stored: Mapping[str, Flag], payload: ConfigPayload, config_file: str
) -> None:
    """Check that the stored flags fit a configuration.

    Raises:
        StoredFlagInvalid: One does not; names its problems, and the command that solves them.
    """
    for name, model in payload.models.items():
        flag = stored.get(name)
        problems = list(flag_problems(model, flag)) if flag else []
        if problems:
            raise StoredFlagInvalid(
                f"the stored flag of {name} does not fit {config_file} any more:\n"
                + "".join(f"  {problem}\n" for problem in problems)
                + f"Put back what it refers to, or give {name} the flag in the file:\n"
                f"  python -m penumbra.deployments --config {config_file} --reset-flag {name}"
                ' --reason "WHY"\n'
                "and start again (with --adopt, if the file is to be in force, here and there)."
            )


def _readdressed(state: State, hosted: HostedHere) -> ConfigPayload:
    """The configuration in force, its variants that are hosted here at their present addresses."""
    models = {}
    addresses = hosted.addresses(state.engines)
    for name, model in state.models.items():
        variants = dict(model.variants)
        for variant, url in addresses.get(name, {}).items():
            found = variants.get(variant)
            if found is not None and _is_same_route(found.url, url):
                variants[variant] = found.model_copy(update={"url": url})
        models[name] = model.model_copy(update={"variants": variants})
    return ConfigPayload(models=models)


def _is_same_route(url: str, other: str) -> bool:
    """Whether two addresses differ in their port at most: `ray.port` is a machine's own."""
    one, two = urlsplit(url), urlsplit(other)
    return (one.scheme, one.hostname, one.path) == (two.scheme, two.hostname, two.path)


def tell_difference(state: State, payload: ConfigPayload, file: FileAtStart) -> bool:
    """Log how a file differs from what is in force; returns whether it does.

    Args:
        state: The state, with the engines in force.
        payload: The file's configuration.
        file: The file.
    """
    payload = keep_places(payload, state.places)
    now = datetime.now(UTC)
    drafts = apply_config(state, payload, CONFIGURATION, now)
    steps = [
        f"{step.action.value} {step.text}"
        for step in plan_of(state, payload, drafts, now).steps
        if step.action not in (Action.NOTE, Action.EFFECT)
    ]
    if steps:
        log.warning(
            "configuration_differs",
            extra={
                "file": file.name,
                "steps": steps[:_SHOWN_STEPS],
                "command": f"penumbra apply -f {file.name}",
            },
        )
    return bool(steps)
