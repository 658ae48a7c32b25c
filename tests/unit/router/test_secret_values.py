"""Secrets are given as values or as files, never both, and no error quotes one."""

from pathlib import Path

import pytest

from penumbra.deployments.api.tokens import ControlSettings
from penumbra.deployments.config.store_url import load_with_store
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.secret_values import SecretUnreadable, api_key_of, secret_of
from penumbra.serve.cli.admin_client import AdminError, connect
from penumbra.serve.errors import ConfigurationInvalid
from penumbra.serve.supervisor.child_environment import child_environment
from penumbra.serve.supervisor.folder import StateFolder
from tests.unit.serve.supervisor.test_layout import hosted, layout_of

TOKEN = "a-token-of-the-tests"
CONFIG = """
models:
  demo: {baseline: full, variants: {full: {url: "http://127.0.0.1:1"}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{TOKEN}\n")
    return path


def test_a_secret_is_a_value_or_the_content_of_a_file(file: Path) -> None:
    assert secret_of({"KEY": TOKEN}, "KEY") == TOKEN
    assert secret_of({"KEY_FILE": str(file)}, "KEY") == TOKEN
    assert secret_of({"KEY": "", "KEY_FILE": ""}, "KEY") is None
    assert secret_of({}, "KEY") is None
    assert api_key_of({"KEY_FILE": str(file)}, "KEY") == TOKEN
    assert api_key_of({}, None) is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named_without_its_content(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecretUnreadable, match=f"KEY_FILE: cannot read {path}"):
        secret_of({"KEY_FILE": str(path)}, "KEY")
    assert api_key_of({"KEY_FILE": str(path)}, "KEY") is None


def test_a_value_beside_a_file_is_refused(file: Path) -> None:
    both = {"PENUMBRA_ADMIN_TOKEN": TOKEN, "PENUMBRA_ADMIN_TOKEN_FILE": str(file)}
    with pytest.raises(SecretUnreadable, match="found both") as refused:
        ControlSettings.read(both)
    assert TOKEN not in str(refused.value)
    with pytest.raises(ConfigurationInvalid, match="found both"):
        StateFolder(file.parent).tokens(both)


def test_every_token_may_come_from_a_file(file: Path) -> None:
    names = [name.upper() for name in ControlSettings.model_fields]
    given = ControlSettings.read({f"PENUMBRA_{name}_FILE": str(file) for name in names})
    assert all(getattr(given, name.lower()).get_secret_value() == TOKEN for name in names)


def test_the_stores_url_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    config = tmp_path / "penumbra.yaml"
    config.write_text(CONFIG + "control: {store: 'sqlite:///in-the-file.db'}\n")
    assert load_with_store(config, {}).store_url.endswith("in-the-file.db")
    url = "postgresql+psycopg://op:secret@db/x"
    assert load_with_store(config, {"PENUMBRA_STORE_URL": url}).store_url == url
    secret = tmp_path / "url"
    secret.write_text(f"{url}\n")
    assert load_with_store(config, {"PENUMBRA_STORE_URL_FILE": str(secret)}).store_url == url
    with pytest.raises(ConfigInvalid, match="cannot read"):
        load_with_store(config, {"PENUMBRA_STORE_URL_FILE": str(tmp_path / "none")})


def test_operators_show_the_admin_token_of_a_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENUMBRA_ADMIN_TOKEN", raising=False)
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN_FILE", str(file))
    connect("http://127.0.0.1:1").close()
    monkeypatch.setenv("PENUMBRA_ADMIN_TOKEN_FILE", str(file.with_name("none")))
    with pytest.raises(AdminError, match="cannot read"):
        connect("http://127.0.0.1:1")


def test_the_control_process_alone_gets_the_stores_url_and_each_token_in_one_way(
    tmp_path: Path, file: Path
) -> None:
    own = {
        "PENUMBRA_STORE_URL_FILE": str(file),
        "PENUMBRA_ADMIN_TOKEN_FILE": str(file),
        "PENUMBRA_VIEWER_TOKEN_FILE": str(file),
    }
    layout = layout_of(tmp_path, models=hosted(), environment=own)
    control = layout.control.whole_environment(own)
    assert control["PENUMBRA_ADMIN_TOKEN"] == TOKEN
    assert "PENUMBRA_ADMIN_TOKEN_FILE" not in control or "PENUMBRA_ADMIN_TOKEN" not in control
    assert control["PENUMBRA_STORE_URL_FILE"] == control["PENUMBRA_VIEWER_TOKEN_FILE"] == str(file)
    for program in (*layout.gateways, layout.comparator, layout.fleet):
        if program is not None:
            assert not own.keys() & child_environment(own, program.secrets).keys()
