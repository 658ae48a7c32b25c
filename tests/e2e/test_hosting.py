"""Variants as Ray Serve hosts them: real requests to each, disconnects, and killed processes."""

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from penumbra.monitoring.build_facts import differences
from penumbra.router.upstream import scoring_wire
from penumbra.router.upstream.build_probe import BUILD_PATH
from penumbra.router.upstream.scoring_wire import SHORT_PATH
from penumbra.serve.supervisor.state import Phase
from tests.e2e.conftest import HOSTED, TWIN, VARIANTS, engine
from tests.support.installation import Installation, still_running

LONG = 900
"""Tokens: far more than are generated before a test looks."""
BACK_SECONDS = 240.0
HANG_SECONDS = 12.0
"""Much longer than HAProxy takes to refuse, and shorter than a replica takes to come back."""


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until a condition held; fails when it does not in time."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def metric(url: str, name: str, label: str = "") -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    found = [line for line in lines if line.startswith(name) and label in line]
    assert found, name
    return sum(float(line.rpartition(" ")[2]) for line in found)


def running(url: str) -> float:
    return metric(url, "vllm:num_requests_running")


def long_request(stream: bool) -> dict[str, object]:
    return {
        "model": "demo",
        "prompt": "Count: ",
        "max_tokens": LONG,
        "ignore_eos": True,
        "stream": stream,
    }


