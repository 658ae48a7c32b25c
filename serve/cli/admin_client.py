"""Client of the admin API: finds the control process and its token, and words errors for people."""

import getpass
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from penumbra.router.secret_values import SecretUnreadable, secret_of

ACTOR_VARIABLE = "PENUMBRA_ACTOR"
STATE_DIR_VARIABLE = "PENUMBRA_STATE_DIR"
TOKEN_VARIABLE = "PENUMBRA_ADMIN_TOKEN"  # noqa: S105 - the name, not the token
URL_VARIABLE = "PENUMBRA_ADMIN_URL"

_TIMEOUT_SECONDS = 40.0


class AdminError(Exception):
    """A command cannot be carried out; the message is for the person who gave it."""


class NoAnswer(AdminError):
    """The control process does not answer at its address."""


class AdminClient:
    """HTTP client for one control process.

    Args:
        url: Base URL of the admin API.
        token: Its bearer token.
        actor: Name under which changes are recorded.
        transport: For tests; None is the network.
    """

    def __init__(
        self, url: str, token: str, actor: str, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = url
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/admin/v1",
            headers={"authorization": f"Bearer {token}", "x-penumbra-actor": actor},
            timeout=_TIMEOUT_SECONDS,
            transport=transport,
            trust_env=False,  # a proxy of the environment must not see the token
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Read from a path of the admin API.

        Raises:
            AdminError: It was refused, or there is no answer.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return self._answer(self._client.build_request("GET", path, params=given))

    def change(
        self, method: str, path: str, body: Mapping[str, Any], epoch: int | None = None
    ) -> Any:
        """Send a change; with `epoch`, only if nothing has changed since that epoch.

        Raises:
            AdminError: It was refused, or there is no answer.
        """
        headers = {} if epoch is None else {"if-match": f'"{epoch}"'}
        request = self._client.build_request(method, path, json=dict(body), headers=headers)
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> Any:
        try:
            response = self._client.send(request)
        except httpx.HTTPError as error:
            raise NoAnswer(
                f"no answer from the control process at {self._url} ({error});"
                " is it up? (penumbra status)"
            ) from error
        if response.is_success:
            return response.json()
        raise AdminError(_refusal(response))


def flag_path(model: str, verb: str = "") -> str:
    """The path of a model's flag, or of an action on it."""
    return f"/flags/{quote(model)}{'/' if verb else ''}{verb}"


def connect(url: str | None) -> AdminClient:
    """A client for the control process of this machine, or the one at `url`.

    Raises:
        AdminError: Its address or its token is not known.
    """
    state_dir = Path(os.environ.get(STATE_DIR_VARIABLE, ".penumbra"))
    found = url or os.environ.get(URL_VARIABLE) or _running(state_dir)
    return AdminClient(found, _token(state_dir), actor())


def actor() -> str:
    """The actor of changes: PENUMBRA_ACTOR, else the name of the system's user."""
    return os.environ.get(ACTOR_VARIABLE) or getpass.getuser()


def _running(state_dir: Path) -> str:
    path = state_dir / "state.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["admin_url"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdminError(
            f"found no running Penumbra in {state_dir} (no admin_url in {path.name}):"
            f" start one with `penumbra up`, or name it with --admin-url or {URL_VARIABLE}"
        ) from error
    return str(found)


def _token(state_dir: Path) -> str:
    try:
        token = secret_of(os.environ, TOKEN_VARIABLE)
    except SecretUnreadable as error:
        raise AdminError(str(error)) from error
    if token:
        return token.strip()
    path = state_dir / "admin-token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise AdminError(
            f"found neither {TOKEN_VARIABLE} nor a readable {path}, wanted the admin token"
        ) from error


def _refusal(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return f"{error['message']} ({error['code']})"
    except (ValueError, KeyError, TypeError):
        return f"the control process answered {response.status_code}"
