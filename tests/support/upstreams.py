"""How a contract test gets an upstream, whichever implementation it is."""

import contextlib
from collections.abc import Callable

from penumbra.router.upstream.port import Upstream

Make = Callable[..., contextlib.AbstractAsyncContextManager[Upstream]]
"""(what it answers; a small engine if not given) -> the upstream."""
