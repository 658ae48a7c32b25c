"""OpenTelemetry is imported where an endpoint is set, and nowhere else."""

import os
import subprocess
import sys

import pytest

from tests.conformance.test_packages import ROOT

ENTRY_POINTS = (
    "penumbra.router.__main__",
    "penumbra.router.shadow.__main__",
    "penumbra.deployments.__main__",
)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FOUND = "print(sorted({n.split('.')[0] for n in sys.modules} & {'opentelemetry', 'grpc'}))"
ENTER = """
from penumbra.monitoring.tracing.export import tracing
with tracing(os.environ, 'penumbra-test', 'test-0') as tracer:
    print(tracer is not None)
"""


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_process_without_an_endpoint_does_not_import_it(name: str) -> None:
    done = run(f"import os, sys, {name}{ENTER}    {FOUND}")
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["False", "[]"]), done.stderr


def test_a_process_with_an_endpoint_does() -> None:
    done = run(f"import os, sys{ENTER}    {FOUND}", **{ENDPOINT: "http://127.0.0.1:9"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["True", "['grpc', 'opentelemetry']"]


def test_what_is_missing_is_said_with_what_to_install() -> None:
    hidden = "import os, sys; sys.modules['opentelemetry.exporter.otlp.proto.grpc'] = None"
    done = run(f"{hidden}{ENTER}", **{ENDPOINT: "http://127.0.0.1:9"})
    assert done.returncode != 0
    assert "pip install '.[tracing]'" in done.stderr
    assert "opentelemetry.exporter.otlp.proto.grpc" in done.stderr
