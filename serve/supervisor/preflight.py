"""Checks ports, folders and cores before anything is started. Each error names the setting.

Half a minute of loading engines is too long to wait for "address already in use".
"""

import os
import socket
from collections.abc import Iterator, Sequence

from penumbra.deployments.config.hosted_engines import (
    core_problems,
    engine_problems,
    engines_of,
    ray_problems,
)
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.errors import ConfigurationInvalid, PortInUse
from penumbra.serve.supervisor.hosted_layout import file_engines

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def check(spec: PenumbraSpec, *, is_in_force: bool = False) -> None:
    """Check that this machine has what the configuration needs.

    Args:
        spec: The configuration.
        is_in_force: Whether the engines in force are others, as they were when `penumbra up` ran
            last: those of the file are a proposal then.

    Raises:
        ConfigurationInvalid: A model folder is missing, or Ray is, there are too few cores, or one
            port is asked for twice.
        PortInUse: Something else listens on a configured port.
    """
    problems = list(_clashes(list(_ports(spec))) if is_in_force else machine_problems(spec))
    if problems:
        raise ConfigurationInvalid("\n".join(problems))
    for problem in port_problems(spec):
        raise PortInUse(problem)


def machine_problems(spec: PenumbraSpec) -> Iterator[str]:
    """Find what this machine lacks, and ports that are asked for twice."""
    yield from _problems(spec)
    yield from _clashes(list(_ports(spec)))


def port_problems(spec: PenumbraSpec) -> Iterator[str]:
    """Find configured ports on which something else listens."""
    for setting, host, port in _ports(spec):
        reason = _obstacle(host, port)
        if reason is not None:
            yield (
                f"{setting}: found {port} on {host}: {reason}. Stop what listens there,"
                " or set another port."
            )


def _problems(spec: PenumbraSpec) -> Iterator[str]:
    if not spec.needs_ray:
        return
    yield from ray_problems()
    for hosted in file_engines(spec):
        path = f"models.{hosted.model}.variants.{hosted.variant}.engine"
        yield from (f"{path}.{problem}" for problem in engine_problems(hosted.engine))
    if spec.ray.address is None:
        yield from core_problems(engines_of(spec.models), os.cpu_count() or 1)


def _ports(spec: PenumbraSpec) -> Iterator[tuple[str, str, int]]:
    yield "gateway.port", spec.gateway.host, spec.gateway.port
    for index in range(spec.gateway.processes):
        suffix = f" + {index}" if index else ""
        internal_port = spec.gateway.internal_port + index
        yield f"gateway.internal_port{suffix}", spec.metrics.host, internal_port
    yield "control.port", spec.control.host, spec.control.port
    if spec.shadow.enabled:
        yield "shadow.internal_port", spec.metrics.host, spec.shadow.internal_port
    if spec.needs_ray and spec.ray.address is None:
        yield "ray.port", "127.0.0.1", spec.ray.port


def _clashes(ports: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    for index, (setting, host, port) in enumerate(ports):
        for other, other_host, other_port in ports[:index]:
            is_one_place = host == other_host or not _EVERYWHERE.isdisjoint({host, other_host})
            if port == other_port and is_one_place:
                yield f"{setting}: found {port}, the port of {other} as well, wanted another one"
                break


def _obstacle(host: str, port: int) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers bind: a port that only waits out old connections is free. No SO_REUSEPORT:
        # another gateway on the shared port would go unnoticed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None
