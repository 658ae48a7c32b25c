"""`penumbra up` with a control process behind TLS, which wants a certificate of every client."""

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from penumbra.serve.cli.flags import app as flags
from tests.integration.hosting.test_up_external import READY_SECONDS, is_healthy, models
from tests.support.behaviours import respond
from tests.support.certificates import Authority
from tests.support.gateway_process import eventually, free_port
from tests.support.installation import Installation
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.mark.timeout(180)
def test_all_parts_and_commands_reach_a_control_process_behind_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("control", "IP:127.0.0.1")
    shown = authority.sign("machine", "DNS:machine")
    control = {
        "port": free_port(),
        "tls": {
            "certificate": certificate.name,
            "key": key.name,
            "client_ca": authority.ca_file.name,
            "require_client_certificate": "all",
        },
        "ca_file": authority.ca_file.name,
        "client_certificate": shown[0].name,
        "client_key": shown[1].name,
    }
    upstream = ScriptedUpstream("full", respond(200, b'{"object": "text_completion"}'))
    upstream.start()
    settings = {"control": control}
    with Installation(models(upstream), tmp_path, processes=2, settings=settings) as stack:
        stack.start()
        state = stack.wait_for(is_healthy, READY_SECONDS)
        assert state.admin_url == f"https://127.0.0.1:{control['port']}"
        client = authority.client_context(*shown)

        def links() -> set[str]:
            page = httpx.get(f"{state.admin_url}/metrics", verify=client).text
            names = ("penumbra_control_gateways ", "penumbra_control_comparators ")
            return {line for line in page.splitlines() if line.startswith(names)}

        wanted = {"penumbra_control_gateways 2.0", "penumbra_control_comparators 1.0"}
        eventually(lambda: links() == wanted, what="all to be linked")
        listed = CliRunner().invoke(flags, ("list", "--json", "-f", str(stack.config)))
        assert listed.exit_code == 0, listed.output
        # Without the file: from the state folder of what runs.
        here = {"PENUMBRA_STATE_DIR": str(stack.state_dir)}
        assert CliRunner().invoke(flags, ("list", "--json"), env=here).exit_code == 0
        status = json.loads(stack.run("status", "--json").stdout)
        assert status["epoch"] == 1, status
        applied = stack.run("apply", "--dry-run", "--json")
        assert applied.returncode == 0, applied.stderr
        assert stack.run("down").returncode == 0
    upstream.stop()
