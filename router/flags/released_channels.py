"""Channels of requests that a rollout has released to its candidate, slice by slice. Pure.

A *channel* is a route with a modality: `responses` for texts, `chat+image` for images by chat.
Within a slice a rollout releases the channels that were compared and proven in it; all others stay
on the baseline.
"""

from collections.abc import Iterable, Mapping

from penumbra.router.flags.modality import TEXT
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.request_routes import CHAT, COMPLETIONS

_PLUS = "+"
_BY_DEFAULT = {CHAT: frozenset({TEXT}), COMPLETIONS: frozenset({TEXT})}

_Channels = Mapping[str, frozenset[str]]
"""Route -> modalities."""


def channel_of(route: str, modality: str) -> str:
    """Name a channel."""
    return route if modality == TEXT else f"{route}{_PLUS}{modality}"


class ReleasedChannels:
    """The channels that one watch has released, compiled.

    Args:
        released: Slice -> names of channels; None: text by chat and completions in every slice, as
            before channels were told apart.
    """

    __slots__ = ("_by_slice",)

    def __init__(self, released: Mapping[str, Iterable[str]] | None) -> None:
        self._by_slice: dict[str, _Channels] | None = None
        if released is not None:
            self._by_slice = {name: _compiled(names) for name, names in released.items()}

    def hold(self, slice_name: str, features: RequestFeatures) -> bool:
        """Whether they hold a request of this slice; its body is read only for a route of them."""
        channels: _Channels | None = _BY_DEFAULT
        if self._by_slice is not None:
            channels = self._by_slice.get(slice_name)
        if channels is None:
            return False
        modalities = channels.get(features.route)
        return modalities is not None and features.modality in modalities


def _compiled(names: Iterable[str]) -> _Channels:
    found: dict[str, frozenset[str]] = {}
    for name in names:
        route, _, modality = name.partition(_PLUS)
        found[route] = found.get(route, frozenset()) | {modality or TEXT}
    return found
