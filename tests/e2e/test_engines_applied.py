"""Engines that `penumbra apply` starts and stops while traffic runs."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import httpx
import psutil
import yaml

from penumbra.serve.supervisor.state import Phase
from tests.e2e.conftest import READY_SECONDS, STOP_SECONDS, engine
from tests.e2e.test_hosting import named, replica, wait_until
from tests.support.gateway_process import free_port
from tests.support.installation import Installation, still_running

GONE_SECONDS = 60.0
CHAT = "/v1/chat/completions"
BODY = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
STREAM_TOKENS = 300
PIN = {"x-penumbra-variant": "int8"}


class Load:
    """Chats that are sent one after another."""

    def __init__(self, url: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        """Status and variant -> number of answers."""
        self._url = url
        self._headers = dict(headers)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(60.0)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=60.0) as client:
            while not self._is_over.wait(0.05):
                answer = client.post(CHAT, json=BODY)
                variant = answer.headers.get("x-penumbra-variant", "none")
                self.answers[answer.status_code, variant] += 1


class LongStream:
    """A stream that is under way when its engine is stopped."""

    def __init__(self, url: str) -> None:
        self.text = ""
        self._url = url
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        self._thread.start()
        assert self._has_begun.wait(60.0)

    def end(self) -> str:
        self._thread.join(GONE_SECONDS)
        return self.text

    def _read(self) -> None:
        body = BODY | {"stream": True, "max_tokens": STREAM_TOKENS, "ignore_eos": True}
        url = f"{self._url}{CHAT}"
        with httpx.stream("POST", url, json=body, headers=PIN, timeout=60.0) as answer:
            for text in answer.iter_text():
                self.text += text
                self._has_begun.set()


def family(stack: Installation, variant: str) -> list[psutil.Process]:
    found = replica(stack, variant)
    return [found, *found.children(recursive=True)]


def propose(installation: Installation, *builds: str, variants: Path) -> None:
    content = yaml.safe_load(installation.config.read_text())
    content["models"]["demo"]["variants"] = {
        name: engine(variants / name, index) for index, name in enumerate(builds)
    }
    installation.config.write_text(yaml.safe_dump(content, sort_keys=False))


def test_engines_come_and_go_while_everything_runs(
    variants: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    models = {"demo": {"baseline": "full", "variants": {"full": engine(variants / "full")}}}
    settings = {"shadow": {"internal_port": free_port()}}
    with Installation(models, tmp_path, settings=settings) as installation:
        installation.start()
        installation.wait_until_ready(READY_SECONDS)
        baseline = [(each.pid, each.create_time()) for each in family(installation, "full")]

        propose(installation, "full", "int8", variants=variants)
        plan = installation.run("apply", "--dry-run").stdout
        assert f"+ starts the engine of int8 (demo) from {variants / 'int8'}" in plan
        url = installation.gateway_url
        with Load(url) as load:
            applied = installation.run("apply", "--reason", "the smaller build")
            assert "is in force: acknowledged 1/1" in applied.stdout, applied.stderr
            with Load(url, PIN) as pinned:
                seconds = wait_until(lambda: (200, "int8") in pinned.answers, READY_SECONDS)
            # A client that asks for a build that is starting gets the baseline, and no error.
            assert {*pinned.answers} == {(200, "full"), (200, "int8")}
            record_property("seconds_until_in_service", seconds)
            print(f"int8 was in service {seconds:.1f} s after it was applied")
            phases = {each.variant: each.phase for each in installation.state.variants}
            assert phases == {"full": Phase.READY, "int8": Phase.READY}
            engines = family(installation, "int8")

            stream = LongStream(url)
            stream.start()
            propose(installation, "full", variants=variants)
            removed = installation.run("apply", "--yes", "--reason", "not needed")
            assert "- stops the engine of int8 (demo)" in removed.stdout, removed.stderr
            assert still_running(engines, GONE_SECONDS) == []
            assert stream.end().endswith("data: [DONE]\n\n")
        assert {*load.answers} == {(200, "full")}
        assert [record.variant for record in installation.state.variants] == ["full"]
        assert [(each.pid, each.create_time()) for each in family(installation, "full")] == baseline
        assert len(named(installation.processes(), "ServeReplica")) == 1
        installation.send(signal.SIGTERM)
        assert installation.wait(STOP_SECONDS) == 0
