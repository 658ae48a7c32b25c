import pytest
from pydantic import ValidationError

from penumbra.deployments.api.access import Access, Role
from penumbra.deployments.api.tokens import ControlSettings
from penumbra.deployments.errors import Forbidden, RequestInvalid, Unauthorized

ACCESS = Access({Role.VIEWER: "v-token", Role.ADMIN: "a-token"}, "g-token")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer x", "Basic a-token", "a-token", "Bearer g-token"],
)
def test_an_unknown_token_is_refused(authorization: str | None) -> None:
    with pytest.raises(Unauthorized):
        ACCESS.identify(authorization, None, Role.VIEWER)


def test_a_role_may_do_what_the_roles_below_it_may() -> None:
    assert ACCESS.identify("Bearer a-token", None, Role.VIEWER).role is Role.ADMIN
    with pytest.raises(Forbidden, match="found the role viewer, wanted operator"):
        ACCESS.identify("bearer v-token", None, Role.OPERATOR)


def test_a_token_of_two_roles_has_the_higher_one() -> None:
    both = Access({Role.VIEWER: "same", Role.ADMIN: "same"}, "g")
    assert both.identify("Bearer same", None, Role.ADMIN).role is Role.ADMIN


@pytest.mark.parametrize(
    ("actor", "expected"), [(None, "admin"), ("", "admin"), (" Ann Lee ", "Ann Lee")]
)
def test_the_actor_is_the_given_name_or_the_role(actor: str | None, expected: str) -> None:
    assert ACCESS.identify("Bearer a-token", actor, Role.ADMIN).actor == expected


@pytest.mark.parametrize(
    "actor", [" ", "x" * 129, "a\tb", "guard", "alertmanager", "configuration"]
)
def test_an_actor_has_a_printable_name_of_its_own(actor: str) -> None:
    with pytest.raises(RequestInvalid):
        ACCESS.identify("Bearer a-token", actor, Role.ADMIN)


def test_gateways_have_a_token_of_their_own() -> None:
    assert ACCESS.is_gateway("Bearer g-token")
    assert not ACCESS.is_gateway("Bearer a-token")
    assert not ACCESS.is_gateway(None)


def test_alertmanager_has_a_token_of_its_own() -> None:
    access = Access({Role.ADMIN: "a-token"}, "g-token", "w-token")
    access.require_alerts("Bearer w-token")
    access.require_alerts("Bearer a-token")
    for wrong in ("Bearer g-token", "Bearer ", None):
        with pytest.raises(Unauthorized):
            access.require_alerts(wrong)
    with pytest.raises(Unauthorized):
        access.identify("Bearer w-token", None, Role.VIEWER)
    with pytest.raises(Forbidden):
        ACCESS.require_alerts("Bearer a-token")  # there is no webhook


def test_an_empty_token_is_never_right() -> None:
    assert not Access({}, "").is_gateway("Bearer x")
    assert not Access({}, "").is_gateway("Bearer ")
    assert not Access({}, "").is_comparator(None)
    assert not Access({}, "").knows("Bearer ")


def test_comparators_have_a_token_of_their_own_where_one_is_given() -> None:
    shared, apart = Access({}, "g-token"), Access({}, "g-token", None, "c-token")
    assert shared.is_comparator("Bearer g-token")
    assert apart.is_comparator("Bearer c-token")
    assert not apart.is_comparator("Bearer g-token")
    assert not apart.is_gateway("Bearer c-token")


def test_any_token_of_the_process_is_known() -> None:
    access = Access({Role.VIEWER: "v-token"}, "g-token", "w-token", "c-token")
    known = [token for token in "vgwcx" if access.knows(f"Bearer {token}-token")]
    assert known == ["v", "g", "w", "c"]
    assert not access.knows(None)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN", "a" * 16)
    monkeypatch.setenv("PENUMBRA_GATEWAY_TOKEN", "g" * 16)
    monkeypatch.delenv("PENUMBRA_OPERATOR_TOKEN", raising=False)
    monkeypatch.setenv("PENUMBRA_VIEWER_TOKEN", "v" * 16)
    settings = ControlSettings()
    assert settings.access().identify(f"Bearer {'v' * 16}", None, Role.VIEWER).role is Role.VIEWER
    assert "a" * 16 not in repr(settings)


def test_a_short_or_missing_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN", "short")
    monkeypatch.delenv("PENUMBRA_GATEWAY_TOKEN", raising=False)
    with pytest.raises(ValidationError) as caught:
        ControlSettings()
    assert {error["loc"][0] for error in caught.value.errors()} == {"admin_token", "gateway_token"}
