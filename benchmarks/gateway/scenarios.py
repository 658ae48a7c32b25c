"""The loads: what the C load generator is told, and what it says."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.gateway.build import BUILD
from benchmarks.gateway.targets import KEY, Target

STREAM_TOKENS = 128
_UNARY_TOKEN = "penumbra-bench-answer"  # noqa: S105 - a word in the answer
_STREAM_TOKEN = "lorem7"  # noqa: S105 - a word in each token
_MIN_BODY = 250


class LoadError(Exception):
    """The load generator could not run."""


@dataclass(frozen=True)
class Scenario:
    """One kind of load, for one window."""

    name: str
    connections: int
    window_ms: int
    warmup_ms: int = 400
    tokens_per_second: int | None = None
    """None: not a stream. 0: a stream as fast as it goes. Else a stream paced at that rate."""

    @property
    def is_stream(self) -> bool:
        """Whether the answers are streams."""
        return self.tokens_per_second is not None

    def longer(self, factor: int) -> "Scenario":
        """The same with more time to begin and to watch, if it is a stream."""
        if not self.is_stream or factor == 1:
            return self
        window, warmup = self.window_ms * factor, self.warmup_ms * factor
        return Scenario(self.name, self.connections, window, warmup, self.tokens_per_second)

    def shorter(self) -> "Scenario":
        """The same for a quick look; a paced stream's window must see streams begin."""
        if self.tokens_per_second:
            return self
        window, warmup = int(self.window_ms * 0.6), int(self.warmup_ms * 0.6)
        return Scenario(self.name, self.connections, window, warmup, self.tokens_per_second)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("unary-1", 1, 1500),
    Scenario("unary-16", 16, 2000),
    Scenario("unary-64", 64, 1500),
    Scenario("paced-64", 64, 2600, 600, tokens_per_second=50),
    Scenario("max-64", 64, 1500, tokens_per_second=0),
)


class Measurement(BaseModel):
    """Figures of one window. Times are microseconds unless the name says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    answers: int
    tokens: int
    errors: int
    error: str
    seconds: float
    cpu_seconds: float
    p50_us: float
    p99_us: float
    first_p50_us: float
    first_p99_us: float


def request_bytes(target: Target, scenario: Scenario) -> bytes:
    """One whole HTTP request; each run of eight `@` becomes the request's number."""
    body = {
        "model": target.model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {
                "role": "user",
                "content": "Question @@@@@@@@: which of these is the largest, and why?",
            },
        ],
        "max_tokens": STREAM_TOKENS,
        "temperature": 0,
        "user": "user-@@@@@@@@",
    }
    if scenario.is_stream:
        body |= {"stream": True, "seed": scenario.tokens_per_second}
    data = json.dumps(body, separators=(",", ":"))
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nAccept: */*\r\nUser-Agent: penumbra-bench\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return (head + data).encode()


def measure(
    scenario: Scenario, request: Path, port: int, pids: Sequence[int], core: int
) -> Measurement:
    """Runs one load; the CPU time is that of `pids` within the window.

    Raises:
        LoadError: the load generator stopped: the target is gone, or refuses connections.
    """
    command = ["taskset", "-c", str(core), str(BUILD / "load"), "-p", str(port), "-f", str(request)]
    command += ["-c", str(scenario.connections), "-w", str(scenario.warmup_ms)]
    command += ["-d", str(scenario.window_ms), "-b", str(_MIN_BODY)]
    if scenario.is_stream:
        command += ["-t", _STREAM_TOKEN, "-n", str(STREAM_TOKENS)]
    else:
        command += ["-t", _UNARY_TOKEN, "-n", "1"]
    if scenario.tokens_per_second:
        # Spread over one token's time, so that the streams' tokens do not come in one burst.
        command += ["-s", str(1_000_000 // scenario.tokens_per_second // scenario.connections)]
    for pid in pids:
        command += ["-P", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{scenario.name}: the load generator hangs") from error
    if done.returncode != 0:
        raise LoadError(f"{scenario.name}: {done.stderr.strip() or done.returncode}")
    return Measurement.model_validate_json(done.stdout)
