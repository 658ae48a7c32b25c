"""Stickiness: the same user, session, conversation or stored response stays on its build."""

import itertools
import json
from typing import Any

import pytest

from tests.integration.gateway.conftest import EPOCH, model
from tests.support.gateway_process import GatewayProcess
from tests.support.raw_client import RawResponse
from tests.support.requests import CHAT, COMPLETIONS, RESPONSES, dumps
from tests.support.scripted_upstream import ScriptedUpstream

USERS = [f"Zoë-{number}" for number in range(24)]
CONVERSATIONS = 16
PINNED = {"kind": "key", "subject": "Jürgen", "variant": "int8"}


@pytest.fixture(scope="module")
def settings(full: ScriptedUpstream, int8: ScriptedUpstream) -> dict[str, Any]:
    split = {"split": {"int8": 50}, "pins": [PINNED]}
    sticky = {"sticky_headers": ["x-openwebui-user-id"]}
    models = {
        "demo": model(full, int8, flag=split, **sticky),
        "killed": model(full, int8, flag={**split, "killed": True}),
        "blocked": model(full, int8, flag={**split, "blocked": ["int8"]}),
    }
    return {"snapshot": {"epoch": EPOCH, "models": models}}


def variant_of(response: RawResponse) -> str:
    assert response.status == 200
    return response.header("x-penumbra-variant") or ""


def said(text: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": text}


def test_a_user_has_one_variant_wherever_a_request_names_it(gateway: GatewayProcess) -> None:
    found = set()
    for user in USERS:
        in_header = user.encode().decode("latin-1")  # as bytes: UTF-8
        ways: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({}, {"x-user-id": in_header}),
            ({"user": user}, {}),
            ({"safety_identifier": user}, {}),
            ({"metadata": {"user_id": user}}, {}),
            ({}, {"X-OpenWebUI-User-Id": in_header}),
            ({}, {"x-session-id": in_header}),
            ({"user": user, "metadata": {"user_id": "else"}}, {"x-session-id": "else"}),
        ]
        variants = {
            variant_of(
                gateway.post(CHAT, {"model": "demo", "messages": [said(f"{n}")], **fields}, headers)
            )
            for n, (fields, headers) in enumerate(ways)
        }
        assert len(variants) == 1, user
        found |= variants
    assert found == {"full", "int8"}


@pytest.mark.parametrize("is_in_header", [True, False])
def test_a_pin_holds_for_a_user_by_header_and_by_body(
    is_in_header: bool, gateway: GatewayProcess
) -> None:
    name = PINNED["subject"]
    body = {"model": "demo", "messages": [said("hi")], **({} if is_in_header else {"user": name})}
    headers = {"x-user-id": name.encode().decode("latin-1")} if is_in_header else {}
    response = gateway.post(CHAT, body, headers)
    assert (variant_of(response), response.header("x-penumbra-reason")) == ("int8", "PIN")


def test_a_header_in_latin_1_is_read_as_that(gateway: GatewayProcess) -> None:
    body = {"model": "demo", "messages": [said("hi")]}
    response = gateway.post(CHAT, body, {"x-user-id": "Jürgen"})
    assert response.header("x-penumbra-reason") == "PIN"


def test_a_chat_stays_on_its_build_over_its_turns(gateway: GatewayProcess) -> None:
    found = []
    for number in range(CONVERSATIONS):
        turns = [said("Be brief.", "system"), said(f"question {number}")]
        variants = set()
        for turn in range(4):
            # As a client may send it again later, in another spelling.
            body = json.dumps({"model": "demo", "messages": turns}, indent=turn or None).encode()
            variants.add(variant_of(gateway.post(CHAT, body)))
            turns += [said(f"answer {turn}", "assistant"), said(f"and {turn}? " * 5_000)]
        assert len(variants) == 1
        found += variants
    assert set(found) == {"full", "int8"}


def test_prompts_without_a_conversation_are_split_each_by_itself(gateway: GatewayProcess) -> None:
    bodies = [{"model": "demo", "prompt": f"prompt {number}"} for number in range(CONVERSATIONS)]
    first = [variant_of(gateway.post(COMPLETIONS, body)) for body in bodies]
    assert set(first) == {"full", "int8"}
    assert first == [variant_of(gateway.post(COMPLETIONS, body)) for body in bodies]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_follow_up_goes_to_the_build_that_holds_its_history(
    is_stream: bool, gateway: GatewayProcess
) -> None:
    found = set()
    for number in range(CONVERSATIONS):
        body = {"model": "demo", "input": f"question {number}", "stream": is_stream}
        first = gateway.post(RESPONSES, body)
        asked = {**body, "input": f"and {number}?", "previous_response_id": id_of(first)}
        assert variant_of(gateway.post(RESPONSES, asked)) == variant_of(first)
        found.add(variant_of(first))
    assert found == {"full", "int8"}


def id_of(response: RawResponse) -> str:
    """The id of a response, whole or from the first event of its stream."""
    data = response.body
    if not data.startswith(b"{"):
        [line] = [each for each in response.events[0].splitlines() if each.startswith(b"data:")]
        data = line[5:]
    told = json.loads(data)
    found: str = told.get("response", told)["id"]
    return found


def test_a_follow_up_of_a_build_out_of_service_is_decided_as_any_other(
    gateway: GatewayProcess,
) -> None:
    previous = {}
    for number in itertools.count():
        first = gateway.post(RESPONSES, {"model": "demo", "input": f"question {number}"})
        previous.setdefault(variant_of(first), id_of(first))
        if len(previous) == 2:
            break
    for name in ("killed", "blocked"):
        body = {"model": name, "input": "and?", "previous_response_id": previous["int8"]}
        assert variant_of(gateway.post(RESPONSES, body)) == "full"


@pytest.mark.parametrize("previous", ["resp_of_another_server", "", 7, None, ["a"], "ρ" * 300])
def test_a_follow_up_of_an_unknown_response_is_decided_as_any_other(
    previous: Any, gateway: GatewayProcess
) -> None:
    body = {"model": "demo", "input": "and?", "previous_response_id": previous}
    assert gateway.post(RESPONSES, dumps(body)).status == 200
