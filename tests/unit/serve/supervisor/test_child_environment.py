"""Children get the secrets that they need, and no others."""

from pathlib import Path

import pytest

from penumbra.serve.supervisor.child_environment import Secrets, child_environment, is_secret
from penumbra.serve.supervisor.process import Program
from tests.unit.serve.supervisor.test_layout import hosted, layout_of

PLAIN = {
    "PATH": "/bin",
    "HOME": "/home/op",
    "LANG": "C.UTF-8",
    "http_proxy": "http://user:secret@proxy:3128",
    "HTTPS_PROXY": "http://user:secret@proxy:3128",
    "NO_PROXY": "127.0.0.1",
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_HOME": "/models",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "INFO",
    "RAY_TMPDIR": "/ray",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PENUMBRA_STATE_DIR": "/state",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
}
TOKENS = {
    f"PENUMBRA_{role}_TOKEN": f"{role.lower()}-token-of-the-tests"
    for role in ("ADMIN", "OPERATOR", "VIEWER", "GATEWAY", "COMPARATOR", "ALERT")
}
KEYS = {"COMPARED_KEY": "k1", "ALONE_KEY": "k2"}
OTHERS = {
    "HF_TOKEN": "hf",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "AWS_ACCESS_KEY_ID": "id",
    "GITHUB_TOKEN": "gh",
    "DATABASE_URL": "postgresql://op:secret@db/x",
}
PG = {"PGPASSWORD": "pg"}
OTEL = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=x"}
OPERATORS = {**PLAIN, **TOKENS, **KEYS, **OTHERS, **PG, **OTEL}
MODELS = {
    "compared": {
        "baseline": "full",
        "variants": {
            "full": {"url": "http://127.0.0.1:1", "api_key_env": "COMPARED_KEY"},
            "int8": hosted()["demo"]["variants"]["full"],
        },
    },
    "alone": {
        "baseline": "full",
        "variants": {"full": {"url": "http://127.0.0.1:2", "api_key_env": "ALONE_KEY"}},
    },
}


def secrets_of(program: Program | None) -> set[str]:
    """The secrets that a process has in the end."""
    assert program is not None
    found = {**child_environment(OPERATORS, program.secrets), **program.environment}
    assert PLAIN.items() <= found.items()
    return set(found) - set(PLAIN)


def test_each_process_has_its_own_secrets_only(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, MODELS, environment=OPERATORS)
    assert secrets_of(layout.control) == {*TOKENS, *PG, *OTEL}
    assert secrets_of(layout.gateways[0]) == {"PENUMBRA_GATEWAY_TOKEN", *KEYS, *OTEL}
    comparator = {"PENUMBRA_COMPARATOR_TOKEN", "COMPARED_KEY", *OTEL}
    assert secrets_of(layout.comparator) == comparator
    assert secrets_of(layout.fleet) == {*OTHERS, *PG, *OTEL}


@pytest.mark.parametrize("name", [*TOKENS, *KEYS, *OTHERS, *PG, *OTEL])
def test_secrets_are_known_by_name_or_value(name: str) -> None:
    assert is_secret(name, OPERATORS[name])


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_secret_is_passed_on_to_all(name: str) -> None:
    assert not is_secret(name, PLAIN[name])


def test_engine_keeps_the_token_of_the_hub_also_where_a_server_elsewhere_has_it() -> None:
    engine = Secrets(is_engine=True, withheld=frozenset({"HF_TOKEN", "COMPARED_KEY"}))
    assert set(child_environment({**OTHERS, **KEYS}, engine)) == {*OTHERS, "ALONE_KEY"}
