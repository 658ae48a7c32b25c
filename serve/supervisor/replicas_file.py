"""Writes the replicas' addresses for the control process, which names them to Prometheus."""

from collections.abc import Mapping
from pathlib import Path

from penumbra.deployments.config.replica_addresses import EngineAddresses, Engines, write_engines
from penumbra.deployments.metrics.discovery import METRICS_PATH
from penumbra.serve.supervisor.state import VariantRecord


class ReplicasFile:
    """File of replica addresses that is kept up to date.

    Args:
        path: The file. The first write replaces one that a killed supervisor left behind.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Engines | None = None

    def write(self, records: Mapping[str, VariantRecord]) -> None:
        """Write the file if its content would change.

        Args:
            records: Application -> its variant's record.
        """
        engines: Engines = {}
        for app, record in records.items():
            if record.addresses:
                # A replica serves under its application's prefix, as HAProxy passes paths on.
                path = f"/{app}{METRICS_PATH}"
                found = EngineAddresses(path=path, replicas=record.addresses)
                engines.setdefault(record.model, {})[record.variant] = found
        if engines != self._written:
            write_engines(self._path, engines)
            self._written = engines
