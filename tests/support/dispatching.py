"""Services and shapes for dispatches in unit tests."""

from collections.abc import Callable

from penumbra.router.dispatch.answer_check import AnswerKind
from penumbra.router.dispatch.attribution import Arbiter
from penumbra.router.dispatch.kept_bytes import KeptBytes
from penumbra.router.dispatch.request_shape import RequestShape
from penumbra.router.dispatch.services import DispatchServices
from penumbra.router.settings import LimitSettings
from penumbra.router.upstream.port import Upstream

STREAM = RequestShape(AnswerKind(is_stream=True))
WHOLE = RequestShape(AnswerKind(is_stream=False))
ANY = RequestShape()


def services(
    clock: Callable[[], float] = lambda: 0.0, baseline: Upstream | None = None
) -> DispatchServices:
    """Services with default limits, and an arbiter that asks the baseline at once."""
    arbiter = Arbiter(clock, gather_seconds=0.0)
    if baseline is not None:
        arbiter.appoint(baseline)
    return DispatchServices(LimitSettings(), clock, arbiter, KeptBytes())
