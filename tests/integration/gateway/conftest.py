"""One real gateway process for each test module, in front of two scripted builds.

A module that needs other settings overrides `limits`, `keys`, `models` or `environment`.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.behaviours import engine
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT, COMPLETIONS
from tests.support.scripted_upstream import ScriptedUpstream

EPOCH = 7
FULL = Engine("full", created=1_700_000_001)
INT8 = Engine("int8", created=1_700_000_002)
FAILOVER_LIMITS = {
    "candidate_first_byte_seconds": 0.4,
    "whole_answer_seconds": 0.6,
    "idle_seconds": 0.5,
    "connect_seconds": 0.5,
}
"""For modules whose candidates hang: a gateway that soon gives them up."""


@pytest.fixture(params=[CHAT, COMPLETIONS])
def path(request: pytest.FixtureRequest) -> str:
    """Each hot route."""
    return str(request.param)


@pytest.fixture(scope="module")
def full() -> Iterator[ScriptedUpstream]:
    """The baseline."""
    yield from _running(ScriptedUpstream("full", engine(FULL)))


@pytest.fixture(scope="module")
def int8() -> Iterator[ScriptedUpstream]:
    """The candidate."""
    yield from _running(ScriptedUpstream("int8", engine(INT8)))


def _running(upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture(autouse=True)
def _fresh_scripts(full: ScriptedUpstream, int8: ScriptedUpstream) -> Iterator[None]:
    yield
    full.reset()
    int8.reset()


@pytest.fixture(scope="module")
def limits() -> dict[str, Any]:
    """`GatewaySettings.limits`."""
    return {}


@pytest.fixture(scope="module")
def keys() -> list[dict[str, Any]]:
    """`GatewaySettings.keys`."""
    return []


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """More environment variables of the gateway."""
    return {}


@pytest.fixture(scope="module")
def models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    """`demo` answers with the baseline, `demo-candidate` with the candidate."""
    return {
        "demo": model(full, int8),
        "demo-candidate": model(full, int8, flag={"split": {"int8": 100}}),
    }


def model(full: ScriptedUpstream, int8: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    """A model of two builds."""
    variants = {"full": {"url": full.url}, "int8": {"url": int8.url}}
    return {"baseline": "full", "variants": variants, **more}


@pytest.fixture(scope="module")
def settings(
    models: dict[str, Any], limits: dict[str, Any], keys: list[dict[str, Any]]
) -> dict[str, Any]:
    """`GatewaySettings`, without ports."""
    snapshot = {"epoch": EPOCH, "models": models}
    return {"snapshot": snapshot, "limits": limits, "keys": keys}


@pytest.fixture(scope="module")
def gateway(
    settings: dict[str, Any],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    """The gateway under test; it must outlive every test of its module."""
    folder = tmp_path_factory.mktemp("gateway")
    with GatewayProcess(settings, folder, environment) as process:
        yield process
        assert process.is_running, process.log_text()[-2000:]


def failover_models(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    """A candidate with all of the traffic, and the same model at addresses with a path."""
    split = {"split": {"int8": 100}}
    prefixed = {
        "baseline": "full",
        "variants": {
            "full": {"url": f"{full.url}/demo-full"},
            "int8": {"url": f"{int8.url}/demo-int8"},
        },
        "flag": split,
    }
    return {"demo": model(full, int8, flag=split), "prefixed": prefixed}
