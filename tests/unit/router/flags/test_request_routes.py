import pytest

from penumbra.router.flags.request_routes import ROUTE_NAMES, route_of
from penumbra.router.gateway.hot_routes import HOT_PATHS


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"/v1/chat/completions", "chat"),
        (b"/v1/responses?trace=1", "responses"),
        (b"/v1/messages", "messages"),
        (b"/score", "score"),
        (b"/v1/score", "score"),
        (b"/v1/nosuch", "other"),
        (b"/v1/chat/completions/", "other"),
    ],
)
def test_a_route_has_one_name(target: bytes, name: str) -> None:
    assert route_of(target) == name


def test_every_hot_path_has_a_name() -> None:
    assert {route_of(path) for path in HOT_PATHS} == set(ROUTE_NAMES)
