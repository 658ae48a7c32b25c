"""One request at an upstream, to its end."""

from penumbra.router.upstream.port import AttemptBudget, Stream, Upstream, UpstreamRequest
from tests.support.recorder import Recorder


class Asked(Recorder):
    """The answer to a request, and its stream."""

    stream: Stream


def begin(upstream: Upstream, *, body: bytes = b"{}", budget: AttemptBudget | None = None) -> Asked:
    """Send a request."""
    asked = Asked()
    request = UpstreamRequest(b"/v1/x", b"", body, budget=budget or AttemptBudget())
    asked.stream = upstream.stream(request, asked)
    return asked


async def ask(
    upstream: Upstream, *, body: bytes = b"{}", budget: AttemptBudget | None = None
) -> Asked:
    """Send a request and wait for the end of its answer."""
    asked = begin(upstream, body=body, budget=budget)
    await asked.over.wait()
    return asked
