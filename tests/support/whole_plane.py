"""A whole control process inside the test's, without sockets: API, links, rollouts, guard."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from penumbra.deployments.actors import CONFIGURATION
from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.app import build_api
from penumbra.deployments.api.configuration_routes import configuration_router
from penumbra.deployments.api.rollout_routes import rollouts_router
from penumbra.deployments.config.hosted_here import HostedHere
from penumbra.deployments.config.spec import ControlSpec, PenumbraSpec
from penumbra.deployments.control.configuration_service import ConfigurationService
from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.deployments.server import ControlPlane, open_plane
from penumbra.monitoring.observations import Counts, Pair, Run, RunReport
from penumbra.router.link.messages import Beat, Probe, encode
from tests.support.control_plane import FakeGateway, payload, turns
from tests.support.rollouts import Reporting

ADMIN = "token-of-an-admin"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Labelled = tuple[str, frozenset[tuple[str, str]]]


class Scraped:
    """Values of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values: dict[Labelled, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.values, f"{key} twice"
                self.values[key] = sample.value

    def one(self, name: str, **labels: str) -> float:
        """The value of one series."""
        return self.values[name, frozenset(labels.items())]

    def all(self, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        """The series of a name that have these labels, without them."""
        wanted = frozenset(labels.items())
        return {
            own - wanted: value
            for (found, own), value in self.values.items()
            if found == name and wanted <= own
        }

    def state(self, name: str, label: str, **labels: str) -> str:
        """The one value of a state set's label whose sample is 1."""
        states = self.all(name, **labels)
        assert sorted(states.values()) == [0.0] * (len(states) - 1) + [1.0]
        [now] = [dict(own)[label] for own, value in states.items() if value]
        return now


@dataclass
class WholePlane:
    """A started control process."""

    parts: ControlPlane
    client: httpx.AsyncClient
    spec: PenumbraSpec
    attending: list[asyncio.Task[None]] = field(default_factory=list)
    reporting: Reporting = field(default_factory=Reporting)

    async def connect(
        self, name: str, host: str = "", *, processes: int = 0, needs_keys: bool = False
    ) -> FakeGateway:
        """Connect a gateway that applies every table."""
        gateway = FakeGateway(name, host=host, processes=processes, needs_keys=needs_keys)
        self._attend(gateway, self.parts.gateways, self.parts.gateway_inbox)
        epoch = self.parts.controller.state.epoch
        await gateway.reach(epoch)
        await turns()
        return gateway

    async def connect_comparator(self, host: str) -> FakeGateway:
        """Connect a comparator that has answered its first probe."""
        comparator = FakeGateway("comparator", host=host)
        self._attend(comparator, self.parts.comparators, self.parts.comparator_inbox)
        probe = await comparator.hear(Probe)
        comparator.say(encode(Beat(probe.nonce)))
        await turns()
        return comparator

    async def change(self, method: str, path: str, **body: Any) -> Any:
        """Make a change as an operator."""
        body = {"reason": "test"} | body
        answer = await self.client.request(method, f"/admin/v1{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def apply(self, spec: dict[str, Any]) -> str:
        """Start a rollout; returns the id of its run."""
        answer = await self.change("PUT", "/rollouts", spec=spec)
        run: str = answer["rollout"]["run"]
        return run

    async def report(self, run: Run, pairs: Iterable[Pair], **more: Any) -> None:
        """Report observations of a run."""
        counts: tuple[Counts, ...] = more.pop("counts", ())
        observed = RunReport(run, pairs=tuple(pairs), counts=counts, **more)
        await self.parts.rollouts.take_report(self.reporting.report(observed))

    async def scrape(self, accept: str = "") -> Scraped:
        """Scrape as Prometheus does."""
        answer = await self.client.get("/metrics", headers={"accept": accept})
        assert answer.status_code == 200
        return Scraped(answer.text)

    async def settled(self) -> Scraped:
        """Scrape until every interval is computed."""
        for _ in range(100):
            found = await self.scrape()
            if not self.parts.interval_cache.is_behind:
                return await self.scrape()
        raise AssertionError(f"intervals never settle: {found.text}")

    def _attend(self, process: FakeGateway, publisher: Publisher, inbox: LinkInbox) -> None:
        self.attending.append(asyncio.create_task(publisher.attend(process, inbox)))


@asynccontextmanager
async def whole_plane(
    folder: Path, *, hosting: Path | None = None, **models: Any
) -> AsyncIterator[WholePlane]:
    """Run a control process on the store of a folder; `hosting` has it start engines."""
    given = {"demo": {"baseline": "full", "variants": {"full": {"url": "http://full.test"}}}}
    control = ControlSpec(lease_seconds=5.0)
    spec = PenumbraSpec.model_validate({"state_dir": folder, "models": given, "control": control})
    parts = open_plane(spec)
    assert await parts.leadership.stand()
    await parts.controller.configure(payload(**models), CONFIGURATION)
    await parts.rollouts.start()
    access = Access({Role.ADMIN: ADMIN}, "token-of-the-gateways")
    app = build_api(parts.controller, parts.gateways, access)
    now = _now
    app.include_router(rollouts_router(parts.rollouts, parts.controller, access, now))
    hosted = {"demo": {"hosted": "http://127.0.0.1:8000/demo-hosted"}}
    service = ConfigurationService(
        parts.controller,
        parts.rollouts,
        parts.gateways,
        spec,
        HostedHere(spec, hosted, hosting),
        now,
    )
    app.include_router(configuration_router(service, parts.controller, access))
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://control",
        headers={"authorization": f"Bearer {ADMIN}"},
    )
    plane = WholePlane(parts, client, spec)
    try:
        yield plane
    finally:
        await client.aclose()
        for task in plane.attending:
            task.cancel()
        await asyncio.gather(*plane.attending, return_exceptions=True)
        await parts.interval_cache.close()
        await parts.rollouts.close()
        await parts.leadership.resign()
        parts.controller.close()


def _now() -> datetime:
    return datetime.now(UTC)
