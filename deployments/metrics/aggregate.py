"""One page with the metrics of every process, for a Prometheus that scrapes this one URL.

Nothing is summed: each process's series stay apart by the labels `process` and `process_kind`
(engines: also `model`, `variant` and `replica`), so one that starts anew is an ordinary counter
reset. A page that does not come in time, is too large or cannot be read is left out, and
`penumbra_process_up` says of which process.

Reading order: Aggregate.text, `merged`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import httpx
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from penumbra.deployments.metrics.discovery import Target
from penumbra.monitoring.telemetry import control
from penumbra.monitoring.telemetry.metric import Process

log = logging.getLogger(__name__)

FETCH_SECONDS = 4.0
"""Prometheus waits for ten by default."""
LARGEST_PAGE_BYTES = 8 * 1024 * 1024
MOST_TARGETS = 256
"""More are told as not up: such an installation is scraped by discovery."""
_CONNECTIONS = 64
_ACCEPT = {"accept": "text/plain;version=0.0.4"}

Fetch = Callable[[Target], Awaitable[str]]
"""The text of a target's page; raises if there is none."""


class Aggregate:
    """Fetches all pages, once for all who ask at the same time.

    Args:
        fetch: Fetches one page.
        seconds: How long all of that may take.
    """

    def __init__(self, fetch: Fetch, seconds: float = FETCH_SECONDS) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._under_way: asyncio.Task[bytes] | None = None
        self._known: set[str] = set()
        """Processes of which the log says already that they are left out."""

    async def text(self, targets: Sequence[Target]) -> bytes:
        """The exposition, in Prometheus's text format."""
        task = self._under_way
        if task is None:
            task = self._under_way = asyncio.create_task(self._gather(targets))
            task.add_done_callback(self._done)
        # Whoever goes away leaves it to the others.
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[bytes]) -> None:
        self._under_way = None
        if not task.cancelled():
            task.exception()  # looked at, also if nobody waits for it any more

    async def _gather(self, targets: Sequence[Target]) -> bytes:
        problems: dict[str, str] = {}
        fetched = targets[:MOST_TARGETS]
        pages = await asyncio.gather(*(self._page(one, problems) for one in fetched))
        left_out = [None] * (len(targets) - len(pages))
        # In a thread: reading thousands of lines must hold up neither links nor leases.
        text = await asyncio.to_thread(merged, targets, [*pages, *left_out], problems)
        self._report(problems)
        return text

    async def _page(self, target: Target, problems: dict[str, str]) -> str | None:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._fetch(target)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # OSError: TimeoutError is one.
            problems[target.process] = f"{type(error).__name__}: {error}"
            return None

    def _report(self, problems: Mapping[str, str]) -> None:
        # Once, not at every scrape.
        for process, detail in problems.items():
            if process not in self._known:
                log.warning("metrics_left_out", extra={"target": process, "detail": detail})
        self._known = set(problems)


def fetcher(client: httpx.AsyncClient, own_url: str) -> Fetch:
    """Fetches over HTTP.

    Args:
        client: Made by `http_client`.
        own_url: Where this process reaches its own page, whatever discovery calls it.
    """

    async def fetch(target: Target) -> str:
        is_own = target.kind == Process.CONTROL.value
        url = own_url if is_own else target.url
        async with client.stream("GET", url, headers=_ACCEPT) as response:
            response.raise_for_status()
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST_PAGE_BYTES:
                    raise ValueError(f"the page is larger than {LARGEST_PAGE_BYTES} bytes")
        return body.decode()

    return fetch


def http_client() -> httpx.AsyncClient:
    """A client for pages on this installation's own network."""
    return httpx.AsyncClient(
        trust_env=False,
        timeout=FETCH_SECONDS,
        limits=httpx.Limits(max_connections=_CONNECTIONS),
    )


def merged(
    targets: Sequence[Target], pages: Sequence[str | None], problems: dict[str, str]
) -> bytes:
    """One exposition of all pages.

    Args:
        targets: Whose pages they are, in the same order.
        pages: None for one that did not come.
        problems: Process -> what is wrong with its page; what is found here is added.
    """
    up = GaugeMetricFamily(control.UP.name, control.UP.help, labels=control.UP.label_names)
    families: dict[str, Metric] = {}
    for target, page in zip(targets, pages, strict=True):
        is_read = page is not None and _is_added(families, target, page, problems)
        up.add_metric([target.labels[name] for name in control.UP.label_names], float(is_read))
    families[up.name] = up
    registry = CollectorRegistry()
    registry.register(_Families([families[name] for name in sorted(families)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()  # asked for at the registration, to look for doubles: there are none

    def collect(self) -> Iterable[Metric]:
        return self._families


def _is_added(
    families: dict[str, Metric], target: Target, page: str, problems: dict[str, str]
) -> bool:
    """Whether the page could be read; then its series are among the families."""
    try:
        found = list(text_string_to_metric_families(page))
    except ValueError as error:
        problems[target.process] = f"{error}"
        return False
    for family in found:
        whole = families.get(family.name)
        if whole is None:
            whole = Metric(family.name, family.documentation, family.type)
            families[family.name] = whole
        if whole.type != family.type:
            # A page may say only one type of a name: that of the first.
            problem = f"{family.name} is a {family.type}, elsewhere a {whole.type}"
            problems[target.process] = problem
            continue
        whole.samples += [
            sample._replace(labels=_labelled(sample.labels, target)) for sample in family.samples
        ]
    return True


def _labelled(own: Mapping[str, str], target: Target) -> dict[str, str]:
    added = target.labels
    # As Prometheus does it when a scraped series has a label that discovery adds.
    kept = {f"exported_{name}" if name in added else name: value for name, value in own.items()}
    return kept | added
