"""Model cards of `/v1/models`: the public names, with what the builds say of themselves.

A card is asked of the builds when a client asks for it, at most once a minute, and never for a
request to a model. What no build tells is left out of the card.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from penumbra.router.upstream.calls import UpstreamError, fetch, get_request
from penumbra.router.upstream.port import Upstream

FRESH_SECONDS = 60.0
"""A build is asked again after this."""
_RETRY_SECONDS = 5.0
_ANSWER_SECONDS = 1.0
"""Longest time for which a client's model list waits for the builds."""
_LARGEST_BYTES = 1024 * 1024
_OK = 200


class BuildCard(msgspec.Struct, frozen=True):
    """Model card of one build."""

    id: str
    root: str | None = None
    max_model_len: int | None = None


class _BuildCards(msgspec.Struct):
    data: list[BuildCard]


_decode = msgspec.json.Decoder(_BuildCards).decode
_NEVER: tuple[float, BuildCard | None] = (-math.inf, None)


class ModelCards:
    """The model cards of one gateway process.

    Args:
        now: Monotonic clock, seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._created = int(datetime.now(UTC).timestamp())
        self._cards: dict[Upstream, tuple[float, BuildCard | None]] = {}
        self._asking = asyncio.Lock()

    async def refresh(self, builds: Mapping[str, Mapping[str, Upstream]]) -> None:
        """Ask the builds whose cards are not fresh.

        Args:
            builds: Model -> variant -> upstream; cards of other builds are forgotten.
        """
        async with self._asking:
            named = [
                (upstream, name) for name, found in builds.items() for upstream in found.values()
            ]
            known = {upstream for upstream, _ in named}
            self._cards = {key: value for key, value in self._cards.items() if key in known}
            due = [
                self._ask(upstream, name)
                for upstream, name in named
                if self._cards.get(upstream, _NEVER)[0] <= self._now()
            ]
            await asyncio.gather(*due)

    def card(self, name: str, baseline: str, upstreams: Mapping[str, Upstream]) -> dict[str, Any]:
        """The card of one model.

        Args:
            name: Its public name.
            baseline: Its full-precision variant.
            upstreams: Variant -> upstream.
        """
        told = {variant: self._cards.get(key, _NEVER)[1] for variant, key in upstreams.items()}
        of_baseline = told.get(baseline)
        card = {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "penumbra",
            "root": (of_baseline.root if of_baseline else None) or name,
            "parent": None,
        }
        lengths = [found.max_model_len for found in told.values() if found and found.max_model_len]
        # Any variant may answer: only what fits the smallest is sure to be answered.
        return {**card, "max_model_len": min(lengths)} if lengths else card

    async def _ask(self, upstream: Upstream, name: str) -> None:
        card, patience = self._cards.get(upstream, _NEVER)[1], _RETRY_SECONDS
        try:
            answer = await fetch(
                upstream,
                get_request(b"/v1/models"),
                timeout_seconds=_ANSWER_SECONDS,
                limit_bytes=_LARGEST_BYTES,
            )
            cards = _decode(answer.body).data if answer.status == _OK else []
        except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError):
            pass  # what it said last is still the best that is known
        else:
            card = next((found for found in cards if found.id == name), None)
            patience = FRESH_SECONDS
        self._cards[upstream] = self._now() + patience, card
