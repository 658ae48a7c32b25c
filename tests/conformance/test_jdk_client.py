"""The JDK's `HttpClient` with its defaults, which offers HTTP/2 with its first request."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.behaviours import engine
from tests.support.client_installs import program
from tests.support.documents import ROOT
from tests.support.engine_wire import Engine
from tests.support.gateway_process import GatewayProcess
from tests.support.requests import CHAT, chat
from tests.support.scripted_upstream import ScriptedUpstream

SOURCE = ROOT / "tests" / "support" / "jdk" / "Ask.java"
JDK = "default-jdk-headless"
SECONDS = 120.0


@pytest.fixture(scope="module")
def full() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream("full", engine(Engine("full")))
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def url(full: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    demo = {"baseline": "full", "variants": {"full": {"url": full.url}}}
    settings = {"snapshot": {"epoch": 1, "models": {"demo": demo}}}
    with GatewayProcess(settings, tmp_path_factory.mktemp("gateway")) as process:
        yield f"http://127.0.0.1:{process.port}"


def test_requests_of_every_size_are_answered(
    url: str, full: ScriptedUpstream, tmp_path: Path
) -> None:
    # `java` compiles a source file itself, but only a JDK's can: the one that has `javac`.
    java = Path(program("javac", JDK)).with_name("java")
    bodies = [chat(), chat(stream=True), chat(user="u" * 2_000_000), chat("unknown"), chat()]
    files = [tmp_path / f"{number}.json" for number in range(len(bodies))]
    for file, body in zip(files, bodies, strict=True):
        file.write_text(json.dumps(body))
    done = subprocess.run(
        [str(java), str(SOURCE), url + CHAT, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [status for status, _ in answers] == ["200", "200", "200", "404", "200"]
    assert all(int(length) > 100 for _, length in answers)
    asked = [json.loads(request.body) for request in full.requests]
    assert asked == [body for body in bodies if body["model"] == "demo"]
