"""Kinds of requests that a rollout has released to its candidate: by slice, route, modality. Pure.

A *kind* is a route with a modality. Within a slice a rollout releases the kinds that were compared
and proven in it; all others stay on the baseline.
"""

from collections.abc import Mapping

from penumbra.router.flags.modality import TEXT
from penumbra.router.flags.request_features import RequestFeatures
from penumbra.router.flags.request_routes import CHAT, COMPLETIONS

_BY_DEFAULT = {CHAT: frozenset({TEXT}), COMPLETIONS: frozenset({TEXT})}

_Kinds = Mapping[str, frozenset[str]]


class ReleasedKinds:
    """The kinds that one watch has released, compiled.

    Args:
        released: Slice -> route -> modalities; None: text by chat and completions in every slice,
            as before kinds were told apart.
    """

    __slots__ = ("_by_slice",)

    def __init__(self, released: Mapping[str, Mapping[str, tuple[str, ...]]] | None) -> None:
        self._by_slice: dict[str, _Kinds] | None = None
        if released is not None:
            self._by_slice = {
                slice_name: {route: frozenset(found) for route, found in routes.items()}
                for slice_name, routes in released.items()
            }

    def hold(self, slice_name: str, features: RequestFeatures) -> bool:
        """Whether they hold a request of this slice; its body is read only for a route of them."""
        kinds: _Kinds | None = _BY_DEFAULT
        if self._by_slice is not None:
            kinds = self._by_slice.get(slice_name)
        if kinds is None:
            return False
        modalities = kinds.get(features.route)
        return modalities is not None and features.modality in modalities
