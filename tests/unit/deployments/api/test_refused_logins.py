"""Refused logins are counted, logged once a minute, and answered ever later."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from penumbra.deployments.api import app as api
from penumbra.deployments.api import refused_logins
from penumbra.deployments.api.refused_logins import Cause, RefusedLogins, Surface, cause_of
from penumbra.deployments.errors import Forbidden, Unauthorized


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def refuse(refused: RefusedLogins, times: int, address: str = "10.0.0.1") -> list[float]:
    return [refused.note(address, Surface.ADMIN, Cause.UNKNOWN_TOKEN) for _ in range(times)]


def test_the_first_ones_are_answered_at_once_and_later_ones_later_up_to_a_bound() -> None:
    seconds = refuse(RefusedLogins(Clock()), 30)
    assert seconds[: refused_logins.FREE] == [0.0] * refused_logins.FREE
    assert seconds == sorted(seconds)
    assert seconds[-1] == refused_logins.MOST_SECONDS


def test_addresses_are_told_apart() -> None:
    refused = RefusedLogins(Clock())
    refuse(refused, 30)
    assert refuse(refused, 1, "10.0.0.2") == [0.0]


def test_refusals_are_forgotten_with_time() -> None:
    clock = Clock()
    refused = RefusedLogins(clock)
    refuse(refused, 30)
    clock.seconds += 30 * refused_logins.FORGET_SECONDS
    assert refuse(refused, 1) == [0.0]


def test_known_token_that_may_not_do_it_is_counted_and_answered_at_once() -> None:
    refused = RefusedLogins(Clock())
    seconds = [refused.note("10.0.0.1", Surface.ALERTS, Cause.NOT_ALLOWED) for _ in range(30)]
    assert set(seconds) == {0.0}
    assert refused.counts["alerts", "not_allowed"] == 30


def test_one_line_a_minute_and_address_says_how_many_there_were(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    refused = RefusedLogins(clock)
    refuse(refused, 10)
    refuse(refused, 1, "10.0.0.2")
    clock.seconds += 61.0
    refuse(refused, 1)
    told = [(each.address, each.refused_before) for each in caplog.records]  # type: ignore[attr-defined]
    assert told == [("10.0.0.1", 0), ("10.0.0.2", 0), ("10.0.0.1", 9)]


def test_ever_new_addresses_are_not_remembered_for_ever() -> None:
    refused = RefusedLogins(Clock())
    for number in range(3000):
        refuse(refused, 1, f"10.0.{number // 250}.{number % 250}" * 20)
    assert len(refused._addresses) <= 1000
    assert max(map(len, refused._addresses)) <= 64


def test_header_without_a_token_is_told_from_a_wrong_one() -> None:
    assert cause_of(None) is cause_of("") is Cause.NO_TOKEN
    assert cause_of("Bearer x") is Cause.UNKNOWN_TOKEN


@pytest.mark.parametrize(
    ("path", "error", "key"),
    [
        ("/admin/v1/flags", Unauthorized("no"), ("admin", "unknown_token")),
        ("/admin/v1/flags", Forbidden("no"), ("admin", "not_allowed")),
        ("/admin/v1/alerts", Unauthorized("no"), ("alerts", "unknown_token")),
    ],
)
def test_refusals_of_the_api_are_counted_where_they_were(
    path: str, error: Exception, key: tuple[str, str]
) -> None:
    refused = RefusedLogins()
    app = FastAPI()
    api.add_error_handlers(app, refused)

    @app.get(path)
    async def fail() -> None:
        raise error

    answer = TestClient(app).get(path, headers={"authorization": "Bearer canary"})
    assert answer.status_code in (401, 403)
    assert {at for at, count in refused.counts.items() if count} == {key}
