"""Nothing that users, models or secrets say is in a log, a metric, a span or the store.

One installation of real processes, traced in full, is told words that appear nowhere else: in
prompts, answers, tool arguments, keys, tokens, ids of users and sessions, and errors that quote
them. Then everything that it has written is searched. The one place where such a word may be is the
`metadata` of feedback in the store: it is stored there by design, for the application that sent it.
"""

import asyncio
import contextlib
import itertools
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from penumbra.router.link.feedback import PATH
from tests.integration.control.test_rollouts import SPEC
from tests.integration.gateway.conftest import FAILOVER_LIMITS
from tests.integration.gateway.test_logs import BEHAVIOURS, BODIES, CANARY, TALKER
from tests.support.behaviours import engine, respond
from tests.support.comparator_process import Process, comparator
from tests.support.control_process import ControlProcess, external
from tests.support.engine_probe import probed
from tests.support.engine_wire import encode
from tests.support.gateway_process import GatewayProcess, eventually, key_settings
from tests.support.otlp import Collector, Received, collecting
from tests.support.requests import CHAT, COMPLETIONS, dumps
from tests.support.scripted_upstream import ScriptedUpstream

KEY = f"{CANARY}-key"
ADMIN = f"{CANARY}-token-of-the-admin"
TOKENS = {
    "PENUMBRA_ADMIN_TOKEN": ADMIN,
    "PENUMBRA_GATEWAY_TOKEN": f"{CANARY}-token-of-the-gateway",
    "ENGINE_KEY": f"{CANARY}-engine-key",
}
PAIRS = 10
METADATA = {"comment": f"{CANARY}-metadata"}
HEADERS = {
    "authorization": f"Bearer {KEY}",
    "cookie": f"{CANARY}-cookie",
    "x-user-id": f"{CANARY}-user",
    "x-session-id": f"{CANARY}-session",
    "baggage": f"note={CANARY}-baggage",
    "tracestate": f"v={CANARY}-state",
    "user-agent": f"{CANARY}-agent",
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "description": CANARY,
            "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}},
        },
    }
]
TOOL_ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "demo",
    "prompt_token_ids": [1, 2, 3],
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": f"call-{CANARY}",
                        "type": "function",
                        "function": {"name": "look", "arguments": json.dumps({"at": CANARY})},
                    }
                ],
            },
            "finish_reason": "tool_calls",
            "token_ids": [4, 5, 6, 7],
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}


@dataclass
class Installation:
    gateway: GatewayProcess
    comparator: Process
    control: ControlProcess
    builds: dict[str, ScriptedUpstream]
    collector: Collector
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, body: object, path: str = CHAT, **headers: str) -> None:
        data = body if isinstance(body, bytes) else dumps(body)
        with self.gateway.connect() as client:
            # One turn of a session is compared, so each of these is of another one.
            session = {"x-session-id": f"{CANARY}-session-{next(self.numbers)}"}
            more = {**session, "connection": "close", **headers}
            client.send_request(path, data, {**HEADERS, **more})
            client.read_to_eof()

    def admin(self, method: str, path: str, body: Any = None, token: str = ADMIN) -> int:
        sent = body if isinstance(body, bytes) else dumps(body)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        answer = self.control.client.request(method, path, content=sent, headers=headers)
        return answer.status_code


@pytest.fixture
def builds() -> Iterator[dict[str, ScriptedUpstream]]:
    found = {name: ScriptedUpstream(name, engine(TALKER)) for name in ("full", "int8")}
    for upstream in found.values():
        upstream.start()
    probed(found["full"])
    probed(found["int8"], shift=-0.5)
    yield found
    for upstream in found.values():
        upstream.stop()


