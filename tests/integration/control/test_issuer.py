"""Tokens of an issuer at a real control process."""

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.support.control_process import ADMIN, ControlProcess
from tests.support.issuer import AUDIENCE, IssuerServer


def test_change_with_an_issuers_token_is_recorded_and_other_tokens_need_no_issuer(
    tmp_path: Path,
) -> None:
    with IssuerServer() as server:
        issuer = server.issuer
        oidc = {"issuer": issuer.url, "audience": AUDIENCE, "roles": {"ops": "operator"}}
        issuer.problem = lambda: httpx.Response(500)
        with ControlProcess(tmp_path, settings={"oidc": oidc}) as control:
            token = issuer.token(datetime.now(UTC).timestamp())
            refused = control.post("/flags/demo/kill", {}, token)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "issuer_unavailable"
            assert control.post("/flags/demo/kill", {}, ADMIN).status_code == 200
            issuer.problem = None
            deadline = time.monotonic() + 30
            while control.post("/flags/demo/unkill", {}, token).status_code != 200:
                assert time.monotonic() < deadline, control.log_text()[-2000:]
                time.sleep(0.5)
            item = control.get("/history")["items"][-1]
            assert (item["role"], item["identity"]) == ("operator", f"{issuer.url} alice")
            assert control.post("/access/x/rotate", {}, token).status_code == 403
            assert token not in control.log_text()


def test_start_without_usable_settings_of_the_issuer_says_so(tmp_path: Path) -> None:
    oidc = {"issuer": "http://login.test", "audience": "a", "roles": {"ops": "operator"}}
    done = ControlProcess(tmp_path, settings={"oidc": oidc}).run()
    assert done.returncode == 2
    assert "control.oidc.issuer" in done.stderr
