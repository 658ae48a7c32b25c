"""Tokens of an issuer: what is checked, and that no one waits for an issuer that is away."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest

from penumbra.deployments.api import issuer_keys
from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.issuer_keys import IssuerKeys
from penumbra.deployments.api.issuer_tokens import IssuerTokens
from penumbra.deployments.api.refused_logins import Cause
from penumbra.deployments.config.spec import OidcSpec
from penumbra.deployments.errors import Forbidden, IssuerUnavailable, Unauthorized
from tests.support.control_plane import START
from tests.support.issuer import AUDIENCE, Issuer

NOW = START.timestamp()
ROLES = {"ops": "operator", "admins": "admin"}


class Gate:
    """The admin API's access with one issuer, whose clocks are set by hand."""

    def __init__(self, **settings: Any) -> None:
        self.issuer = Issuer()
        self.seconds = 0.0
        spec = OidcSpec(
            **{"issuer": self.issuer.url, "audience": AUDIENCE, "roles": ROLES} | settings
        )
        self.client = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda asked: self.issuer.answer(asked.url.path))
        )
        self.keys = IssuerKeys(self.issuer.url, self.client, lambda: self.seconds)
        self.access = Access({Role.ADMIN: "admin-token"}, "g-token")
        self.access.now = lambda: START + timedelta(seconds=self.seconds)
        self.access.issuer = IssuerTokens(spec, self.keys, self.access.now)

    async def enter(self, token: str, least: Role = Role.VIEWER) -> Any:
        await self.access.prepare(f"Bearer {token}")
        return self.access.identify(f"Bearer {token}", "mallory", least)

    async def refused(self, token: str) -> Cause:
        with pytest.raises(Unauthorized):
            await self.enter(token)
        return self.access.cause_of(f"Bearer {token}")


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    await gate.keys.close()
    await gate.client.aclose()


async def test_caller_has_the_role_of_its_claim_and_the_issuers_name(gate: Gate) -> None:
    caller = await gate.enter(gate.issuer.token(NOW), Role.OPERATOR)
    assert caller.role is Role.OPERATOR
    assert caller.actor == caller.identity == "https://login.test/realm alice"
    assert caller.note == "mallory"
    both = gate.issuer.token(NOW, roles=["ops", "admins", "others"])
    assert (await gate.enter(both)).role is Role.ADMIN
    assert gate.access.knows(f"Bearer {both}")


async def test_claims_may_lie_deeper_be_one_text_and_name_the_caller() -> None:
    gate = Gate(role_claim="realm_access/roles", name_claim="email")
    token = gate.issuer.token(NOW, realm_access={"roles": "admins"}, email="zoë@example.org")
    caller = await gate.enter(token)
    assert caller.role is Role.ADMIN
    assert caller.identity == "https://login.test/realm zoë@example.org"


@pytest.mark.parametrize("roles", [None, [], ["others"], "nope", 7, {"ops": 1}, [["ops"]]])
async def test_caller_without_a_role_here_may_nothing(gate: Gate, roles: object) -> None:
    with pytest.raises(Forbidden, match=r"control\.oidc\.roles"):
        await gate.enter(gate.issuer.token(NOW, roles=roles))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://login.test/other"},
        {"aud": "others"},
        {"aud": None},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 600},
        {"nbf": NOW + 31},
        {"nbf": "soon"},
        {"exp": True},
    ],
)
async def test_token_with_wrong_claims_is_refused(gate: Gate, claims: dict[str, Any]) -> None:
    assert await gate.refused(gate.issuer.token(NOW, **claims)) is Cause.UNKNOWN_TOKEN


async def test_token_ends_when_it_says_and_is_counted_as_expired(gate: Gate) -> None:
    token = gate.issuer.token(NOW)
    await gate.enter(token)
    gate.seconds = 3629.0  # 30 s for the difference of two clocks
    await gate.enter(token)
    gate.seconds = 3630.0
    assert await gate.refused(token) is Cause.EXPIRED_TOKEN


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def test_only_a_public_key_of_the_issuer_signs(gate: Gate) -> None:
    genuine = gate.issuer.token(NOW)
    await gate.enter(genuine)
    head, body, signature = genuine.split(".")
    claims = jwt.decode(genuine, options={"verify_signature": False})
    none = f"{part({'alg': 'none', 'kid': 'first'})}.{body}."
    altered = f"{head}.{part({**claims, 'roles': ['admins']})}.{signature}"
    stranger = Issuer()
    foreign = stranger.token(NOW)
    # The public key as the secret of a symmetric signature.
    told = json.dumps(gate.issuer.key_set()[0]).encode()
    start = f"{part({'alg': 'HS256', 'kid': 'first'})}.{body}"
    forged = (
        base64.urlsafe_b64encode(hmac.digest(told, start.encode(), hashlib.sha256))
        .rstrip(b"=")
        .decode()
    )
    for token in (none, altered, foreign, f"{start}.{forged}", f"{head}.{body}.", "a.b.c"):
        assert await gate.refused(token) is Cause.UNKNOWN_TOKEN


