"""Credentials of links: each kind of process opens its own link only, in the real process."""

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from penumbra.router.link.messages import COMPARATOR_PATH, PATH
from tests.support.control_process import ADMIN, ALERT, GATEWAY, ControlProcess

COMPARATOR = "comparator-token-of-the-tests"


def statuses(control: ControlProcess, *tokens: str) -> dict[tuple[str, str], int]:
    return {(path, each): status(control, path, each) for path in PATHS for each in tokens}


PATHS = {"gateway": PATH, "comparator": COMPARATOR_PATH}


def status(control: ControlProcess, kind: str, token: str) -> int:
    url = f"{control.url.replace('http', 'ws')}{PATHS[kind]}"
    headers = {"authorization": f"Bearer {token}"}
    try:
        with connect(url, additional_headers=headers, compression=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize("own_token", [COMPARATOR, ""])
def test_each_link_is_opened_by_its_own_token_alone(tmp_path: Path, own_token: str) -> None:
    environment = {"PENUMBRA_COMPARATOR_TOKEN": own_token} if own_token else {}
    comparators = own_token or GATEWAY  # without one of their own they show the gateways'
    with ControlProcess(tmp_path, environment=environment) as control:
        found = statuses(control, GATEWAY, COMPARATOR, ADMIN, ALERT)
    opened = {key for key, code in found.items() if code == 101}
    assert opened == {("gateway", GATEWAY), ("comparator", comparators)}
    assert set(found.values()) == {101, 401}
