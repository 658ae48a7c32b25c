"""Bodies that slice rules cannot read, while a slice is kept on the baseline."""

from typing import Any

import pytest

from tests.integration.gateway.conftest import EPOCH, FULL, model
from tests.support.behaviours import respond
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

SLICES = [
    {"name": "greek", "match": {"scripts": ["greek"]}},
    {"name": "json", "match": {"json_mode": True}},
]
GREEK = '"messages":[{"role":"user","content":"Γειά"}]'.encode()
UNREADABLE = {
    "number": b'"messages":[{"role":"user","content":[{"type":"text","text":"'
    + "Γειά".encode()
    + b'","at":1e999}]}]',
    "digits": GREEK + b',"tools":[{"a":' + b"9" * 5_000 + b"}]",
    "nesting": GREEK + b',"response_format":' + b'{"a":' * 600 + b"1" + b"}" * 600,
    "elsewhere": GREEK + b',"tools":[-1e400]',
}


@pytest.fixture(scope="module")
def settings(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    live = {"split": {"int8": 100}}
    models = {
        "demo": model(full, int8, slices=SLICES, flag={**live, "quarantined": ["greek"]}),
        "free": model(full, int8, slices=SLICES, flag=live),
    }
    return {"snapshot": {"epoch": EPOCH, "models": models}}


@pytest.fixture(autouse=True)
def _answers(full: ScriptedUpstream, int8: ScriptedUpstream) -> None:
    for upstream in (full, int8):  # whatever the body holds
        upstream.always(respond(200, FULL.answer(CHAT, chat())))


def decided(
    gateway: GatewayProcess, name: str, fields: bytes, headers: dict[str, str]
) -> tuple[str | None, str | None]:
    response = gateway.post(CHAT, b'{"model":"%b",%b}' % (name.encode(), fields), headers)
    return response.header("x-penumbra-variant"), response.header("x-penumbra-reason")


@pytest.mark.parametrize("named", [None, "json", "other", "nosuch"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_body_that_no_rule_can_read_stays_on_the_baseline_while_a_slice_is_in_quarantine(
    kind: str, named: str | None, gateway: GatewayProcess
) -> None:
    headers = {} if named is None else {"x-penumbra-slice": named}
    fields = UNREADABLE[kind]
    assert decided(gateway, "demo", fields, headers) == ("full", "QUARANTINE")
    assert decided(gateway, "free", fields, headers) == ("int8", "SPLIT")


def test_a_body_that_can_be_read_is_in_its_own_slice(gateway: GatewayProcess) -> None:
    english = b'"messages":[{"role":"user","content":"Hello"}]'
    assert decided(gateway, "demo", english, {}) == ("int8", "SPLIT")
    assert decided(gateway, "demo", GREEK, {}) == ("full", "QUARANTINE")
