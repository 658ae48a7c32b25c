"""Addresses of single replicas, as Ray Serve tells them to HAProxy, and numbers for them.

Behind HAProxy's one route a scrape would meet any of a variant's replicas, so each one's own port
is wanted. Ray does not promise to keep the call that tells them: what fails or looks different
leaves the addresses unknown, and discovery names the route.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from penumbra.router.addresses import join_host_port

_REPLICA = "SERVE_REPLICA::"
"""Prefix of replicas' names; proxies have another."""
_SECONDS = 2.0

_log = logging.getLogger(__name__)

Addresses = dict[str, str]
"""Ray's name of a replica -> `HOST:PORT`."""


class ReplicaTargets:
    """Replica addresses from Ray Serve's controller.

    Args:
        host: Address that replicas listen on.
        is_local: Whether all of Ray is on this machine.
        ask: Ray's target groups, and this machine's address in them; may fail in any way.
    """

    def __init__(
        self,
        host: str,
        *,
        is_local: bool,
        ask: Callable[[], tuple[Iterable[Any], str]] | None = None,
    ) -> None:
        self._host = host
        self._is_local = is_local
        self._ask = ask or _ask_ray
        self._last: dict[str, Addresses] = {}
        self._has_failed = False

    def find(self) -> dict[str, Addresses]:
        """Application -> its running replicas; those found last if Ray does not tell now."""
        try:
            groups, here = self._ask()

            def host_of(address: str) -> str:
                # Ray names the machine's address also where replicas listen on loopback only, and
                # HAProxy translates it too.
                return self._host if self._is_local or address == here else address

            self._last = addresses_of(groups, host_of)
            self._has_failed = False
        except Exception as error:  # noqa: BLE001  # whatever Ray has changed, the variants run
            if not self._has_failed:
                detail = f"{type(error).__name__}: {error}"
                _log.warning("replicas_unknown", extra={"error": detail})
            self._has_failed = True
        return self._last


def _ask_ray() -> tuple[Iterable[Any], str]:
    import ray
    from ray.serve.context import _get_global_client

    controller = _get_global_client()._controller  # noqa: SLF001
    # What HAProxy is given; asked otherwise, Ray names HAProxy itself.
    groups: Iterable[Any] = ray.get(
        controller.get_target_groups.remote(None, True), timeout=_SECONDS
    )
    return groups, str(ray.util.get_node_ip_address())


def addresses_of(groups: Iterable[Any], host_of: Callable[[str], str]) -> dict[str, Addresses]:
    """The replicas in Ray Serve's target groups.

    Args:
        groups: As Ray 2.60 has them.
        host_of: Address of a node -> host at which its replicas are reached.

    Raises:
        AttributeError: They are something else.
    """
    found: dict[str, Addresses] = {}
    for group in groups:
        if str(getattr(group.protocol, "value", group.protocol)).upper() != "HTTP":
            continue
        replicas = {
            target.name: join_host_port(host_of(target.ip), target.port)
            for target in group.targets
            if target.name.startswith(_REPLICA)
        }
        found.setdefault(group.app_name, {}).update(replicas)
    return found


class ReplicaNumbers:
    """Gives replicas small numbers: labels whose set stays small while replicas come and go."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[str, int]] = {}

    def assign(self, app: str, replicas: Mapping[str, str]) -> dict[str, str]:
        """Give each replica a number; returns number -> address.

        A replica keeps its number while it runs; a new one gets the lowest that is free, so as a
        rule that of the one it replaces.
        """
        old = self._numbers.get(app, {})
        numbers = {name: number for name, number in old.items() if name in replicas}
        for name in sorted(replicas):
            if name not in numbers:
                numbers[name] = min(set(range(len(replicas))) - set(numbers.values()))
        self._numbers[app] = numbers
        return {
            str(numbers[name]): replicas[name] for name in sorted(numbers, key=numbers.__getitem__)
        }
