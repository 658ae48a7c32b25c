"""Programs that a configuration asks for, with their settings. Starts nothing.

Reading order: Layout, `lay_out`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penumbra.deployments.config.loader import build_snapshot
from penumbra.deployments.config.spec import EngineSpec, PenumbraSpec
from penumbra.router.addresses import join_host_port, local_host
from penumbra.router.flags.routing_table import Flag
from penumbra.router.secret_values import FILE_SUFFIX
from penumbra.router.settings import GRACE_SECONDS, GatewaySettings
from penumbra.router.shadow.settings import ShadowSettings
from penumbra.router.upstream.base_url import root_url
from penumbra.serve.hosting.plan import FleetPlan, app_name, host_variant
from penumbra.serve.supervisor.child_environment import Secrets
from penumbra.serve.supervisor.folder import (
    COMPARATOR_TOKEN,
    CONTROL_SECRETS,
    GATEWAY_TOKEN,
    StateFolder,
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
    fleet: Program | None
    plan: FleetPlan | None
    variants: tuple[VariantRecord, ...]


def lay_out(
    spec: PenumbraSpec,
    config: Path,
    folder: StateFolder,
    runtime: Path,
    environment: Mapping[str, str],
) -> Layout:
    """Write the processes' settings files and return how to start each.

    Args:
        spec: The configuration.
        config: Its file; the control process reads it again.
        folder: The folder for settings and logs.
        runtime: A folder with a short path, for sockets.
        environment: The operator's environment variables.
    """
    tokens = folder.tokens(environment)
    plan = _plan(spec, folder, runtime)
    shadow_socket = runtime / _SHADOW_SOCKET if spec.shadow.enabled else None
    gateways = tuple(
        gateway_program(index, spec, settings, folder, tokens)
        for index, settings in enumerate(gateway_settings(spec, shadow_socket))
    )
    return Layout(
        gateways=gateways,
        comparator=_comparator(spec, shadow_socket, folder, tokens) if shadow_socket else None,
        control=control_program(spec, config, folder, tokens),
        fleet=_fleet_program(plan, spec, folder) if plan else None,
        plan=plan,
        variants=tuple(_records(spec, folder)),
    )


def control_program(
    spec: PenumbraSpec, config: Path, folder: StateFolder, tokens: Mapping[str, str]
) -> Program:
    """The program of the control process."""
    endpoints = folder.private_file("endpoints.json", json.dumps(_endpoints(spec), indent=2))
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
        ),
        environment=dict(tokens),
        log=folder.log("control"),
        secrets=Secrets(CONTROL_SECRETS, (*_TRACING, "PG")),
        ready_url=f"{spec.control_url}/health",
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
        base_url_of=lambda model, variant: _hosted_url(spec, model, variant),
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
    settings = settings.model_copy(update={"keys_file": folder.path / f"{name}-keys.json"})
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


def hosted_variants(spec: PenumbraSpec) -> Iterator[tuple[str, str, EngineSpec]]:
    """Model, variant and engine of every variant that is hosted here."""
    for model_name, model in spec.models.items():
        for variant_name, variant in model.variants.items():
            if variant.engine is not None:
                yield model_name, variant_name, variant.engine


def gateway_url(spec: PenumbraSpec) -> str:
    """Base URL of the gateway for clients on this machine."""
    scheme = "http" if spec.gateway.tls is None else "https"
    return f"{scheme}://{join_host_port(local_host(spec.gateway.host), spec.gateway.port)}"


def _plan(spec: PenumbraSpec, folder: StateFolder, runtime: Path) -> FleetPlan | None:
    is_local = spec.ray.address is None
    variants = [
        host_variant(
            model,
            variant,
            engine,
            log=str(folder.log(app_name(model, variant))) if is_local else None,
        )
        for model, variant, engine in hosted_variants(spec)
    ]
    if not variants:
        return None
    return FleetPlan(
        variants=tuple(variants),
        address=spec.ray.address,
        port=spec.ray.port,
        folder=str(runtime),
    )


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


def _hosted_url(spec: PenumbraSpec, model: str, variant: str) -> str:
    return f"http://127.0.0.1:{spec.ray.port}/{app_name(model, variant)}"


def _endpoints(spec: PenumbraSpec) -> dict[str, dict[str, str]]:
    endpoints: dict[str, dict[str, str]] = {}
    for model, variant, _ in hosted_variants(spec):
        endpoints.setdefault(model, {})[variant] = _hosted_url(spec, model, variant)
    return endpoints


def _records(spec: PenumbraSpec, folder: StateFolder) -> Iterator[VariantRecord]:
    for model_name, model in spec.models.items():
        for variant_name, variant in model.variants.items():
            engine = variant.engine
            yield VariantRecord(
                model=model_name,
                variant=variant_name,
                url=(
                    root_url(variant.url)
                    if variant.url
                    else _hosted_url(spec, model_name, variant_name)
                ),
                ca_file=variant.ca_file,
                is_hosted=engine is not None,
                phase=Phase.WAITING,
                log=str(folder.log(app_name(model_name, variant_name))) if engine else None,
                source=engine.source if engine else None,
                scheme=engine.scheme if engine else None,
            )