def named(processes: list[psutil.Process], part: str) -> list[psutil.Process]:
    """Those with a part of a name; some may have ended since they were listed."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if part in process.name():
                found.append(process)
    return found


def replica(stack: Installation, variant: str) -> psutil.Process:
    return named(stack.processes(), f"ServeReplica:demo-{variant}")[0]


def engine_core(stack: Installation, variant: str) -> psutil.Process:
    return named(replica(stack, variant).children(recursive=True), "EngineCore")[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_answers_every_route_on_its_own_prefix(stack: Installation, variant: str) -> None:
    url = stack.variant_url(variant)
    message = [{"role": "user", "content": "hi"}]
    with httpx.Client(base_url=url, timeout=60) as client:
        for path, body in (
            ("/v1/chat/completions", {"messages": message, "max_tokens": 4}),
            ("/v1/chat/completions", {"messages": message, "max_tokens": 4, "stream": True}),
            ("/v1/completions", {"prompt": "hi", "max_tokens": 4}),
            ("/v1/responses", {"input": "hi", "max_output_tokens": 4}),
            ("/tokenize", {"prompt": "hi"}),
        ):
            response = client.post(path, json={"model": "demo", **body})
            assert response.status_code == 200, (path, response.text)
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["demo"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_scores_every_prompt_token(stack: Installation, variant: str) -> None:
    tokens = [10, 20, 30, 40, 50]
    body = {"model": "demo", "prompt": tokens, "max_tokens": 1, "prompt_logprobs": 0}
    response = httpx.post(f"{stack.variant_url(variant)}/v1/completions", json=body, timeout=60)
    scores = response.json()["choices"][0]["prompt_logprobs"]
    assert [next(iter(row)) for row in scores[1:]] == [str(token) for token in tokens[1:]]


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_ways_of_scoring_give_the_same_numbers(stack: Installation, variant: str) -> None:
    tokens = [256, 258, *b"Sort: gad bab cuf", 257, 259, *b"bab cuf gad", 257]
    start = tokens.index(259) + 1
    url = stack.variant_url(variant)
    short = httpx.post(f"{url}{SHORT_PATH}", json={"token_ids": tokens, "start": start}, timeout=60)
    body = scoring_wire.completions_body("demo", tokens)
    whole = httpx.post(f"{url}{scoring_wire.COMPLETIONS_PATH}", json=body, timeout=60)
    wanted = scoring_wire.read_completion(whole.content, tokens, start)
    found = scoring_wire.read_short(short.content, tokens, start)
    assert found.top_ids == wanted.top_ids
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-3)


def test_every_replica_tells_its_build(stack: Installation) -> None:
    builds = {
        variant: httpx.get(f"{stack.variant_url(variant)}{BUILD_PATH}", timeout=60).json()
        for variant in (*VARIANTS, TWIN)
    }
    assert all(isinstance(text, str) for facts in builds.values() for text in facts.values())
    assert builds["full"]["dtype"] == "bfloat16"
    told = httpx.get(f"{stack.variant_url('full')}/version", timeout=60).json()
    assert builds["full"]["vllm"] == told["version"]
    assert builds["full"]["compilation"] == "eager"
    assert builds[TWIN] == builds["full"]
    changed = differences(builds["full"], builds["int8"])
    assert set(changed) == {"weights", "config", "quantization", "source"}


def test_stream_is_not_held_back(stack: Installation) -> None:
    url = stack.variant_url("full")
    with httpx.stream(
        "POST", f"{url}/v1/completions", json=long_request(stream=True), timeout=60
    ) as response:
        pieces = response.iter_raw()
        assert next(pieces).startswith(b"data: ")
        assert running(url) == 1  # The first piece is here, and the engine is still at work.
        assert sum(1 for _ in pieces) > LONG / 4


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_aborts_the_engines_request(stack: Installation, stream: bool) -> None:
    url = stack.variant_url("int8")
    finished = metric(url, "vllm:request_success_total", 'finished_reason="length"')
    body = json.dumps(long_request(stream)).encode()
    target = httpx.URL(url)
    head = (
        f"POST {target.path}/v1/completions HTTP/1.1\r\nhost: {target.host}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((target.host, target.port)) as client:
        client.sendall(head.encode() + body)
        wait_until(lambda: running(url) == 1, 60)
    wait_until(lambda: running(url) == 0, 30)
    assert metric(url, "vllm:request_success_total", 'finished_reason="length"') == finished


def test_only_haproxy_is_between_a_client_and_the_replica(stack: Installation) -> None:
    assert len(named(stack.processes(), "ServeReplica")) == len(HOSTED)
    assert named(stack.processes(), "LLMRouter") == []
    haproxy = named(stack.processes(), "haproxy")
    config = Path(haproxy[0].cmdline()[haproxy[0].cmdline().index("-f") + 1]).read_text()
    servers = [line.split()[1] for line in config.splitlines() if line.startswith("    server ")]
    assert len(servers) == len(HOSTED)
    assert all(name.startswith("SERVE_REPLICA_") for name in servers)
    addresses = {
        connection.laddr.ip for process in haproxy for connection in process.net_connections("tcp")
    }
    assert addresses == {"127.0.0.1"}


@pytest.fixture
def baseline_load(stack: Installation) -> Iterator[list[int]]:
    """Statuses of requests to the baseline, sent one after the other while a test runs."""
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        body = {"model": "demo", "prompt": "hi", "max_tokens": 2}
        with httpx.Client(base_url=stack.variant_url("full"), timeout=60) as client:
            while not stop.wait(0.2):
                statuses.append(client.post("/v1/completions", json=body).status_code)

    thread = threading.Thread(target=load)
    thread.start()
    yield statuses
    stop.set()
    thread.join()


@pytest.mark.parametrize("victim", [engine_core, replica], ids=["engine core", "replica"])
def test_ray_brings_a_killed_process_back(
    stack: Installation,
    victim: Callable[[Installation, str], psutil.Process],
    baseline_load: list[int],
    record_property: Callable[[str, object], None],
) -> None:
    url = stack.variant_url("int4")
    family = [replica(stack, "int4"), *replica(stack, "int4").children(recursive=True)]
    killed = victim(stack, "int4")
    killed.kill()

    def answer() -> int:
        body = {"model": "demo", "prompt": "hi", "max_tokens": 2}
        try:
            # Nothing may hang while there is no replica: the gateway has another variant to ask.
            return httpx.post(f"{url}/v1/completions", json=body, timeout=HANG_SECONDS).status_code
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            return 0

    wait_until(lambda: answer() != 200, 30)
    seconds = wait_until(lambda: answer() == 200, BACK_SECONDS)
    record_property("seconds_until_back", seconds)
    print(f"{victim.__name__} killed: int4 answers again after {seconds:.1f} s")
    assert still_running(family, seconds=10) == []
    assert baseline_load
    assert set(baseline_load) == {200}
    stack.wait_for(
        lambda state: all(variant.phase is Phase.READY for variant in state.variants), BACK_SECONDS
    )


@pytest.mark.parametrize("name", ["control", "gateway-1"])
def test_killed_process_is_started_again_and_serving_goes_on(
    stack: Installation, name: str
) -> None:
    before = stack.state.process(name)
    psutil.Process(before.pid).kill()
    body = {"model": "demo", "prompt": "hi", "max_tokens": 2}
    assert httpx.post(f"{stack.gateway_url}/v1/completions", json=body, timeout=30).is_success
    after = stack.wait_for(
        lambda state: (
            state.process(name).pid != before.pid and state.process(name).phase is Phase.READY
        ),
        30,
    ).process(name)
    assert after.restarts == before.restarts + 1


def test_status_tells_of_variants_gateways_and_flags(stack: Installation) -> None:
    def is_healthy() -> bool:
        return stack.run("status", "--json").returncode == 0

    wait_until(is_healthy, 60)
    report = json.loads(stack.run("status", "--json").stdout)
    assert report["health"] == "healthy"
    assert {
        variant["variant"]: variant["replicas"] for variant in report["variants"]
    } == dict.fromkeys(HOSTED, 1)
    epochs = {
        process["epoch"]
        for process in report["processes"]
        if process["name"].startswith("gateway-")
    }
    assert epochs == {report["epoch"]}
    assert report["flags"][0]["baseline"] == "full"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_an_up_that_is_ended_while_loading(
    variants: Path, tmp_path: Path, number: signal.Signals
) -> None:
    models = {"demo": {"baseline": "full", "variants": {"full": engine(variants / "full")}}}
    with Installation(models, tmp_path) as installation:
        installation.start()
        wait_until(lambda: named(installation.processes(), "ServeReplica") != [], 90)
        processes = installation.processes()
        installation.send(number)
        code = installation.wait(60)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        # After SIGKILL there is no supervisor to wait for: each process notices by itself.
        assert still_running(processes, seconds=20) == []


def test_engine_that_cannot_load_ends_up_with_its_log(variants: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (variants / "full").iterdir():
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            content = content[: len(content) // 2]
        (broken / file.name).write_bytes(content)
    models = {"demo": {"baseline": "full", "variants": {"full": engine(broken)}}}
    with Installation(models, tmp_path) as installation:
        installation.start()
        assert installation.wait(180) == 1
        output = installation.output.read_text()
    assert "models.demo.variants.full could not be loaded" in output
    assert "safetensors" in output.lower()
    assert not (installation.state_dir / "state.json").exists()
