import hashlib
import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from penumbra.router.settings import KeySettings
from penumbra.serve.cli.keys import app


def test_a_key_is_shown_once_with_the_entry_of_its_digest() -> None:
    result = CliRunner().invoke(app, ["new", "acme", "--may-pin"])
    assert result.exit_code == 0
    [key] = re.findall(r"pk-[\w-]{43}", result.stdout)
    [entry] = yaml.safe_load(result.stdout[result.stdout.index("keys:") :])["keys"]
    settings = KeySettings.model_validate(entry)
    assert settings.sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert (settings.tenant, settings.may_pin) == ("acme", True)


def test_every_key_is_another_one() -> None:
    keys = {
        json.loads(CliRunner().invoke(app, ["new", "acme", "--json"]).stdout)["key"]
        for _ in range(20)
    }
    assert len(keys) == 20


@pytest.mark.parametrize("tenant", ["", "-x", "a b", "x" * 65])
def test_a_name_that_the_gateway_would_refuse_is_refused_here(tenant: str) -> None:
    result = CliRunner().invoke(app, ["new", "--", tenant])
    assert result.exit_code == 1
    assert "pk-" not in result.output
