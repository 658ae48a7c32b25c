"""Programs that a configuration asks for, with their settings. Starts nothing.

Reading order: Layout, `lay_out`.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penumbra.deployments.config.hosted_engines import HostedEngine, app_name
from penumbra.deployments.config.loader import build_snapshot
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.router.addresses import join_host_port, local_host
from penumbra.router.flags.routing_table import Flag
from penumbra.router.secret_values import FILE_SUFFIX
from penumbra.router.settings import GRACE_SECONDS, GatewaySettings
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.upstream.base_url import root_url
from penumbra.serve.hosting.plan import FleetPlan
from penumbra.serve.supervisor.child_environment import Secrets
from penumbra.serve.supervisor.folder import (
    COMPARATOR_TOKEN,
    CONTROL_SECRETS,
    GATEWAY_TOKEN,
    StateFolder,
)
from penumbra.serve.supervisor.hosted_layout import (
    endpoints_of,
    file_engines,
    fleet_plan,
    hosted_record,
    hosted_url_of,
)
from penumbra.serve.supervisor.process import Program
from penumbra.serve.supervisor.state import Phase, VariantRecord

# -P: a folder called `serve` or `router` where the operator happens to be is not ours.
_PYTHON = (sys.executable, "-P", "-m")
# Ending Ray takes two seconds; on a joined cluster, requests are let finish.
_FLEET_STOP_SECONDS = 90.0
_MARGIN_SECONDS = 5.0
"""Beyond the time in which a gateway ends the answers under way."""
_SHADOW_SOCKET = "shadow.sock"
_TRACING = ("OTEL_",)


@dataclass(frozen=True)
class Layout:
    """All programs that `penumbra up` starts, in the order in which it stops them."""

    gateways: tuple[Program, ...]
    comparator: Program | None
    control: Program
    fleet: Program
    """Runs once there is a variant to host."""
    plan: FleetPlan
    variants: tuple[VariantRecord, ...]
    required: frozenset[str]
    """Applications without which the installation does not begin: all of a first start, later the
    baselines, so that no candidate that was added keeps them from starting again."""


def lay_out(
    spec: PenumbraSpec,
    config: Path,
    folder: StateFolder,
    runtime: Path,
    environment: Mapping[str, str],
    engines: Sequence[HostedEngine] | None = None,
) -> Layout:
    """Write the processes' settings files and return how to start each.

    Args:
        spec: The configuration.
        config: Its file; the control process reads it again.
        folder: The folder for settings and logs.
        runtime: A folder with a short path, for sockets.
        environment: The operator's environment variables.
        engines: The engines in force; None: those of the file.
    """
    tokens = folder.tokens(environment)
    is_first = engines is None
    engines = [*file_engines(spec)] if engines is None else engines
    plan = fleet_plan(engines, spec, folder, runtime)
    shadow_socket = runtime / _SHADOW_SOCKET if spec.shadow.enabled else None
    gateways = tuple(
        gateway_program(index, spec, settings, folder, tokens)
        for index, settings in enumerate(gateway_settings(spec, shadow_socket))
    )
    return Layout(
        gateways=gateways,
        comparator=_comparator(spec, shadow_socket, folder, tokens) if shadow_socket else None,
        control=control_program(spec, config, folder, tokens, is_hosting=True),
        fleet=_fleet_program(plan, spec, folder),
        plan=plan,
        variants=(
            *_external_records(spec),
            *(hosted_record(engine, spec, folder) for engine in engines),
        ),
        required=frozenset(
            app_name(engine.model, engine.variant)
            for engine in engines
            if engine.is_baseline or is_first
        ),
    )


def control_program(
    spec: PenumbraSpec,
    config: Path,
    folder: StateFolder,
    tokens: Mapping[str, str],
    *,
    is_hosting: bool = False,
) -> Program:
    """The program of the control process.

    Args:
        spec: The configuration.
        config: Its file, which the process reads again.
        folder: The folder for settings and logs.
        tokens: The tokens of the installation.
        is_hosting: Whether it is started by a `penumbra up`, which runs the engines in force.
    """
    endpoints = folder.private_file("endpoints.json", json.dumps(endpoints_of(spec), indent=2))
    return Program(
        name="control",
        command=(
            *_PYTHON,
            "penumbra.deployments",
            "--config",
            str(config),
            "--replicas",
            str(folder.replicas),
            "--endpoints",
            str(endpoints),
            *(("--hosting", str(folder.path)) if is_hosting else ()),
        ),
        environment=dict(tokens),
        log=folder.log("control"),
        secrets=Secrets(CONTROL_SECRETS, (*_TRACING, "PG")),
        ready_url=f"{spec.control_probe_url}/health",
        tls=spec.control.client_tls,
    )


def gateway_settings(
    spec: PenumbraSpec, shadow_socket: Path | None = None
) -> list[GatewaySettings]:
    """The settings of each gateway process of this machine.

    Args:
        spec: The configuration.
        shadow_socket: Socket of this machine's comparator; None if it has none.
    """
    snapshot = build_snapshot(
        spec,
        # Until the control process has told of its flags only the baseline answers: the file's flag
        # may be older than the kill switch.
        flags={name: Flag() for name in spec.models},
        epoch=0,
        base_url_of=lambda model, variant: hosted_url_of(spec, model, variant),
    )
    return [
        GatewaySettings(
            host=spec.gateway.host,
            port=spec.gateway.port,
            internal_port=spec.gateway.internal_port + index,
            internal_host=spec.metrics.host,
            announce=spec.metrics.announce,
            gateway_id=f"gateway-{index}",
            processes=spec.gateway.processes,
            keys=spec.keys,
            allowed_origins=spec.gateway.allowed_origins,
            tls=spec.gateway.tls,
            limits=spec.limits,
            control_url=spec.control_url,
            other_control_urls=spec.control.others,
            control_tls=spec.control.client_tls,
            shadow_socket=shadow_socket,
            snapshot=snapshot,
        )
        for index in range(spec.gateway.processes)
    ]


def gateway_program(
    index: int,
    spec: PenumbraSpec,
    settings: GatewaySettings,
    folder: StateFolder,
    tokens: Mapping[str, str],
) -> Program:
    """The program of one gateway process."""
    name = f"gateway-{index}"
    kept = {what: folder.path / f"{name}-{what}.json" for what in ("keys", "kills")}
    settings = settings.model_copy(update={"keys_file": kept["keys"], "kills_file": kept["kills"]})
    file = folder.private_file(f"{name}.json", settings.model_dump_json(indent=2))
    return Program(
        name=name,
        command=(*_PYTHON, "penumbra.router", "--settings", str(file)),
        # The gateway speaks to the control process, and may not administrate it.
        environment=_only(tokens, GATEWAY_TOKEN),
        log=folder.log(name),
        secrets=Secrets(_api_keys(spec), _TRACING),
        stop_seconds=GRACE_SECONDS + _MARGIN_SECONDS,
        ready_url=f"{_internal_url(spec, spec.gateway.internal_port + index)}/ready",
    )


def _comparator(
    spec: PenumbraSpec, socket: Path, folder: StateFolder, tokens: Mapping[str, str]
) -> Program:
    shadow = spec.shadow
    settings = ShadowSettings(
        control_url=spec.control_url,
        other_control_urls=spec.control.others,
        control_tls=spec.control.client_tls,
        socket_path=socket,
        internal_port=shadow.internal_port,
        internal_host=spec.metrics.host,
        announce=spec.metrics.announce,
        limits=shadow.limits,
        budget=shadow.budget,
        headroom=shadow.headroom,
        self_test=shadow.self_test,
        deadlines=shadow.deadlines,
        health=shadow.health,
    )
    file = folder.private_file("comparator.json", settings.model_dump_json(indent=2))
    return Program(
        name="comparator",
        command=(*_PYTHON, "penumbra.router.shadow", "--settings", str(file)),
        # It reports to the control process, and may not administrate it.
        environment=_only(tokens, COMPARATOR_TOKEN) or _only(tokens, GATEWAY_TOKEN),
        log=folder.log("comparator"),
        # A model of one build has nothing to compare: the comparator never calls that.
        secrets=Secrets(_api_keys(spec, least_variants=2), _TRACING),
        ready_url=f"{_internal_url(spec, shadow.internal_port)}/health",
    )


def _api_keys(spec: PenumbraSpec, least_variants: int = 1) -> frozenset[str]:
    """Variables with the API keys of servers elsewhere, of models with so many variants or more."""
    models = [model for model in spec.models.values() if len(model.variants) >= least_variants]
    variants = [variant for model in models for variant in model.variants.values()]
    names = [variant.api_key_env for variant in variants if variant.api_key_env]
    return frozenset(name + suffix for name in names for suffix in ("", FILE_SUFFIX))


def _only(tokens: Mapping[str, str], name: str) -> dict[str, str]:
    return {name: tokens[name]} if name in tokens else {}


def gateway_url(spec: PenumbraSpec) -> str:
    """Base URL of the gateway for clients on this machine."""
    scheme = "http" if spec.gateway.tls is None else "https"
    return f"{scheme}://{join_host_port(local_host(spec.gateway.host), spec.gateway.port)}"


def _fleet_program(plan: FleetPlan, spec: PenumbraSpec, folder: StateFolder) -> Program:
    file = folder.private_file("fleet.json", plan.model_dump_json(indent=2))
    return Program(
        name="fleet",
        command=(*_PYTHON, "penumbra.serve.hosting", str(file)),
        environment={},
        log=folder.log("fleet"),
        stop_seconds=_FLEET_STOP_SECONDS,
        secrets=Secrets(is_engine=True, withheld=_api_keys(spec)),
    )


def _internal_url(spec: PenumbraSpec, port: int) -> str:
    return f"http://{join_host_port(local_host(spec.metrics.host), port)}"


def _external_records(spec: PenumbraSpec) -> Iterator[VariantRecord]:
    for model_name, model in spec.models.items():
        for variant_name, variant in model.variants.items():
            if variant.url is not None:
                yield VariantRecord(
                    model=model_name,
                    variant=variant_name,
                    url=root_url(variant.url),
                    ca_file=variant.ca_file,
                    is_hosted=False,
                    phase=Phase.WAITING,
                )
