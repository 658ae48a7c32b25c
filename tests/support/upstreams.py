"""Type of the fixture that makes an upstream for a contract test, of any implementation."""

import contextlib
from collections.abc import Callable

from penumbra.router.upstream.port import Upstream

Make = Callable[..., contextlib.AbstractAsyncContextManager[Upstream]]
"""(what it answers; a small engine if not given) -> the upstream."""
