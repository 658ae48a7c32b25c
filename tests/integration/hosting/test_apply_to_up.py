"""`penumbra apply` to a running `penumbra up`, and the next start with a file that differs."""

import signal
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.behaviours import respond
from tests.support.gateway_process import eventually, key_settings
from tests.support.installation import Installation
from tests.support.scripted_upstream import ScriptedUpstream

READY_SECONDS = 60.0
BODY = {"model": "demo", "prompt": "hi"}


def edit(installation: Installation, **update: Any) -> None:
    content = yaml.safe_load(installation.config.read_text()) | update
    installation.config.write_text(yaml.safe_dump(content, sort_keys=False))


def status(installation: Installation, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    url = f"{installation.gateway_url}/v1/completions"
    return httpx.post(url, json=BODY, headers=headers, timeout=30).status_code


def test_what_was_applied_outlives_a_restart_with_another_file(tmp_path: Path) -> None:
    upstream = ScriptedUpstream("full", respond(200, b'{"object": "text_completion"}'))
    upstream.start()
    models = {"demo": {"baseline": "full", "variants": {"full": {"url": upstream.url}}}}
    keys = [key_settings("acme", "sk-acme"), key_settings("acme", "sk-leaked")]
    try:
        with Installation(models, tmp_path, processes=2, settings={"keys": keys}) as installation:
            installation.start()
            installation.wait_until_ready(READY_SECONDS)
            assert status(installation, "sk-leaked") == 200
            edit(installation, keys=keys[:1])
            applied = installation.run("apply", "--yes", "--reason", "leaked")
            assert applied.stdout.endswith("is in force: acknowledged 2/2.\n"), applied.stderr
            assert [status(installation, "sk-leaked") for _ in range(8)] == [401] * 8
            assert status(installation, "sk-acme") == 200
            installation.send(signal.SIGTERM)
            assert installation.wait(60) == 0
            edit(installation, keys=keys)
            installation.start()
            installation.wait_until_ready(READY_SECONDS)
            assert [status(installation, "sk-leaked") for _ in range(8)] == [401] * 8
            hint = f"  penumbra apply -f {installation.config}"
            eventually(
                lambda: hint in installation.output.read_text().splitlines(), what="the difference"
            )
            installation.send(signal.SIGTERM)
            assert installation.wait(60) == 0
    finally:
        upstream.stop()


def test_a_hangup_tells_how_the_file_differs_and_changes_nothing(tmp_path: Path) -> None:
    upstream = ScriptedUpstream("full", respond(200, b'{"object": "text_completion"}'))
    upstream.start()
    models = {"demo": {"baseline": "full", "variants": {"full": {"url": upstream.url}}}}
    try:
        with Installation(models, tmp_path) as installation:
            installation.start()
            installation.wait_until_ready(READY_SECONDS)

            def hang_up(wanted: str) -> None:
                installation.send(signal.SIGHUP)
                eventually(lambda: wanted in installation.output.read_text(), what=wanted)

            hang_up(f"{installation.config} is what is in force.")
            demo = models["demo"]
            more = {**demo, "variants": {**demo["variants"], "int8": {"url": "http://127.0.0.2"}}}
            edit(installation, models={"demo": more}, ray={"port": 7999})
            hang_up("+ variant int8 of demo, at http://127.0.0.2; it has no share yet")
            output = installation.output.read_text()
            assert "ray.port: " in output
            assert f"  penumbra apply -f {installation.config}" in output.splitlines()
            log = installation.state_dir / "logs" / "control.log"
            eventually(lambda: "settings_differ" in log.read_text(), what="the control's log")
            assert "configuration_differs" in log.read_text()
            gateway = (installation.state_dir / "logs" / "gateway-0.log").read_text()
            assert "hangup_taken" in gateway
            assert [record.variant for record in installation.state.variants] == ["full"]
            edit(installation, models="none")
            hang_up("was not compared with the configuration in force")
            eventually(lambda: "file_unreadable" in log.read_text(), what="the control's log")
            assert status(installation, "sk") == 200
            installation.send(signal.SIGTERM)
            assert installation.wait(60) == 0
    finally:
        upstream.stop()
