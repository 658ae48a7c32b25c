"""The gateway's end of the link to the control process: newer routing tables come in here.

The link only ever brings news. While it is down the gateway serves on with its last table, for as
long as it takes; when it is back the newest one arrives at once. See `router.link_messages`.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

from router.link_messages import (
    PATH,
    Applied,
    Hello,
    LinkError,
    Push,
    Refused,
    encode,
    from_control,
)
from router.snapshot import Snapshot

log = logging.getLogger(__name__)

_LARGEST_MESSAGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the link is; and its clock and dice, so that a test can bring its own."""

    open_seconds: float = 5.0
    ping_seconds: float = 5.0
    """How often the other end is asked for a sign of life, and how long that may take."""
    first_retry_seconds: float = 0.05
    longest_retry_seconds: float = 2.0
    now: Callable[[], float] = time.monotonic
    dice: Callable[[], float] = random.random
    """Uniform in [0, 1)."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def retry_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row: doubling, with full jitter."""
        doubled = self.first_retry_seconds * float(2 ** min(failures, 16))
        longest = min(self.longest_retry_seconds, doubled)
        return longest * (0.5 + 0.5 * self.dice())


class ControlLink:
    """Keeps one gateway process up to date.

    Args:
        url: Base URL of the control process (http, https, ws or wss).
        token: The gateways' bearer token.
        gateway_id: Name of this gateway process.
        on_snapshot: Puts a table into force; when it returns, every further request is decided by
            it. May raise, then the last table stays and the control process is told why.
        pace: Timing.
    """

    def __init__(
        self,
        url: str,
        token: str,
        gateway_id: str,
        on_snapshot: Callable[[Snapshot], None],
        pace: Pace | None = None,
    ) -> None:
        self._url = link_url(url)
        self._token = token
        self._gateway_id = gateway_id
        self._on_snapshot = on_snapshot
        self._pace = pace or Pace()
        self._store = ""
        self._failures = 0
        self.last_epoch = 0
        """The newest epoch that was put into force through the link; 0 before the first."""
        self.connected_since: float | None = None
        """By the pace's clock; None while the link is down."""

    @property
    def is_connected(self) -> bool:
        """Whether the link is up."""
        return self.connected_since is not None

    async def run(self) -> None:
        """Hold the link until cancelled, connecting again whenever it breaks."""
        while True:
            try:
                await self._hold()
                self._report("closed by the control process", is_refusal=False)
            except (OSError, TimeoutError, WebSocketException, LinkError) as error:
                refused = isinstance(error, InvalidHandshake)
                self._report(f"{type(error).__name__}: {error}", is_refusal=refused)
            finally:
                self.connected_since = None
            await self._pace.sleep(self._pace.retry_seconds(self._failures))
            self._failures += 1

    async def _hold(self) -> None:
        async with connect(
            self._url,
            additional_headers={"authorization": f"Bearer {self._token}"},
            open_timeout=self._pace.open_seconds,
            ping_interval=self._pace.ping_seconds,
            ping_timeout=self._pace.ping_seconds,
            # Whoever did not answer a ping will not answer a close either.
            close_timeout=self._pace.ping_seconds,
            max_size=_LARGEST_MESSAGE_BYTES,
            compression=None,
            proxy=None,
        ) as socket:
            hello = Hello(self._gateway_id, os.getpid(), self._store, self.last_epoch)
            await socket.send(encode(hello))
            await self._follow(socket)

    async def _follow(self, socket: ClientConnection) -> None:
        async for text in socket:
            message = from_control(text)
            if not isinstance(message, Push):
                continue
            await socket.send(encode(self._take(message)))
            if self.connected_since is None:
                self.connected_since = self._pace.now()
                self._failures = 0
                log.info("control_link_up", extra={"epoch": self.last_epoch})

    def _take(self, push: Push) -> Applied | Refused:
        try:
            table = push.table()
        except ValueError as error:
            return self._refuse(-1, f"not a routing table: {error}")
        if push.store == self._store and table.epoch < self.last_epoch:
            return self._refuse(table.epoch, f"older than epoch {self.last_epoch}, in force here")
        if push.store != self._store or table.epoch > self.last_epoch:
            try:
                self._on_snapshot(table)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, serve on with the last
                return self._refuse(table.epoch, f"{type(error).__name__}: {error}")
            self._store, self.last_epoch = push.store, table.epoch
        return Applied(table.epoch)

    def _refuse(self, epoch: int, detail: str) -> Refused:
        log.error("snapshot_refused", extra={"epoch": epoch, "detail": detail})
        return Refused(epoch, detail)

    def _report(self, error: str, *, is_refusal: bool) -> None:
        # Said once per outage, not once per attempt; but a refusal is the operator's to mend.
        if self._failures == 0 or is_refusal:
            log.warning("control_link_down", extra={"error": error, "last_epoch": self.last_epoch})


def link_url(url: str) -> str:
    """The WebSocket address of the link for a base URL of the control process.

    Raises:
        ValueError: The scheme is none of http, https, ws, wss.
    """
    scheme, separator, rest = url.partition("://")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if not separator or scheme not in schemes:
        raise ValueError(
            f'control_url: found "{url}", wanted http://HOST:PORT or https://HOST:PORT'
        )
    return f"{schemes[scheme]}://{rest.rstrip('/')}{PATH}"
