"""Names that builds serve are compared with the configuration, and the report says what to do."""

import json
from collections.abc import Callable, Mapping

import httpx
import pytest

from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.serve.hosting.plan import app_name
from penumbra.serve.supervisor import served_models
from penumbra.serve.supervisor.served_models import (
    Findings,
    Served,
    ServedModels,
    compare,
    read_served,
)
from penumbra.serve.supervisor.state import Phase, VariantRecord

URL = "http://far:9000"
SPEC = PenumbraSpec.model_validate(
    {
        "models": {
            "demo": {
                "baseline": "full",
                "variants": {
                    "full": {"url": "http://full.test"},
                    "int8": {"url": "http://int8.test", "api_key_env": "INT8_KEY"},
                },
            }
        }
    }
)
Answer = Callable[[httpx.Request], httpx.Response]


def record(variant: str = "int8", url: str = URL, **fields: object) -> VariantRecord:
    given = {"model": "demo", "variant": variant, "url": url, "is_hosted": False}
    return VariantRecord.model_validate({**given, "phase": Phase.READY, **fields})


def serving(**lengths: int | None) -> Served:
    return Served(200, lengths)


def found(
    served: Served, of_baseline: Served | None = None, key_env: str | None = None
) -> Findings:
    return compare(record(), served, ("full", of_baseline), key_env)


def test_a_wrong_name_is_told_with_the_argument_that_mends_it() -> None:
    assert found(serving(foo=4096)).problems == (
        f"variant int8 at {URL} serves 'foo', not 'demo': start it with --served-model-name demo",
    )


def test_of_many_names_a_few_are_shown() -> None:
    [text] = found(serving(**{f"m{number}": None for number in range(40)})).problems
    assert "serves 'm0', 'm1', 'm2', 'm3', 'm4', not 'demo'" in text


def test_a_server_without_a_model_is_told() -> None:
    [text] = found(Served(200, {})).problems
    assert "serves no model, not 'demo'" in text


def test_the_public_name_among_others_is_right() -> None:
    assert found(serving(demo=4096, adapter=4096)) == Findings()


def test_a_shorter_context_than_the_baselines_is_a_warning() -> None:
    assert found(serving(demo=4096), serving(demo=8192)) == Findings(
        (),
        (
            f"variant int8 at {URL} takes 4096 tokens (max_model_len), the baseline full takes"
            " 8192: the baseline answers what is longer",
        ),
    )


@pytest.mark.parametrize(
    ("own", "of_baseline"),
    [
        (serving(demo=8192), serving(demo=8192)),
        (serving(demo=16384), serving(demo=8192)),
        (serving(demo=None), serving(demo=8192)),
        (serving(demo=4096), serving(demo=None)),
        (serving(demo=4096), serving(other=8192)),
        (serving(demo=4096), Served(404, None)),
        (serving(demo=4096), None),
    ],
)
def test_a_context_that_is_as_long_or_not_known_is_no_warning(
    own: Served, of_baseline: Served | None
) -> None:
    assert found(own, of_baseline) == Findings()


def test_the_baseline_is_not_compared_with_itself() -> None:
    own = serving(demo=4096)
    assert compare(record("full"), own, ("full", own), None) == Findings()


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key_is_told_with_the_setting(status: int) -> None:
    [without] = found(Served(status, None)).problems
    assert without == (
        f"variant int8 at {URL} refuses /v1/models with {status}: set api_key_env to the name of"
        " the variable that holds its key"
    )
    [wrong] = found(Served(status, None), key_env="INT8_KEY").problems
    assert "the key in INT8_KEY (api_key_env) is not set or not right" in wrong


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"detail": "Not Found"}'),
        (302, b""),
        (500, b""),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"data": 1}'),
        (200, b'{"data": [{"id": 7}]}'),
        (200, b'{"object": "list"}'),
        (200, b"\xff"),
    ],
)
def test_an_answer_that_is_no_list_is_a_warning(status: int, body: bytes) -> None:
    findings = found(read_served(status, body))
    assert findings.problems == ()
    assert f"answers {status} without a list to /v1/models" in findings.warnings[0]


def test_a_list_as_vllm_gives_it_is_read() -> None:
    card = {"id": "demo", "object": "model", "root": "/m", "parent": None, "max_model_len": 4096}
    body = json.dumps({"object": "list", "data": [card, {"id": "adapter"}]}).encode()
    assert read_served(200, body) == serving(demo=4096, adapter=None)


# All variants


def models(*names: str, length: int = 4096) -> httpx.Response:
    cards = [{"id": name, "max_model_len": length} for name in names]
    return httpx.Response(200, json={"object": "list", "data": cards})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """Host -> its answer; a host that is not here is not reached."""
    known: dict[str, Answer] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host not in known:
            raise httpx.ConnectError("refused")
        assert request.url.path == "/v1/models"
        return known[request.url.host](request)

    def client_of(_: VariantRecord) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(answer))

    monkeypatch.setattr(served_models, "client_of", client_of)
    return known


def checked(
    environment: Mapping[str, str], **fields: object
) -> tuple[dict[str, VariantRecord], ServedModels, list[int]]:
    records = {
        app_name("demo", name): record(name, f"http://{name}.test", **fields)
        for name in ("full", "int8")
    }
    changes: list[int] = []
    served = ServedModels(records, SPEC, environment, lambda: changes.append(1))
    return records, served, changes


async def test_builds_that_do_not_answer_yet_are_no_finding(answers: dict[str, Answer]) -> None:
    records, served, changes = checked({})
    await served.compare()
    assert changes == []
    assert all(not record.problems and not record.warnings for record in records.values())


async def test_findings_come_when_a_build_answers_and_go_when_it_is_mended(
    answers: dict[str, Answer],
) -> None:
    records, served, changes = checked({})
    answers["full.test"] = lambda _: models("demo", length=8192)
    answers["int8.test"] = lambda _: models("foo")
    await served.compare()
    await served.compare()
    assert len(changes) == 1
    assert "serves 'foo', not 'demo'" in records[app_name("demo", "int8")].problems[0]
    answers["int8.test"] = lambda _: models("demo", length=4096)
    await served.compare()
    int8 = records[app_name("demo", "int8")]
    assert (int8.problems, len(int8.warnings), len(changes)) == ((), 1, 2)
    del answers["int8.test"]
    await served.compare()
    assert records[app_name("demo", "int8")].warnings == ()


async def test_the_key_of_a_server_is_sent_to_it_and_to_no_other(
    answers: dict[str, Answer],
) -> None:
    seen: dict[str, str | None] = {}

    def note(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = request.headers.get("authorization")
        return models("demo")

    answers["full.test"] = answers["int8.test"] = note
    await checked({"INT8_KEY": "secret"})[1].compare()
    assert seen == {"full.test": None, "int8.test": "Bearer secret"}


async def test_a_hosted_build_is_asked_when_it_is_ready(answers: dict[str, Answer]) -> None:
    answers["full.test"] = answers["int8.test"] = lambda _: models("foo")
    records, served, _ = checked({}, is_hosted=True, phase=Phase.LOADING)
    await served.compare()
    assert not records[app_name("demo", "full")].problems
    for app in records:
        records[app] = records[app].model_copy(update={"phase": Phase.READY})
    await served.compare()
    assert records[app_name("demo", "full")].problems
