"""Variants that `penumbra up` hosts: addresses, plan, and records. Starts nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from penumbra.deployments.config.hosted_engines import HostedEngine, app_name, hosted_url
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.hosting.plan import FleetPlan, host_variant
from penumbra.serve.supervisor.folder import StateFolder
from penumbra.serve.supervisor.state import Phase, VariantRecord


def file_engines(spec: PenumbraSpec) -> Iterator[HostedEngine]:
    """Every engine of a configuration file."""
    for name, model in spec.models.items():
        for variant, found in model.variants.items():
            if found.engine is not None:
                yield HostedEngine(
                    model=name,
                    variant=variant,
                    is_baseline=variant == model.baseline,
                    engine=found.engine,
                )


def fleet_plan(
    engines: Sequence[HostedEngine], spec: PenumbraSpec, folder: StateFolder, runtime: Path
) -> FleetPlan:
    """The plan of the fleet process.

    Args:
        engines: The engines to run.
        spec: The configuration; says where Ray runs.
        folder: The folder for logs.
        runtime: A folder with a short path, for sockets.
    """
    is_local = spec.ray.address is None
    return FleetPlan(
        variants=tuple(
            host_variant(
                hosted,
                log=str(folder.log(app_name(hosted.model, hosted.variant))) if is_local else None,
            )
            for hosted in engines
        ),
        address=spec.ray.address,
        port=spec.ray.port,
        folder=str(runtime),
    )


def hosted_url_of(spec: PenumbraSpec, model: str, variant: str) -> str:
    """Base URL of a variant that is hosted here."""
    return hosted_url(spec.ray.port, model, variant)


def endpoints_of(spec: PenumbraSpec) -> dict[str, dict[str, str]]:
    """Model -> variant -> base URL of every engine of a configuration file."""
    endpoints: dict[str, dict[str, str]] = {}
    for each in file_engines(spec):
        url = hosted_url_of(spec, each.model, each.variant)
        endpoints.setdefault(each.model, {})[each.variant] = url
    return endpoints


def hosted_record(hosted: HostedEngine, spec: PenumbraSpec, folder: StateFolder) -> VariantRecord:
    """The record of a variant that is hosted here and does not run yet."""
    return VariantRecord(
        model=hosted.model,
        variant=hosted.variant,
        url=hosted_url_of(spec, hosted.model, hosted.variant),
        is_hosted=True,
        phase=Phase.WAITING,
        log=str(folder.log(app_name(hosted.model, hosted.variant))),
        source=hosted.engine.source,
        scheme=hosted.engine.scheme,
        definition=hosted.definition,
    )
