"""One valid page of all processes' metrics, whatever some of them do."""

import asyncio
import shutil
import subprocess
from dataclasses import replace

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from penumbra.deployments.metrics.aggregate import (
    LARGEST_PAGE_BYTES,
    MOST_TARGETS,
    Aggregate,
    fetcher,
    merged,
)
from penumbra.deployments.metrics.discovery import Target

GATEWAYS = [Target(f"127.0.0.1:810{n}", "gateway", f"gateway-{n}") for n in range(2)]
ENGINE = Target(
    "10.0.0.1:30000",
    "engine",
    "demo-full-0",
    "/demo-full/metrics",
    {"model": "demo", "variant": "full", "replica": "0"},
)
OWN = Target("127.0.0.1:8090", "control", "control")


def page(requests: float) -> str:
    return f"""# HELP penumbra_requests_total Requests.
# TYPE penumbra_requests_total counter
penumbra_requests_total{{model="demo",variant="full"}} {requests}
# HELP penumbra_request_duration_seconds How long.
# TYPE penumbra_request_duration_seconds histogram
penumbra_request_duration_seconds_bucket{{le="0.1"}} 1.0
penumbra_request_duration_seconds_bucket{{le="+Inf"}} 2.0
penumbra_request_duration_seconds_sum 3.5
penumbra_request_duration_seconds_count 2.0
# HELP penumbra_snapshot_epoch Epoch.
# TYPE penumbra_snapshot_epoch gauge
penumbra_snapshot_epoch 4.0
"""


ENGINES_PAGE = """# HELP vllm:num_requests_running Running.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="demo"} 2.0
# HELP vllm:prompt_tokens_total Tokens.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="demo",model="own"} 7.0
# HELP vllm:prompt_tokens_created Tokens.
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="demo"} 1.7e+09
"""


def read(text: bytes) -> dict[str, Metric]:
    """Families by name; a name that comes twice is an error here."""
    found = list(text_string_to_metric_families(text.decode()))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def values(text: bytes, name: str) -> dict[str, float]:
    """Process -> value of the sample of this name."""
    return {
        sample.labels["process"]: sample.value
        for family in read(text).values()
        for sample in family.samples
        if sample.name == name
    }


def test_series_of_processes_stay_apart_in_one_family() -> None:
    text = merged(GATEWAYS, [page(3), page(5)], {})
    assert values(text, "penumbra_requests_total") == {"gateway-0": 3.0, "gateway-1": 5.0}
    assert text.count(b"# TYPE penumbra_requests_total counter") == 1
    assert text.count(b"# HELP penumbra_request_duration_seconds How long.") == 1
    buckets = values(text, "penumbra_request_duration_seconds_count")
    assert buckets == {"gateway-0": 2.0, "gateway-1": 2.0}
    sample = read(text)["penumbra_requests"].samples[0]
    assert sample.labels == {
        "model": "demo",
        "variant": "full",
        "process": "gateway-0",
        "process_kind": "gateway",
    }


def test_engines_have_their_names_and_keep_labels_that_collide() -> None:
    text = merged([ENGINE], [ENGINES_PAGE], {})
    sample = read(text)["vllm:prompt_tokens"].samples[0]
    assert sample.labels == {
        "engine": "0",
        "model_name": "demo",
        "exported_model": "own",
        "model": "demo",
        "variant": "full",
        "replica": "0",
        "process": "demo-full-0",
        "process_kind": "engine",
    }


@pytest.mark.parametrize("bad", [None, "no exposition {", 'a{b="c} 1\n', "# TYPE x nonsense\n"])
def test_a_page_that_cannot_be_had_or_read_is_left_out_and_named(bad: str | None) -> None:
    text = merged([*GATEWAYS, ENGINE], [page(3), bad, ENGINES_PAGE], {})
    assert values(text, "penumbra_requests_total") == {"gateway-0": 3.0}
    assert values(text, "penumbra_process_up") == {
        "gateway-0": 1.0,
        "gateway-1": 0.0,
        "demo-full-0": 1.0,
    }


def test_a_family_of_another_type_does_not_spoil_the_page() -> None:
    other = "# TYPE penumbra_requests_total gauge\npenumbra_requests_total 1\n"
    other += "# TYPE penumbra_request_duration_seconds gauge\npenumbra_request_duration_seconds 1\n"
    problems: dict[str, str] = {}
    text = merged(GATEWAYS, [page(3), other], problems)
    assert "elsewhere a histogram" in problems["gateway-1"]
    assert read(text)["penumbra_request_duration_seconds"].type == "histogram"
    assert values(text, "penumbra_request_duration_seconds_count") == {"gateway-0": 2.0}
    assert values(text, "penumbra_process_up") == {"gateway-0": 1.0, "gateway-1": 1.0}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_problem_in_our_own_metrics() -> None:
    text = merged([*GATEWAYS, OWN], [page(3), page(5), None], {})
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


