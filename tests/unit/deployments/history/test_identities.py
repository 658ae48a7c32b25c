import hashlib
from datetime import timedelta

import pytest

from penumbra.deployments.errors import Conflict, NotFound, RequestInvalid
from penumbra.deployments.history import access_edits
from penumbra.deployments.history.identities import (
    MOST_IDENTITIES,
    AccessPayload,
    Identities,
    TokenStatus,
)
from tests.support.control_plane import START

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def added(name: str = "alice", number: str = "1", lifetime: timedelta | None = None) -> Identities:
    payload = access_edits.add(Identities(), name, "operator", digest(number), lifetime, START)
    return Identities().after(payload)


def rotated(
    known: Identities, token: str, grace: timedelta = DAY, at: timedelta = HOUR
) -> Identities:
    return known.after(access_edits.rotate(known, "alice", digest(token), grace, None, START + at))


def statuses(known: Identities, tokens: str, at: timedelta) -> list[TokenStatus]:
    return [known.look_up(digest(token), START + at)[0] for token in tokens]


VALID, EXPIRED, REVOKED, UNKNOWN = TokenStatus


def test_token_is_valid_until_its_end_exactly() -> None:
    known = added(lifetime=HOUR)
    assert statuses(known, "1", HOUR - timedelta(microseconds=1)) == [VALID]
    assert statuses(known, "1", HOUR) == [EXPIRED]
    assert statuses(known, "2", HOUR) == [UNKNOWN]


def test_two_tokens_are_valid_for_the_grace_time_then_the_newer_one_alone() -> None:
    known = rotated(added(), "2")
    assert statuses(known, "12", HOUR + DAY - timedelta(seconds=1)) == [VALID, VALID]
    assert statuses(known, "12", HOUR + DAY) == [EXPIRED, VALID]


def test_third_token_ends_the_first_at_once() -> None:
    known = rotated(rotated(added(), "2"), "3", at=2 * HOUR)
    assert statuses(known, "123", 3 * HOUR) == [REVOKED, VALID, VALID]


def test_no_grace_ends_the_token_of_before_at_once() -> None:
    assert statuses(rotated(added(), "2", timedelta(0)), "12", HOUR) == [REVOKED, VALID]


def test_grace_does_not_lengthen_a_token_and_the_new_one_lasts_as_long_as_it() -> None:
    known = rotated(added(lifetime=2 * HOUR), "2")
    assert statuses(known, "12", 2 * HOUR) == [EXPIRED, VALID]
    assert statuses(known, "12", 3 * HOUR) == [EXPIRED, EXPIRED]


def test_revoked_identity_opens_nothing_and_its_tokens_are_told_from_unknown_ones() -> None:
    known = rotated(added(), "2")
    known = known.after(access_edits.revoke(known, "alice"))
    assert statuses(known, "123", HOUR) == [REVOKED, REVOKED, UNKNOWN]
    again = known.after(access_edits.add(known, "alice", "viewer", digest("4"), None, START))
    assert statuses(again, "1234", HOUR) == [REVOKED, REVOKED, UNKNOWN, VALID]


def test_latest_thousand_revoked_tokens_are_remembered() -> None:
    known = added()
    for number in range(1100):
        known = rotated(known, f"n{number}", timedelta(0))
    assert len(known.revoked) == 1000
    assert known.look_up(digest("n1098"), START)[0] is REVOKED
    assert known.look_up(digest("n1099"), START)[0] is VALID


@pytest.mark.parametrize("name", ["Zoë", "山田", "Ann Lee", "ci@example.org", "x" * 128])
def test_names_of_all_scripts_are_names(name: str) -> None:
    assert [*added(name).by_name] == [name]


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a\n",
        "a/b",
        ".",
        "..",
        "x" * 129,
        "guard",
        "ＧＵＡＲＤ",
        "Admin",
        "operator",
        "\ud800",
    ],
)
def test_what_stands_for_no_person_or_tool_is_no_name(name: str) -> None:
    with pytest.raises(RequestInvalid):
        added(name)


def test_name_that_looks_like_another_is_refused() -> None:
    with pytest.raises(Conflict, match="alice"):
        access_edits.add(added(), "ＡLICE", "viewer", digest("2"), None, START)


def test_identities_are_bounded() -> None:
    known = Identities(by_name={str(n): added().by_name["alice"] for n in range(MOST_IDENTITIES)})
    with pytest.raises(Conflict, match="at most 1000"):
        access_edits.add(known, "more", "viewer", digest("2"), None, START)


def test_change_of_an_unknown_identity_is_refused() -> None:
    with pytest.raises(NotFound):
        access_edits.revoke(added(), "bob")
    with pytest.raises(NotFound):
        access_edits.rotate(added(), "bob", digest("2"), DAY, None, START)


def test_change_that_does_not_follow_is_not_folded() -> None:
    known = added()
    with pytest.raises(ValueError, match="not as this change found it"):
        known.after(AccessPayload(before=None, after=known.by_name["alice"]))
    with pytest.raises(ValueError, match="not as this change found it"):
        known.after(AccessPayload(before=None, after=None))