@contextlib.asynccontextmanager
async def installed(
    folder: Path, builds: dict[str, ScriptedUpstream]
) -> AsyncIterator[Installation]:
    variants: dict[str, Any] = external(**{name: one.url for name, one in builds.items()})
    variants["variants"]["int8"]["api_key_env"] = "ENGINE_KEY"
    async with contextlib.AsyncExitStack() as stack:
        collector = stack.enter_context(collecting())
        environment = {**collector.environment, **TOKENS}
        control = ControlProcess(folder, {"demo": variants}, environment=environment)
        await asyncio.to_thread(control.start)
        stack.callback(control.__exit__)
        process = await stack.enter_async_context(
            comparator(folder, control.url, environment=environment)
        )
        settings = {
            "control_url": control.url,
            "shadow_socket": str(process.socket_path),
            "snapshot": {"epoch": 0, "models": {"demo": variants}},
            "keys": [key_settings("acme", KEY, may_pin=True)],
            "limits": {**FAILOVER_LIMITS, "first_byte_seconds": 0.5},
        }
        gateway = GatewayProcess(settings, folder, environment)
        await asyncio.to_thread(gateway.start)
        stack.callback(gateway.stop)
        await asyncio.to_thread(eventually, lambda: "comparator_connected" in gateway.log_text())
        yield Installation(gateway, process, control, builds, collector)


def say_everything(it: Installation) -> None:
    mirror = {"rate": 1.0, "generate": 1.0, "aa": 1.0}
    spec = {"spec": {**SPEC, "mirror": mirror}, "reason": "try"}
    assert it.admin("PUT", "/rollouts", spec) == 200
    eventually(lambda: it.gateway.metric("penumbra_snapshot_epoch") >= 2, what="the watch")
    # Compared, each a prompt of its own: plain, streamed, with tools, answered again by errors.
    for number in range(8):
        message = {"role": "user", "content": f"{CANARY} {number}"}
        it.ask({"model": "demo", "messages": [message], "stream": number % 2 == 0})
    it.builds["full"].next(respond(200, encode(TOOL_ANSWER)))
    it.ask({"model": "demo", "messages": [{"role": "user", "content": CANARY}], "tools": TOOLS})
    it.builds["int8"].next(*BEHAVIOURS.values())
    for number in range(8, 8 + len(BEHAVIOURS)):
        it.ask({"model": "demo", "messages": [{"role": "user", "content": f"{CANARY} {number}"}]})
    # The baseline breaks in every way, pinned to the candidate as well, and whatever is sent.
    for name, behaviour in BEHAVIOURS.items():
        for build, headers in (("full", {}), ("int8", {"x-penumbra-variant": "int8"})):
            it.builds[build].next(behaviour)
            body = BODIES["stream" if "stream" in name or "event" in name else "good"]
            it.ask(body, **headers)
    for body in BODIES.values():
        it.ask(body)
        it.ask(body, COMPLETIONS)
    it.ask(BODIES["good"], authorization=f"Bearer {CANARY}-wrong")
    it.ask(BODIES["good"], **{"x-penumbra-variant": CANARY, "x-penumbra-slice": CANARY})
    it.ask(BODIES["good"], traceparent=CANARY)
    it.ask(BODIES["good"], f"/{CANARY}?q={CANARY}")


def judge(it: Installation) -> None:
    """A judgement that is stored, and some that are refused."""
    answer = it.gateway.post(CHAT, BODIES["good"], HEADERS)
    request_id = answer.header("x-request-id")
    good = {"request_id": request_id, "thumb": "down", "metadata": METADATA}
    stored = it.gateway.post(PATH, good, HEADERS)
    assert stored.status == 200, stored
    for bad in ({**good, "thumb": CANARY}, {**good, "thumb": "up"}, {**good, CANARY: 1}):
        it.gateway.post(PATH, bad, HEADERS)
    it.gateway.post(PATH, f'{{"{CANARY}'.encode(), HEADERS)


def administrate(it: Installation) -> None:
    """Calls that are refused, and the end of the rollout."""
    assert it.admin("GET", "/rollouts", token=f"{CANARY}-wrong-token") == 401
    assert it.admin("PUT", "/rollouts", b'{"spec": ' + CANARY.encode()) in {400, 422}
    assert it.admin("POST", f"/flags/{CANARY}/kill", {"reason": "x"}) == 404
    body = {"reason": "enough"}
    assert it.admin("POST", "/rollouts/int8/rollback?model=demo", body) == 200


def store_text(file: Path) -> dict[str, str]:
    """Table and column -> all of its text; the metadata of judgements left out."""
    found: dict[str, str] = {}
    with contextlib.closing(sqlite3.connect(file)) as store:
        tables = [
            row[0] for row in store.execute("select name from sqlite_master where type='table'")
        ]
        for table in tables:
            rows = store.execute(f"select * from {table}")  # noqa: S608 - its own names
            names = [column[0] for column in rows.description]
            for row in rows:
                for name, value in zip(names, row, strict=True):
                    key = f"{table}.{name}"
                    if key == "feedback.judgement":
                        judgement = json.loads(value)
                        assert judgement.pop("metadata") == METADATA
                        value = json.dumps(judgement)
                    found[key] = found.get(key, "") + str(value)
    return found