async def test_symmetric_and_private_and_unknown_keys_of_a_set_are_left_out(gate: Gate) -> None:
    gate.issuer.more = [
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQAB", "e": "AQAB"},
    ]
    await gate.enter(gate.issuer.token(NOW))
    for key_id in ("shared", "broken", "for-encryption"):
        assert gate.keys.find(key_id) is None


async def test_new_key_is_fetched_when_a_token_needs_it_and_invented_ones_cause_few_fetches(
    gate: Gate,
) -> None:
    await gate.enter(gate.issuer.token(NOW))
    assert gate.issuer.fetches == 2  # where the keys are, and the keys
    gate.issuer.add_key("second", is_elliptic=True)
    gate.seconds = 11.0
    await gate.enter(gate.issuer.token(NOW, "second"))
    assert gate.issuer.fetches == 4
    stranger = Issuer()
    for number in range(50):
        stranger.add_key(f"{number}", is_elliptic=True)
        assert await gate.refused(stranger.token(NOW, f"{number}")) is Cause.UNKNOWN_TOKEN
    assert gate.issuer.fetches == 4


async def test_withdrawn_key_opens_nothing_once_the_keys_are_read_again(gate: Gate) -> None:
    token = gate.issuer.token(NOW)
    await gate.enter(token)
    gate.issuer.add_key("second", is_elliptic=True)
    del gate.issuer.keys["first"]
    gate.seconds = 301.0
    await gate.enter(token)  # not held up: the keys are read beside it
    await asyncio.sleep(0.01)
    assert await gate.refused(token) is Cause.UNKNOWN_TOKEN


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://127.0.0.1/"}),
        httpx.Response(200, content=b"{"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"issuer": "https://login.test/other", "jwks_uri": "x"}),
        httpx.Response(
            200, json={"issuer": "https://login.test/realm", "jwks_uri": "http://login.test/keys"}
        ),
        httpx.Response(200, content=b" " * (1024 * 1024 + 1)),
    ],
)
async def test_token_that_needs_keys_of_a_broken_issuer_is_a_503(
    gate: Gate, answer: httpx.Response, caplog: pytest.LogCaptureFixture
) -> None:
    gate.issuer.problem = lambda: httpx.Response(
        answer.status_code, headers=dict(answer.headers), content=answer.content
    )
    token = gate.issuer.token(NOW)
    for _ in range(3):
        with pytest.raises(IssuerUnavailable, match=r"keys of https://login\.test/realm"):
            await gate.enter(token)
    assert gate.issuer.fetches == 1
    assert [each.msg for each in caplog.records] == ["issuer_unavailable"]
    assert gate.access.identify("Bearer admin-token", None, Role.ADMIN)


async def test_silent_issuer_holds_up_tokens_that_need_it_for_a_while_and_no_other(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_SECONDS", 0.05)
    known = gate.issuer.token(NOW)
    await gate.enter(known)

    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError(request)

    gate.keys._client = httpx.AsyncClient(transport=httpx.MockTransport(never))
    gate.issuer.add_key("second", is_elliptic=True)
    gate.seconds = 301.0
    async with asyncio.timeout(10):
        waiting = [
            asyncio.create_task(gate.enter(gate.issuer.token(NOW, "second"))) for _ in range(5)
        ]
        await asyncio.sleep(0)
        assert (await gate.enter(known)).role is Role.OPERATOR
        assert (await gate.enter("admin-token")).role is Role.ADMIN
        assert not any(task.done() for task in waiting)
        for task in waiting:
            with pytest.raises(IssuerUnavailable, match="no answer within"):
                await task


async def test_keys_of_an_issuer_that_stays_away_are_used_for_a_day(gate: Gate) -> None:
    token = gate.issuer.token(NOW, exp=NOW + 10**6)
    await gate.enter(token)
    gate.issuer.problem = lambda: httpx.Response(500)
    gate.seconds = 86_400.0
    await gate.enter(token)
    await asyncio.sleep(0.01)
    gate.seconds = 86_420.0
    with pytest.raises(IssuerUnavailable):
        await gate.enter(token)


@pytest.mark.parametrize(
    "issuer", ["http://login.test", "login.test", "https://a:b@login.test", "https://x.test?a=b"]
)
def test_issuer_is_an_address_of_https(issuer: str) -> None:
    with pytest.raises(ValueError, match="wanted https://HOST"):
        OidcSpec(issuer=issuer, audience="a", roles={"ops": "operator"})
