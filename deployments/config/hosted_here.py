"""Variants that are hosted beside one control process, and whether it can have engines started."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penumbra.deployments.config.endpoints import Endpoints, hosted_endpoints
from penumbra.deployments.config.hosted_engines import (
    STATUS,
    EnginesStatus,
    core_problems,
    definition_of,
    engine_problems,
    engines_of,
    hosted_url,
    ray_problems,
    read_file,
)
from penumbra.deployments.config.spec import ModelSpec, PenumbraSpec
from penumbra.deployments.history.events import ConfigPayload
from penumbra.deployments.history.hosted_engines import Engines, changes_of


@dataclass(frozen=True, slots=True)
class Beside:
    """Files by which a control process and the `penumbra up` that started it tell each other."""

    replicas: Path | None = None
    """Where `penumbra up` writes the addresses of the engines' replicas; None: it does not."""
    folder: Path | None = None
    """Where each writes of engines (`penumbra.deployments.config.hosted_engines`); None: nothing
    starts engines here."""


ALONE = Beside()


@dataclass(frozen=True, slots=True)
class HostedHere:
    """The variants beside one control process."""

    spec: PenumbraSpec
    """The configuration that it started with."""
    endpoints: Endpoints
    """Addresses of the variants of that configuration that are hosted here."""
    folder: Path | None = None
    """Where `penumbra up`, which started this process, reads which engines to run; None: nothing
    starts engines here."""

    def in_force(self, told: Engines | None) -> Engines:
        """The engines in force.

        Args:
            told: Those that the store tells of; None: those of this process's file are.
        """
        return engines_of(self.spec.models) if told is None else told

    def address_of(self, model: str, variant: str) -> str:
        """Base URL of a variant that is, or would be, hosted here."""
        known = self.endpoints.get(model, {}).get(variant)
        return known or hosted_url(self.spec.ray.port, model, variant)

    def addresses(self, told: Engines | None) -> Endpoints:
        """Base URL of each variant that is hosted here, by the file or by the store."""
        found = {name: dict(variants) for name, variants in self.endpoints.items()}
        if self.folder is not None:
            for name, variants in (told or {}).items():
                for variant in variants:
                    found.setdefault(name, {})[variant] = self.address_of(name, variant)
        return found

    def runs(self, model: str, variant: str, told: Engines | None) -> bool:
        """Whether a variant is hosted, by the file or the store, or its engine can be started."""
        is_known = variant in self.endpoints.get(model, {}) or variant in (told or {}).get(
            model, {}
        )
        return self.folder is not None or is_known

    def is_settled(self, name: str, variant: str, model: ModelSpec, told: Engines | None) -> bool:
        """Whether nothing has to be started for a variant of a proposal."""
        engine = model.variants[variant].engine
        if engine is None:
            return True
        if self.folder is None and told is None:
            return self.runs(name, variant, told)
        return self.in_force(told).get(name, {}).get(variant) == definition_of(engine)

    def proposed(self, models: Mapping[str, ModelSpec], told: Engines | None) -> Engines | None:
        """The engines of a proposal, as the store is to keep them; None: it says nothing of them.

        Args:
            models: The proposal.
            told: The engines that the store tells of.
        """
        is_told = self.folder is not None or told is not None
        return engines_of(models) if is_told else None

    def problems(self, models: Mapping[str, ModelSpec], told: Engines | None) -> Iterator[str]:
        """Find what keeps the engines of a proposal from being started here.

        Args:
            models: The proposal.
            told: The engines that the store tells of.
        """
        for name, model in models.items():
            for variant, found in model.variants.items():
                if found.engine is not None and not self.runs(name, variant, told):
                    yield (
                        f"models.{name}.variants.{variant}: found an engine that does not run here,"
                        " wanted one that runs: engines are started where `penumbra up` runs, whose"
                        " control process has to take the file"
                    )
        changes = [*changes_of(self.in_force(told), self.proposed(models, told))]
        begun = [change for change in changes if change.after is not None]
        if not begun:
            return
        if self.folder is None:
            yield from (
                f"models.{change.model}.variants.{change.variant}.engine: found other settings than"
                " those in force, wanted these: engines are changed where `penumbra up` runs"
                for change in begun
                if self.runs(change.model, change.variant, told)
            )
            return
        yield from ray_problems()
        for change in begun:
            engine = models[change.model].variants[change.variant].engine
            path = f"models.{change.model}.variants.{change.variant}.engine"
            yield from (f"{path}.{text}" for text in (engine_problems(engine) if engine else ()))
        status = read_file(self.folder / STATUS, EnginesStatus)
        if status is not None and status.cores is not None:
            yield from core_problems(engines_of(models), status.cores)


def host(
    spec: PenumbraSpec, payload: ConfigPayload, beside: Beside
) -> tuple[HostedHere, ConfigPayload]:
    """Host the engines of a file beside a control process.

    Args:
        spec: The configuration of the file.
        payload: Its models and keys, with the address of every variant.
        beside: Whether `penumbra up` is told of engines.

    Returns:
        The variants that are hosted, and the configuration with its engines.
    """
    hosted = HostedHere(spec, hosted_endpoints(spec, payload), beside.folder)
    engines = engines_of(spec.models)
    if beside.folder is None or not engines:
        return hosted, payload
    return hosted, payload.model_copy(update={"engines": engines})


def hosted_addresses(spec: PenumbraSpec) -> Endpoints:
    """Base URL of each variant of a configuration that `penumbra up` hosts."""
    return {
        name: {variant: hosted_url(spec.ray.port, name, variant) for variant in variants}
        for name, variants in engines_of(spec.models).items()
    }
