"""Problems that stand in the way of a configuration, found before anything is started.

Reading order: find_all.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from penumbra.deployments.api.issuer import package_problem
from penumbra.deployments.api.serving import tls_of
from penumbra.deployments.config.loader import build_model, load
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.config.store_url import with_store_url
from penumbra.deployments.errors import ConfigInvalid, DeploymentsError
from penumbra.deployments.history.config_effects import apply_config
from penumbra.deployments.history.events import ConfigPayload, Event
from penumbra.deployments.history.state import EMPTY, State, fold
from penumbra.deployments.history.table_size import size_problem
from penumbra.deployments.rollouts.record import Phase
from penumbra.deployments.store.look import driver_problem, look_at
from penumbra.router.bounds import TABLE_BYTES
from penumbra.router.flags.validate import flag_problems
from penumbra.router.link.link_tls import context_of
from penumbra.router.secret_values import SecretUnreadable, secret_of
from penumbra.serve.errors import ServeError
from penumbra.serve.supervisor.folder import CONTROL_SECRETS, StateFolder
from penumbra.serve.supervisor.preflight import machine_problems, port_problems
from penumbra.serve.supervisor.state import read_running

_HOSTED = "http://127.0.0.1"
"""Stands for the address of a variant that is not up yet."""


@dataclass(frozen=True)
class Findings:
    """Result of a check: problems keep a start or serving from success, notes do not."""

    problems: tuple[str, ...]
    """Each says where, what was found and what is wanted."""
    notes: tuple[str, ...] = ()


def find_all(file: Path, environment: Mapping[str, str]) -> Findings:
    """Find all problems of a configuration on this machine; starts and changes nothing.

    Args:
        file: The configuration.
        environment: The environment's variables.
    """
    try:
        spec = with_store_url(load(file), environment)
    except ConfigInvalid as error:
        return Findings(tuple(f"{error.file}: {problem}" for problem in error.problems))
    problems = [*machine_problems(spec), *_package_problems(spec), *_certificate_problems(spec)]
    problems += [*_secret_problems(spec, environment)]
    notes = []
    if _is_running(spec):
        notes.append(f"it runs already, in {spec.state_dir}: its ports were not looked at")
    else:
        problems += port_problems(spec)
    state, store_problems = _look_at_store(spec)
    problems += store_problems
    if state is not None:
        found = _effects(spec, state)
        problems += found.problems
        notes += found.notes
    return Findings(tuple(problems), tuple(notes))


def _package_problems(spec: PenumbraSpec) -> Iterator[str]:
    if spec.needs_ray and find_spec("vllm") is None:
        yield "models: found variants with an `engine`, wanted the package vllm installed"
    problem = driver_problem(spec.store_url)
    if problem is not None:
        yield f"control.store: {problem}"
    problem = package_problem() if spec.control.oidc is not None else None
    if problem is not None:
        yield f"control.oidc: {problem}"


def _certificate_problems(spec: PenumbraSpec) -> Iterator[str]:
    try:
        tls_of(spec.control.tls)
    except OSError as error:
        yield str(error)
    try:
        context_of(spec.control.client_tls)
    except ValueError as error:
        yield f"control: {error}"


def _secret_problems(spec: PenumbraSpec, environment: Mapping[str, str]) -> Iterator[str]:
    variants = [each for model in spec.models.values() for each in model.variants.values()]
    keys = dict.fromkeys(each.api_key_env for each in variants if each.api_key_env)
    for name in (*sorted(CONTROL_SECRETS), *keys):
        try:
            is_given = bool(secret_of(environment, name))
        except SecretUnreadable as error:
            yield str(error)
            continue
        if name in keys and not is_given:
            yield (
                f"api_key_env: found no variable {name} in the environment, wanted the server's"
                " API key in it"
            )


def _is_running(spec: PenumbraSpec) -> bool:
    try:
        read_running(StateFolder(spec.state_dir).state)
    except ServeError:
        return False
    return True


def _look_at_store(spec: PenumbraSpec) -> tuple[State | None, list[str]]:
    """The stored state (empty where there is none yet), and what is wrong with the store."""
    if driver_problem(spec.store_url) is not None:
        return None, []
    url = sa.make_url(spec.store_url)
    is_file = url.get_backend_name() == "sqlite"
    if is_file and not Path(str(url.database)).exists():
        return EMPTY, list(_folder_problems(Path(str(url.database)).parent))
    try:
        return look_at(spec.store_url) or EMPTY, []
    except DeploymentsError as error:
        where = f"{url.database}" if is_file else f"{url.host or url.get_backend_name()}"
        return None, [f"control.store ({where}): {error.message}"]


def _folder_problems(folder: Path) -> Iterator[str]:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield f"state_dir: found {there}, wanted a folder that this user may write to"


def _effects(spec: PenumbraSpec, state: State) -> Findings:
    """Problems of what is stored with a configuration, and what becomes of its rollouts."""
    models = {
        name: build_model(name, model, model.flag, lambda _model, variant: f"{_HOSTED}/{variant}")
        for name, model in spec.models.items()
    }
    now = datetime.now(UTC)
    drafts = apply_config(state, ConfigPayload(models=models), "check", now)
    events = [Event.of(draft, state.epoch + n, now) for n, draft in enumerate(drafts, start=1)]
    after = fold(events, state)
    problems = [
        f"the stored flag of {name}: {problem}"
        for name, model in models.items()
        for problem in flag_problems(model, after.flags[name])
    ]
    too_large = size_problem(state, after, TABLE_BYTES)
    if too_large is not None:
        problems.append(f"models: {too_large}")
    notes = [
        f"the rollout of {candidate} ({model}, {before.stage}) ends, or begins anew:"
        f" {after.rollouts[model, candidate].record.cause}"
        for (model, candidate), before in state.rollouts.items()
        if before.record.phase is not Phase.OFF and after.rollouts[model, candidate] != before
    ]
    return Findings(tuple(problems), tuple(notes))
