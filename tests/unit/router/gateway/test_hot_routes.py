"""Hot paths of request targets, and the credentials of a request."""

import pytest

from penumbra.router.gateway.hot_routes import HOT_PATHS, credentials, hot_path, without_slash

CHAT = b"/v1/chat/completions"


@pytest.mark.parametrize("path", sorted(HOT_PATHS))
def test_a_hot_path_is_found_with_query_and_with_a_slash_behind(path: bytes) -> None:
    assert hot_path(path) == path
    assert hot_path(path + b"/") == path
    assert hot_path(path + b"?a=/b/") == path + b"?a=/b/"
    assert hot_path(path + b"/?a") == path + b"?a"


@pytest.mark.parametrize(
    "target", [b"/", b"", b"/v1", CHAT + b"//", b"/" + CHAT, CHAT.upper(), CHAT + b"x", b"?" + CHAT]
)
def test_other_paths_are_not_hot(target: bytes) -> None:
    assert hot_path(target) is None


@pytest.mark.parametrize(
    ("target", "left"),
    [(b"/", b"/"), (b"/a/", b"/a"), (b"/a//", b"/a/"), (b"/?a/", b"/?a/"), (b"/a/?b/", b"/a?b/")],
)
def test_one_slash_behind_a_path_is_left_out(target: bytes, left: bytes) -> None:
    assert without_slash(target) == left


BEARER, KEY = {b"authorization": b"Bearer a"}, {b"x-api-key": b"b"}


@pytest.mark.parametrize(
    ("path", "headers", "found"),
    [
        (CHAT, BEARER, b"Bearer a"),
        (CHAT, KEY, None),
        (CHAT, {}, None),
        (b"/v1/messages", KEY, b"Bearer b"),
        (b"/v1/messages/count_tokens?x", KEY, b"Bearer b"),
        (b"/v1/messages", {**BEARER, **KEY}, b"Bearer a"),
        (b"/v1/messages", {}, None),
    ],
)
def test_credentials_of_anthropics_api_may_be_in_its_own_header(
    path: bytes, headers: dict[bytes, bytes], found: bytes | None
) -> None:
    assert credentials(path, headers) == found
