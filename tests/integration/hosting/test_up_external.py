"""`penumbra up` over external servers: no Ray; a real control process and real gateways."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from penumbra.serve.supervisor.folder import TOKENS
from penumbra.serve.supervisor.state import Phase, RunState
from tests.support.behaviours import respond
from tests.support.gateway_process import eventually
from tests.support.installation import Installation, still_running
from tests.support.scripted_upstream import ScriptedUpstream

READY_SECONDS = 60.0
BODY = {"model": "demo", "prompt": "hi"}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream(
        "full", respond(200, b'{"object": "text_completion", "choices": []}')
    )
    upstream.start()
    yield upstream
    upstream.stop()


def models(upstream: ScriptedUpstream) -> dict[str, Any]:
    url = upstream.url
    return {
        "demo": {
            "baseline": "full",
            "variants": {"full": {"url": url}, "int8": {"url": f"{url}/int8"}},
        }
    }


@pytest.fixture
def stack(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Installation]:
    with Installation(models(upstream), tmp_path, processes=2) as installation:
        yield installation
        if installation.process is not None and installation.process.poll() is None:
            processes = installation.processes()
            installation.send(signal.SIGTERM)
            assert installation.wait(60) == 0, installation.output.read_text()
            assert still_running(processes, seconds=20) == []


def is_healthy(state: RunState) -> bool:
    phases = {part.phase for part in state.processes} | {part.phase for part in state.variants}
    return state.is_ready and phases == {Phase.READY}


def test_serves_without_ray(stack: Installation) -> None:
    stack.start()
    stack.wait_for(is_healthy, READY_SECONDS)
    answer = httpx.post(f"{stack.gateway_url}/v1/completions", json=BODY, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["x-penumbra-variant"] == "full"
    maps = {
        line.rpartition(" ")[2].strip()
        for process in stack.processes()
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    }
    assert not any("/ray/" in path or "/torch/" in path for path in maps)
    assert sorted(process.name for process in stack.state.processes) == [
        "comparator",
        "control",
        "gateway-0",
        "gateway-1",
    ]


def secrets_of(pid: int) -> set[str]:
    """Names of the secrets in the environment that a process was started with."""
    names = set(psutil.Process(pid).environ())
    return {name for name in names if name.endswith(("_TOKEN", "_KEY"))}


def test_each_process_links_with_its_own_credential_and_has_no_other(
    stack: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENUMBRA_OPERATOR_TOKEN", "SOME_CLOUDS_KEY"):
        monkeypatch.setenv(name, f"{name.lower()}-of-the-operator")
    stack.start()
    state = stack.wait_for(is_healthy, READY_SECONDS)
    secrets = {each.name: secrets_of(each.pid) for each in state.processes}
    assert secrets.pop("comparator") == {"PENUMBRA_COMPARATOR_TOKEN"}
    assert secrets.pop("control") == {*TOKENS, "PENUMBRA_OPERATOR_TOKEN"}
    assert all(found == {"PENUMBRA_GATEWAY_TOKEN"} for found in secrets.values())

    def links() -> set[str]:
        page = httpx.get(f"{state.admin_url}/metrics").text
        names = ("penumbra_control_gateways ", "penumbra_control_comparators ")
        return {line for line in page.splitlines() if line.startswith(names)}

    wanted = {"penumbra_control_gateways 2.0", "penumbra_control_comparators 1.0"}
    eventually(lambda: links() == wanted, what="all to be linked")


def test_status_and_flags_find_what_runs(
    stack: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.start()
    stack.wait_for(is_healthy, READY_SECONDS)
    done = stack.run("status", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["health"]) == (0, "healthy"), report["problems"]
    monkeypatch.setenv("PENUMBRA_STATE_DIR", str(stack.state_dir))
    flags = subprocess.run(
        [*stack.command("flags")[:-2], "list"], capture_output=True, text=True, check=True
    )
    assert "demo" in flags.stdout


@pytest.mark.parametrize("name", ["gateway-0", "control", "comparator"])
def test_killed_process_is_started_again(stack: Installation, name: str) -> None:
    stack.start()
    before = stack.wait_for(is_healthy, READY_SECONDS).process(name)
    psutil.Process(before.pid).kill()
    after = stack.wait_for(
        lambda state: state.process(name).pid != before.pid and is_healthy(state), READY_SECONDS
    ).process(name)
    assert after.restarts == 1
    assert httpx.post(f"{stack.gateway_url}/v1/completions", json=BODY, timeout=30).is_success


@pytest.mark.parametrize("name", ["gateway-0", "control", "comparator"])
def test_process_that_does_not_answer_is_started_again(stack: Installation, name: str) -> None:
    stack.start()
    before = stack.wait_for(is_healthy, READY_SECONDS).process(name)
    psutil.Process(before.pid).send_signal(signal.SIGSTOP)
    after = stack.wait_for(
        lambda state: state.process(name).pid != before.pid and is_healthy(state), READY_SECONDS
    ).process(name)
    assert after.restarts == 1
    assert not psutil.pid_exists(before.pid)
    assert httpx.post(f"{stack.gateway_url}/v1/completions", json=BODY, timeout=30).is_success


def test_a_hangup_ends_nothing(stack: Installation) -> None:
    stack.start()
    before = stack.wait_for(is_healthy, READY_SECONDS)
    processes = stack.processes()
    for process in processes:
        process.send_signal(signal.SIGHUP)
    time.sleep(1.0)
    assert all(process.is_running() for process in processes)
    assert httpx.post(f"{stack.gateway_url}/v1/completions", json=BODY, timeout=30).is_success
    assert [part.pid for part in stack.state.processes] == [part.pid for part in before.processes]


def test_unreachable_variant_is_degraded_and_does_not_keep_the_rest_down(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # Bound, not listening: connections are refused.
        wanted = models(upstream)
        wanted["demo"]["variants"]["int8"]["url"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with Installation(wanted, tmp_path) as installation:
            installation.start()
            installation.wait_for(
                lambda state: state.is_ready and state.variants[1].phase is Phase.UNREACHABLE,
                READY_SECONDS,
            )
            done = installation.run("status", "--json")
            assert done.returncode == 1
            assert "variant demo/int8 is unreachable" in done.stdout
            url = f"{installation.gateway_url}/v1/completions"
            assert httpx.post(url, json=BODY, timeout=30).is_success
            assert installation.run("down").returncode == 0
            assert installation.wait(60) == 0


def test_second_up_on_the_same_state_is_refused(stack: Installation) -> None:
    stack.start()
    state = stack.wait_for(is_healthy, READY_SECONDS)
    done = stack.run("up", "--plain")
    assert done.returncode == 2
    assert f"in use by a running `penumbra up` (process {state.pid})" in done.stderr
    assert stack.state.pid == state.pid


def test_taken_port_is_named_before_anything_starts(stack: Installation) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        done = stack.run("up", "--plain")
    assert done.returncode == 2
    assert f"gateway.port: found {stack.port} on 127.0.0.1: Address already in use" in done.stderr
    assert not (stack.state_dir / "state.json").exists()


def test_process_that_cannot_start_ends_everything_with_its_log(stack: Installation) -> None:
    stack.state_dir.mkdir()
    (stack.state_dir / "penumbra.db").write_bytes(b"this is no database, and long enough for one")
    done = stack.run("up", "--plain")
    assert done.returncode == 1
    assert "control ended" in done.stderr
    assert str(stack.state_dir / "logs" / "control.log") in done.stderr
    assert not (stack.state_dir / "state.json").exists()


def test_detached_up_returns_when_ready_and_down_stops_it(stack: Installation) -> None:
    done = stack.run("up", "--detach")
    assert done.returncode == 0, done.stderr
    assert "curl" in done.stdout
    processes = [psutil.Process(stack.state.pid), *psutil.Process(stack.state.pid).children()]
    assert httpx.post(f"{stack.gateway_url}/v1/completions", json=BODY, timeout=30).is_success
    assert stack.run("down").returncode == 0
    assert still_running(processes, seconds=20) == []
    assert stack.run("status").returncode == 3


def test_down_cleans_up_after_an_up_that_was_killed(stack: Installation) -> None:
    stack.start()
    stack.wait_for(is_healthy, READY_SECONDS)
    processes = stack.processes()
    stack.send(signal.SIGKILL)
    stack.wait(10)
    # Told by the kernel that their parent is gone.
    assert still_running(processes, seconds=20) == []
    done = stack.run("down")
    assert done.returncode == 3
    assert "cleaned up after it" in done.stderr
    with ExitStack() as again:
        again.callback(lambda: stack.run("down"))
        assert stack.run("up", "--detach").returncode == 0


def test_gateway_runs_alone_in_the_foreground(stack: Installation) -> None:
    gateway = subprocess.Popen(stack.command("gateway"), stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{stack.port}"
        transport = httpx.HTTPTransport(retries=10)  # Backs off: about a minute in all.
        with httpx.Client(transport=transport, timeout=30) as client:
            assert client.post(f"{url}/v1/completions", json=BODY).is_success
    finally:
        gateway.terminate()
        assert gateway.wait(60) == 0