@pytest.fixture
async def searched(
    tmp_path: Path, builds: dict[str, ScriptedUpstream]
) -> AsyncIterator[tuple[dict[str, str], list[Received], list[dict[str, Any]]]]:
    """Everything that was written, by where it was; the spans; and the log lines."""
    async with installed(tmp_path, builds) as it:
        await asyncio.to_thread(say_everything, it)
        await asyncio.to_thread(it.collector.wait_for, _has_pairs, "the pairs")
        await asyncio.to_thread(judge, it)
        await asyncio.to_thread(administrate, it)
        names = ("shadow pair", "rollback", "rollout change", "chat demo")
        await asyncio.to_thread(it.collector.wait_for_names, *names)
        texts = {
            "gateway's metrics": it.gateway.get("/metrics", is_internal=True).body.decode(),
            "comparator's metrics": await it.comparator.get("/metrics"),
            "control's metrics": await asyncio.to_thread(_control_metrics, it.control),
        }
        assert await asyncio.to_thread(it.gateway.stop) == 0
        it.comparator.process.terminate()
        await it.comparator.process.wait()
        assert await asyncio.to_thread(it.control.stop) == 0
        logs = {
            "gateway's log": it.gateway.log_text(),
            "comparator's log": it.comparator.log,
            "control's log": it.control.log_text(),
        }
        lines = [json.loads(line) for text in logs.values() for line in text.splitlines()]
        texts |= logs
        texts["gateway's output"] = it.gateway.stdout_text()
        texts["spans"] = b"".join(it.collector.raw).decode("latin-1")
        texts |= store_text(it.control.store_file)
        yield texts, it.collector.spans, lines


def _has_pairs(collector: Collector) -> bool:
    return sum(span.name == "shadow pair" for span in collector.spans) > PAIRS


def _control_metrics(control: ControlProcess) -> str:
    return control.client.get(f"{control.url}/metrics").text


async def test_no_word_of_users_models_or_secrets_is_written_anywhere(
    searched: tuple[dict[str, str], list[Received], list[dict[str, Any]]],
) -> None:
    texts, spans, lines = searched
    assert {name: _around(text) for name, text in texts.items() if CANARY in text} == {}
    # It did happen: all was mirrored, compared, judged, and taken back.
    assert "penumbra_shadow_pairs_total" in texts["comparator's metrics"]
    assert texts["reports.payload"]
    assert texts["feedback.judgement"]
    assert len(spans) > 100
    assert {line["event"] for line in lines} >= {"rollout_changed", "snapshot_applied"}
    _assert_linked(spans)
    _assert_acknowledged(spans, lines)


def _around(text: str) -> list[str]:
    places = [at for at in range(len(text)) if text.startswith(CANARY, at)]
    return [text[max(0, at - 200) : at + 100] for at in places[:3]]


def _assert_linked(spans: list[Received]) -> None:
    """Each pair is linked to the span of its request, and is in a trace of its own."""
    requests = {s.attributes["penumbra.request_id"]: s for s in spans if s.kind == "server"}
    pairs = [span for span in spans if span.name == "shadow pair"]
    assert len(pairs) > PAIRS
    for pair in pairs:
        request = requests[pair.attributes["penumbra.request_id"]]
        assert pair.links == ((request.trace_id, request.span_id),)
        assert pair.trace_id != request.trace_id
        assert request.attributes["penumbra.is_mirrored"] is True


def _assert_acknowledged(spans: list[Received], lines: list[dict[str, Any]]) -> None:
    """The rollback is there once as a span that the gateway acknowledged, and once as a line."""
    (rollback,) = [span for span in spans if span.name == "rollback"]
    assert rollback.attributes["penumbra.gateways"] == 1
    assert rollback.attributes["penumbra.is_acknowledged"] is True
    changes = [line for line in lines if line["event"] == "rollout_changed"]
    (line,) = [change for change in changes if change["change"] == "rolled_back"]
    assert line["trace_id"] == rollback.trace_id
    assert line["text"].startswith("int8 of demo was rolled back from ")
