"""Request targets: the path of each form that this server may be asked in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.errors import BadRequest
from penumbra.router.gateway.head_checks import origin_form

HOSTS = st.sampled_from([b"a", b"a.test", b"A.test", b"127.0.0.1", b"[::1]", b"[2001:db8::1]"])
PORTS = st.sampled_from([b"", b":", b":80", b":443", b":8080"])


def port_of(scheme: bytes, port: bytes) -> bytes:
    return port[1:] or {b"http": b"80", b"https": b"443"}[scheme]


@pytest.mark.parametrize("target", [b"/", b"/a?b", b"//a", b"/a:b@c", b"/http://a"])
def test_a_path_is_itself(target: bytes) -> None:
    assert origin_form(target, b"any") == target


@pytest.mark.parametrize(
    ("rest", "path"),
    [(b"", b"/"), (b"/", b"/"), (b"/a/b?c=/d", b"/a/b?c=/d"), (b"?c", b"/?c"), (b"?c/d", b"/?c/d")],
)
def test_the_path_of_a_url_is_what_follows_its_server(rest: bytes, path: bytes) -> None:
    assert origin_form(b"http://a.test" + rest, b"a.test") == path


@given(HOSTS, HOSTS, PORTS, PORTS, st.sampled_from([b"http", b"https"]))
def test_a_url_is_taken_only_if_it_names_the_server_of_the_host_header(
    named: bytes, host: bytes, named_port: bytes, host_port: bytes, scheme: bytes
) -> None:
    is_same = named.lower() == host.lower()
    is_same &= port_of(scheme, named_port) == port_of(scheme, host_port)
    target = b"%b://%b%b/v1" % (scheme, named, named_port)
    if is_same:
        assert origin_form(target, host + host_port) == b"/v1"
    else:
        with pytest.raises(BadRequest):
            origin_form(target, host + host_port)


@pytest.mark.parametrize(
    "target",
    [b"*", b"a.test:80", b"ftp://a/v1", b"http:/v1", b"http:///v1", b"http://u@a/v1", b"/v1#x",
     b"http://a/v1#x", b"", b"://a/v1", b"http//a/v1"],
)  # fmt: skip
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(BadRequest):
        origin_form(target, b"a")
    with pytest.raises(BadRequest):
        origin_form(target, None)
