"""Base URLs of variants."""

import pytest

from penumbra.router.upstream.base_url import BaseUrl, read_base_url, root_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://far", (False, "far", 80, "far", "")),
        ("https://far", (True, "far", 443, "far", "")),
        ("HTTPS://Far:8443", (True, "far", 8443, "Far:8443", "")),
        ("http://far:8000/", (False, "far", 8000, "far:8000", "")),
        ("http://far/demo-int8", (False, "far", 80, "far", "/demo-int8")),
        ("http://far/v1", (False, "far", 80, "far", "")),
        ("http://far/v1/", (False, "far", 80, "far", "")),
        ("https://far/a/b/v1", (True, "far", 443, "far", "/a/b")),
        ("http://far/av1", (False, "far", 80, "far", "/av1")),
        ("http://far/v1/models-of-mine", (False, "far", 80, "far", "/v1/models-of-mine")),
        ("http://[::1]:8000", (False, "::1", 8000, "[::1]:8000", "")),
        ("https://[2001:db8::7]/v1", (True, "2001:db8::7", 443, "[2001:db8::7]", "")),
        ("http://far:", (False, "far", 80, "far", "")),
    ],
)
def test_a_base_url_is_taken_apart(url: str, parts: tuple[bool, str, int, str, str]) -> None:
    assert read_base_url(url) == BaseUrl(*parts)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://far:8000/full", "http://far:8000/full"),
        ("http://far:8000/full/v1/", "http://far:8000/full"),
        ("https://[::1]:1/v1", "https://[::1]:1"),
    ],
)
def test_the_routes_are_appended_to_the_root(url: str, root: str) -> None:
    assert root_url(url) == root


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", 'found "", wanted http://HOST'),
        ("far:8000", 'found "far:8000", wanted http://HOST'),
        ("ftp://far", "wanted http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"),
        ("http://", "wanted http://HOST"),
        ("http:///v1", "wanted http://HOST"),
        ("http://[::1", "wanted http://HOST"),
        ("http://far:port", "wanted http://HOST"),
        ("http://far:70000", "wanted http://HOST"),
        ("http://far:0", "wanted a port from 1 to 65535"),
        ("http://far/a b", "wanted http://HOST"),
        ("http://far/\r\nx: y", "wanted http://HOST"),
        ("http://fär", "wanted http://HOST"),
        ("http://far/?key=1", "found a query or a fragment"),
        ("http://far/#x", "found a query or a fragment"),
        ("http://far?", "found a query or a fragment"),
        ("http://far/v1/chat/completions", "wanted the URL without /v1/chat/completions"),
        ("https://far/x/v1/completions/", "wanted the URL without /v1/completions"),
    ],
)
def test_anything_else_is_refused_and_says_why(url: str, words: str) -> None:
    with pytest.raises(ValueError, match="found") as caught:
        read_base_url(url)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://me:secret@far/v1", "http://me:secret@far:port", "me:secret@far", "//me:secret@far/"],
)
def test_credentials_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="found") as caught:
        read_base_url(url)
    assert "secret" not in str(caught.value)


def test_credentials_belong_into_the_environment() -> None:
    with pytest.raises(ValueError, match="api_key_env"):
        read_base_url("https://me@far")
