"""A uvicorn server whose process handles the signals itself."""

import contextlib
from collections.abc import Iterator

import uvicorn


class UvicornServer(uvicorn.Server):
    """Serves until `should_exit` is set and leaves signal handlers to its process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signal handlers of the process in place; called by uvicorn."""
        yield