# Fetching


async def test_the_log_says_once_that_a_process_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[str | None] = [None, None, page(3), None]

    async def fetch(target: Target) -> str:
        answer = answers.pop(0)
        if answer is None:
            raise httpx.ConnectError("refused")
        return answer

    aggregate = Aggregate(fetch)
    for lines in (1, 1, 1, 2):
        await aggregate.text(GATEWAYS[:1])
        assert caplog.messages.count("metrics_left_out") == lines


async def test_a_hanging_process_holds_up_the_page_no_longer_than_the_deadline() -> None:
    async def fetch(target: Target) -> str:
        if target.process == "gateway-1":
            await asyncio.Event().wait()
        return page(3)

    text = await Aggregate(fetch, 0.05).text(GATEWAYS)
    assert values(text, "penumbra_process_up") == {"gateway-0": 1.0, "gateway-1": 0.0}


async def test_scrapes_at_the_same_time_share_one_round() -> None:
    fetched: list[str] = []

    async def fetch(target: Target) -> str:
        fetched.append(target.process)
        await asyncio.sleep(0)
        return page(3)

    aggregate = Aggregate(fetch)
    impatient = asyncio.create_task(aggregate.text(GATEWAYS))
    await asyncio.sleep(0)
    impatient.cancel()
    first, second = await asyncio.gather(aggregate.text(GATEWAYS), aggregate.text(GATEWAYS))
    assert first == second
    assert sorted(fetched) == ["gateway-0", "gateway-1"]
    await aggregate.text(GATEWAYS)
    assert len(fetched) == 4


async def test_an_installation_that_is_too_large_says_so() -> None:
    async def fetch(target: Target) -> str:
        return ""

    many = [Target("x:1", "gateway", f"gateway-{n}") for n in range(MOST_TARGETS + 3)]
    up = values(await Aggregate(fetch).text(many), "penumbra_process_up")
    assert (len(up), sum(up.values())) == (MOST_TARGETS + 3, MOST_TARGETS)


class Pages:
    """Answers for every target; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        assert "openmetrics" not in request.headers["accept"]
        match request.url.port:
            case 8100:
                return httpx.Response(200, text=page(3))
            case 8101:
                return httpx.Response(503, text=page(3))
            case 30000:
                return httpx.Response(200, text="# " + "x" * LARGEST_PAGE_BYTES)
            case _:
                raise httpx.ConnectError("refused")


async def test_pages_are_fetched_where_they_are_and_bounded() -> None:
    pages = Pages()
    transport = httpx.MockTransport(pages.answer)
    async with httpx.AsyncClient(transport=transport) as client:
        aggregate = Aggregate(fetcher(client, "http://127.0.0.1:1/metrics"))
        text = await aggregate.text([*GATEWAYS, ENGINE, OWN])
    assert values(text, "penumbra_process_up") == {
        "gateway-0": 1.0,
        "gateway-1": 0.0,
        "demo-full-0": 0.0,
        "control": 0.0,
    }
    assert sorted(pages.asked) == [
        "http://10.0.0.1:30000/demo-full/metrics",
        "http://127.0.0.1:1/metrics",
        "http://127.0.0.1:8100/metrics",
        "http://127.0.0.1:8101/metrics",
    ]


async def test_nothing_is_fetched_from_a_process_that_holds_no_link() -> None:
    asked: list[str] = []

    async def fetch(target: Target) -> str:
        asked.append(target.process)
        return page(3)

    lost = replace(GATEWAYS[1], is_linked=False)
    text = await Aggregate(fetch).text([GATEWAYS[0], lost])
    assert asked == ["gateway-0"]
    assert values(text, "penumbra_process_up") == {"gateway-0": 1.0, "gateway-1": 0.0}


SECRET = "canary"


@pytest.mark.parametrize(
    "other_page",
    [
        f"{SECRET} 7\n",
        f'{{"{SECRET}": 7}}',
        f"<html>{SECRET}</html>",
        f'{SECRET}_total{{a="{SECRET}"}} 1\n',
        f"# HELP {SECRET} {SECRET}\n# TYPE {SECRET} counter\n",
    ],
)
async def test_a_page_that_is_none_of_ours_is_not_echoed_in_page_or_log(
    other_page: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(target: Target) -> str:
        return other_page

    text = await Aggregate(fetch).text([GATEWAYS[0]])
    assert values(text, "penumbra_process_up") == {"gateway-0": 0.0}
    assert SECRET not in text.decode()
    assert SECRET not in "".join(str(record.__dict__) for record in caplog.records)
