"""Discovery of scrape targets: this process, gateways, comparators, and every engine.

Reading order: Discovery.targets, Target.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from penumbra.deployments.config.replica_addresses import read_engines
from penumbra.deployments.metrics.process_registry import ProcessEntry, ProcessRegistry
from penumbra.monitoring.telemetry import engine, labels
from penumbra.monitoring.telemetry.metric import Process
from penumbra.router.addresses import join_host_port
from penumbra.router.flags.routing_table import ModelSnapshot
from penumbra.router.upstream.base_url import read_base_url

METRICS_PATH = "/metrics"
ONLY_REPLICA = "0"
"""Value of the label `replica` if a variant is scraped as a whole."""


@dataclass(frozen=True, slots=True)
class Target:
    """One page of metrics."""

    address: str
    """`HOST:PORT`."""
    kind: str
    """Value of the label `process_kind`."""
    process: str
    """Value of the label `process`; unique."""
    path: str = METRICS_PATH
    engine: Mapping[str, str] = field(default_factory=dict)
    """`model`, `variant` and `replica` of an engine."""
    is_tls: bool = False
    is_linked: bool = True
    """False for a gateway or comparator that holds no link: the address is only what it said once,
    so nothing is fetched from it here."""

    @property
    def labels(self) -> dict[str, str]:
        """Labels that are added to each of its series."""
        own = {labels.PROCESS_KIND.name: self.kind, labels.PROCESS.name: self.process}
        return own | dict(self.engine)

    @property
    def url(self) -> str:
        """URL of the page."""
        return f"{'https' if self.is_tls else 'http'}://{self.address}{self.path}"

    def group(self) -> dict[str, object]:
        """Returns the target in the form of Prometheus's HTTP service discovery."""
        target_labels = self.labels
        if self.path != METRICS_PATH:
            target_labels["__metrics_path__"] = self.path
        if self.is_tls:
            target_labels["__scheme__"] = "https"
        return {"targets": [self.address], "labels": target_labels}


class Discovery:
    """Lists all scrape targets.

    Args:
        own_address: Address of the control process: `HOST:PORT`, or `:PORT` if the host is the one
            under which the request reached it.
        registry: Gateways and comparators.
        models: Returns the models of the current routing table.
        replicas: The file of `penumbra.deployments.config.replica_addresses`; None if nothing is
            hosted.
        is_own_tls: Whether the control process speaks TLS.
    """

    def __init__(
        self,
        own_address: str,
        registry: ProcessRegistry,
        models: Callable[[], Mapping[str, ModelSnapshot]],
        replicas: Path | None,
        *,
        is_own_tls: bool = False,
    ) -> None:
        self._is_own_tls = is_own_tls
        self._own_address = own_address
        self._registry = registry
        self._models = models
        self._replicas = replicas

    def targets(self, asked_at: str = "127.0.0.1") -> list[Target]:
        """Lists every target, in a stable order.

        Args:
            asked_at: Host under which the control process was reached.
        """
        own = self._own_address
        if own.startswith(":"):
            own = join_host_port(asked_at.strip("[]"), int(own[1:]))
        name = Process.CONTROL.value
        control = Target(own, name, name, is_tls=self._is_own_tls)
        is_linked = self._registry.is_linked
        processes = [_process_target(each, is_linked(each)) for each in self._registry.present()]
        unique = _with_unique_names([control, *processes, *self._engines()])
        return sorted(unique, key=lambda target: (target.kind, target.process))

    def _engines(self) -> Iterator[Target]:
        known = read_engines(self._replicas)
        for model_name, model in self._models().items():
            for variant_name, variant in model.variants.items():
                base = read_base_url(variant.url)
                path = f"{base.prefix}{METRICS_PATH}"
                replicas = {ONLY_REPLICA: join_host_port(base.host, base.port)}
                hosted = known.get(model_name, {}).get(variant_name)
                if hosted is not None and hosted.replicas:
                    path, replicas = hosted.path, hosted.replicas
                for replica, replica_address in replicas.items():
                    yield Target(
                        replica_address,
                        engine.PROCESS_KIND,
                        f"{model_name}-{variant_name}-{replica}",
                        path,
                        {"model": model_name, "variant": variant_name, "replica": replica},
                        is_tls=base.is_tls,
                    )


def _process_target(process: ProcessEntry, is_linked: bool) -> Target:
    # Other machines have a gateway-0 too. The name does not depend on the other connected
    # processes, so a process's series stay together.
    name = f"{process.name}@{process.machine}" if process.machine else process.name
    return Target(process.address, process.kind.value, name, is_linked=is_linked)


def _with_unique_names(targets: Sequence[Target]) -> Iterator[Target]:
    """Makes names unique: later targets of a name get their address, then a number."""
    taken: Counter[str] = Counter()
    for target in targets:
        name = target.process
        if taken[name]:
            name = f"{target.process}@{target.address}"
        if taken[name]:
            name = f"{name}#{taken[name]}"
        taken[name] += 1
        taken[f"{target.process}@{target.address}"] += name != target.process
        yield replace(target, process=name)
