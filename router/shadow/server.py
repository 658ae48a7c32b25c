"""Runs one comparator process: the socket, the link, the comparisons, and a clean end."""

import asyncio
import contextlib
import datetime as dt
import logging
import secrets
import signal
import time
from collections.abc import Iterator

import uvicorn

from monitoring.tracing.tracer import Tracer
from router.control_link import ControlLink, Duties
from router.listening import bind
from router.ports import Upstream
from router.reporter import Reporter
from router.shadow.asgi import build_internal_app
from router.shadow.attendance import Attendance
from router.shadow.comparator import Clocks, Comparator
from router.shadow.frames import FrameServer, nice
from router.shadow.scoring import Scorer
from router.shadow.settings import ShadowSettings
from router.shadow.watched import Connect, Watched
from router.snapshot import Snapshot, Variant
from router.upstream_http import HttpUpstream

log = logging.getLogger(__name__)

_LAST_REPORT_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_ALIVE_SECONDS = 5.0
"""A comparator that did not look at its queue for this long gives no sign of life."""
_CONNECTIONS = 64


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_comparator(
    settings: ShadowSettings, control_token: str | None, tracer: Tracer | None = None
) -> None:
    """Compare until SIGTERM or SIGINT, then tell what is still to be told.

    Args:
        settings: What to do.
        control_token: Bearer token for the control process.
        tracer: Of mirrored requests that are traced.

    Raises:
        OSError: The socket or the port cannot be bound; the message names it and the setting.
    """
    stop = _stopped_by_signals()
    nice(settings.niceness)
    clocks = Clocks(time.monotonic, lambda: dt.datetime.now(dt.UTC).timestamp())
    reporter = Reporter(settings.comparator_id, secrets.token_hex(8))
    watched = Watched(_connector(settings), settings.bets)
    comparator = Comparator(settings, watched, reporter, clocks, tracer)
    scorer = Scorer(settings.deadlines.score_seconds, clocks.now)
    attendance = Attendance(comparator, reporter, scorer)

    def apply(snapshot: Snapshot) -> None:
        watched.apply(snapshot)
        attendance.changed()

    def is_comparing() -> bool:
        return clocks.now() - comparator.last_look < _ALIVE_SECONDS

    duties = Duties(reporter=reporter, is_comparing=is_comparing, machine=settings.machine)
    link = ControlLink(
        settings.control_url, control_token or "", settings.comparator_id, apply, duties=duties
    )
    frames = FrameServer(
        settings.socket_path,
        comparator.offer,
        lambda: _count_malformed(comparator),
        settings.limits.connections,
    )
    async with asyncio.TaskGroup() as group:
        linked = group.create_task(link.run())
        work = [group.create_task(part.run()) for part in (frames, comparator, attendance)]
        if settings.internal_port is not None:
            work.append(group.create_task(_serve(comparator, settings.internal_port)))
        log.info("comparator_started", extra={"port": settings.internal_port})
        await stop.wait()
        log.info("comparator_stopping")
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await _tell_the_rest(reporter)
        linked.cancel()
    watched.close()
    log.info("comparator_stopped")


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _tell_the_rest(reporter: Reporter) -> None:
    # What does not arrive in time is lost, which is no worse than a crash.
    for _ in range(round(_LAST_REPORT_SECONDS / _LOOK_SECONDS)):
        if reporter.is_empty:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _count_malformed(comparator: Comparator) -> None:
    comparator.metrics.malformed.value += 1


def _connector(settings: ShadowSettings) -> Connect:
    def connect(model: str, variant: Variant, api_key: str | None) -> Upstream:
        return HttpUpstream(
            model,
            variant.url,
            api_key=api_key,
            connect_seconds=settings.deadlines.connect_seconds,
            connections=_CONNECTIONS,
        )

    return connect


async def _serve(comparator: Comparator, port: int) -> None:
    sock = bind("127.0.0.1", port, "shadow.internal_port")
    config = uvicorn.Config(
        build_internal_app(comparator),
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    await _Server(config).serve(sockets=[sock])
