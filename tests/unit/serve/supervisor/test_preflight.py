"""One port that is asked for twice is refused before anything starts."""

from typing import Any

import pytest

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.errors import ConfigurationInvalid
from penumbra.serve.supervisor.preflight import check

MODELS = {"demo": {"baseline": "full", "variants": {"full": {"url": "http://far"}}}}


def spec(**settings: Any) -> PenumbraSpec:
    return PenumbraSpec.model_validate({"models": MODELS, **settings})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"gateway": {"port": 8090}},
            "control.port: found 8090, the port of gateway.port as well, wanted another one",
        ),
        (
            {"gateway": {"internal_port": 8089, "processes": 3}},
            "control.port: found 8090, the port of gateway.internal_port + 1 as well",
        ),
        (
            {"shadow": {"internal_port": 8100}},
            "shadow.internal_port: found 8100, the port of gateway.internal_port as well",
        ),
        (
            {"control": {"host": "0.0.0.0", "port": 8080}},  # noqa: S104
            "control.port: found 8080, the port of gateway.port as well",
        ),
    ],
)
def test_a_port_clash_inside_the_file_is_named(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        check(spec(**settings))
    assert problem in caught.value.message


def test_one_port_at_two_addresses_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[tuple[str, int]] = []
    monkeypatch.setattr(
        "penumbra.serve.supervisor.preflight._obstacle",
        lambda host, port: bound.append((host, port)),
    )
    check(spec(control={"host": "127.0.0.2", "port": 8080}))
    assert {("127.0.0.1", 8080), ("127.0.0.2", 8080)} <= set(bound)
