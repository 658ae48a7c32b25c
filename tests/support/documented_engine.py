"""An OpenAI-compatible server on a port that a document names; it also scores, as vLLM does.

Its words are those of `engine_wire`. Every token id gets a log-probability from its position, so
that two servers of one `gap` are equal builds, and two of different gaps are not.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from tests.support.engine_wire import Engine, EngineRefusal, encode, engine_error

_CARD = {"id": "demo", "root": "demo", "parent": None, "max_model_len": 1024}
_PAGES = {
    "/health": b"",
    "/version": encode({"version": "0.32.0"}),
    "/v1/models": encode({"object": "list", "data": [_CARD]}),
    "/metrics": b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
    b"vllm:kv_cache_usage_perc 0\n",
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, build: Engine, gap: float) -> None:
        self.build = build
        self.gap = gap
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = _PAGES.get(self.path)
        self._answer(404 if page is None else 200, page or b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = cast("_Server", self.server)
        if "prompt_logprobs" in body:
            self._answer(200, encode({"choices": [{"prompt_logprobs": _rows(body, server.gap)}]}))
        elif self.path not in ("/v1/chat/completions", "/v1/completions", "/tokenize"):
            self._answer(404, encode({"detail": "Not Found"}))
        else:
            self._generate(server.build, body)

    def _generate(self, build: Engine, body: dict[str, Any]) -> None:
        try:
            if body.get("stream"):
                events = b"".join(build.events(self.path, body))
                self._answer(200, events, "text/event-stream")
            else:
                self._answer(200, build.answer(self.path, body))
        except EngineRefusal as refusal:
            self._answer(400, engine_error(str(refusal), 400))

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Print nothing."""


def _rows(body: dict[str, Any], gap: float) -> list[dict[str, Any] | None]:
    tokens = body["prompt"]
    scored = (
        {str(token): {"logprob": -0.1 - gap - 0.01 * (index % 7), "rank": 1}}
        for index, token in enumerate(tokens[1:], 1)
    )
    return [None, *scored]


@contextmanager
def engine_on(port: int, name: str, gap: float = 0.0) -> Iterator[None]:
    """Serve one build on a loopback port.

    Args:
        port: Fails the test if another process has it.
        name: Part of its answers' ids.
        gap: Nats by which its log-probabilities are below those of a server with 0.
    """
    try:
        server = _Server(port, Engine(name), gap)
    except OSError as error:
        raise AssertionError(f"port {port}, which the documents name, is taken: {error}") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


@contextmanager
def engines_on(*ports: int) -> Iterator[None]:
    """Serve builds of one model, one a port."""
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(engine_on(port, f"build-{port}"))
        yield
