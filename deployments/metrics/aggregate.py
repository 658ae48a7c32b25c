"""Aggregate: one page with the metrics of every process, for a Prometheus that scrapes one URL.

Gateways and comparators say themselves where their page is. So it is fetched only while they hold a
link, and only Penumbra's own metrics are taken from it: no other page can be read through here.

Nothing is summed: the labels `process` and `process_kind` keep the series of each process apart
(engines: also `model`, `variant` and `replica`), so a process that starts anew is an ordinary
counter reset. A page that does not come in time, is too large or cannot be read is left out;
`penumbra_process_up` names its process.

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
"""Time for all pages; Prometheus waits 10 s by default."""
LARGEST_PAGE_BYTES = 8 * 1024 * 1024
MOST_TARGETS = 256
"""Further targets are shown as not up: such an installation is scraped by discovery."""
_CONNECTIONS = 64
_ANNOUNCED = frozenset({Process.GATEWAY.value, Process.COMPARATOR.value})
"""Kinds of processes whose address is what they said over their link."""
_OWN_METRICS = "penumbra_"
_ACCEPT = {"accept": "text/plain;version=0.0.4"}

Fetch = Callable[[Target], Awaitable[str]]
"""The text of a target's page; raises if there is none."""


class Aggregate:
    """Fetches all pages, once for all scrapes at the same time.

    Args:
        fetch: Fetches one page.
        seconds: Time that each page has.
    """

    def __init__(self, fetch: Fetch, seconds: float = FETCH_SECONDS) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._under_way: asyncio.Task[bytes] | None = None
        self._known: set[str] = set()
        """Processes that are left out, and of which the log says so already."""

    async def text(self, targets: Sequence[Target]) -> bytes:
        """Returns the exposition of all pages, in Prometheus's text format."""
        task = self._under_way
        if task is None:
            task = self._under_way = asyncio.create_task(self._gather(targets))
            task.add_done_callback(self._done)
        # A scrape that is cancelled leaves the task to the others.
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[bytes]) -> None:
        self._under_way = None
        if not task.cancelled():
            task.exception()  # retrieved, also if no scrape waits for it any more

    async def _gather(self, targets: Sequence[Target]) -> bytes:
        problems: dict[str, str] = {}
        fetched = targets[:MOST_TARGETS]
        pages = await asyncio.gather(*(self._page(target, problems) for target in fetched))
        left_out = [None] * (len(targets) - len(pages))
        # In a thread: reading thousands of lines must hold up neither links nor leases.
        text = await asyncio.to_thread(merged, targets, [*pages, *left_out], problems)
        self._report(problems)
        return text

    async def _page(self, target: Target, problems: dict[str, str]) -> str | None:
        if not target.is_linked:
            problems[target.process] = "it holds no link to the control process"
            return None
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


OwnPage = Callable[[], Awaitable[str]]
"""Returns the text of this process's own page."""


def fetcher(client: httpx.AsyncClient, own: str | OwnPage) -> Fetch:
    """Makes a function that fetches pages over HTTP.

    Args:
        client: Made by `http_client`.
        own: URL at which this process reaches its own page, which may differ from discovery's; or
            makes that page.
    """

    async def fetch(target: Target) -> str:
        is_own = target.kind == Process.CONTROL.value
        if is_own and not isinstance(own, str):
            return await own()
        url = own if is_own and isinstance(own, str) else target.url
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
    """Makes a client for pages on this installation's own network."""
    return httpx.AsyncClient(
        trust_env=False,
        timeout=FETCH_SECONDS,
        limits=httpx.Limits(max_connections=_CONNECTIONS),
    )


def merged(
    targets: Sequence[Target], pages: Sequence[str | None], problems: dict[str, str]
) -> bytes:
    """Merges all pages into one exposition.

    Args:
        targets: The targets of the pages, in the same order.
        pages: The pages' texts; None for a page that did not come.
        problems: Process -> the problem with its page; further ones are added here.
    """
    up = GaugeMetricFamily(control.UP.name, control.UP.help, labels=control.UP.label_names)
    families: dict[str, Metric] = {}
    for target, page in zip(targets, pages, strict=True):
        is_read = page is not None and _add_page(families, target, page, problems)
        up.add_metric([target.labels[name] for name in control.UP.label_names], float(is_read))
    families[up.name] = up
    registry = CollectorRegistry()
    registry.register(_Families([families[name] for name in sorted(families)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()  # the registry asks once, to find duplicates: there are none

    def collect(self) -> Iterable[Metric]:
        return self._families


def _add_page(
    families: dict[str, Metric], target: Target, page: str, problems: dict[str, str]
) -> bool:
    """Adds a page's series to the families; returns whether the page could be read."""
    try:
        found = list(text_string_to_metric_families(page))
    except ValueError as error:
        # The error's text quotes the page, which may be any at the address that was announced.
        problems[target.process] = f"no page of metrics ({type(error).__name__})"
        return False
    if target.kind in _ANNOUNCED:
        own = [family for family in found if family.name.startswith(_OWN_METRICS)]
        if found and not own:
            problems[target.process] = "no page of Penumbra's metrics"
            return False
        found = own
    for family in found:
        whole = families.get(family.name)
        if whole is None:
            whole = Metric(family.name, family.documentation, family.type)
            families[family.name] = whole
        if whole.type != family.type:
            # A name has one type in an exposition: that of the first page.
            problem = f"{family.name} is a {family.type}, elsewhere a {whole.type}"
            problems[target.process] = problem
            continue
        whole.samples += [
            sample._replace(labels=_relabel(sample.labels, target)) for sample in family.samples
        ]
    return True


def _relabel(own: Mapping[str, str], target: Target) -> dict[str, str]:
    added = target.labels
    # Prometheus does the same when a scraped series has a label that discovery adds.
    renamed = {f"exported_{name}" if name in added else name: value for name, value in own.items()}
    return renamed | added
