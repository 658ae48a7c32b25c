"""A gateway over two scripted engines, as the suites of the OpenAI clients want it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.behaviours import engine
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess, free_port, key_settings
from tests.support.openai_endpoint import Endpoint
from tests.support.scripted_upstream import ScriptedUpstream

KEY = "sk-of-the-tests"
INT8 = Engine("int8")
PINNED = {"x-penumbra-variant": "int8"}
"""Headers of a request that the candidate is to answer."""
DOWN = "down"
"""A model whose only engine does not run."""


@contextmanager
def scripted_candidate() -> Iterator[ScriptedUpstream]:
    """The candidate `int8`, which says what the baseline says until a test scripts it."""
    upstream = ScriptedUpstream("int8", engine(INT8))
    upstream.start()
    try:
        yield upstream
    finally:
        upstream.stop()


@contextmanager
def scripted_endpoint(int8: ScriptedUpstream, folder: Path) -> Iterator[Endpoint]:
    """A gateway with the candidate at half the traffic, and a key that may pin."""
    with ExitStack() as stack:
        full = ScriptedUpstream("full", engine(Engine("full")))
        full.start()
        stack.callback(full.stop)
        demo = {
            "baseline": "full",
            "variants": {"full": {"url": full.url}, "int8": {"url": int8.url}},
            "flag": {"split": {"int8": 50}},
        }
        down = {
            "baseline": "full",
            "variants": {"full": {"url": f"http://127.0.0.1:{free_port()}"}},
        }
        settings = {
            "keys": [key_settings("acme", KEY, may_pin=True)],
            "snapshot": {"epoch": 1, "models": {"demo": demo, DOWN: down}},
        }
        process = stack.enter_context(GatewayProcess(settings, folder))
        yield Endpoint(f"http://127.0.0.1:{process.port}/v1", "demo", KEY)
