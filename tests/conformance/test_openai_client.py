"""The official `openai` client against the gateway over a scripted engine."""

from collections.abc import Iterator
from contextlib import ExitStack

import openai
import pytest

from tests.support.behaviours import dying_stream, engine, respond
from tests.support.engine_wire import TEXT, Engine
from tests.support.gateway_process import GatewayProcess, key_settings
from tests.support.openai_contract import OpenAIContract
from tests.support.openai_endpoint import MESSAGES, Endpoint, text_of
from tests.support.scripted_upstream import ScriptedUpstream

KEY = "sk-of-the-tests"
FULL, INT8 = Engine("full"), Engine("int8")


@pytest.fixture(scope="module")
def int8() -> Iterator[ScriptedUpstream]:
    upstream = ScriptedUpstream("int8", engine(INT8))
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def endpoint(
    int8: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    with ExitStack() as stack:
        full = ScriptedUpstream("full", engine(FULL))
        full.start()
        stack.callback(full.stop)
        demo = {
            "baseline": "full",
            "variants": {"full": {"url": full.url}, "int8": {"url": int8.url}},
            "flag": {"split": {"int8": 50}},
        }
        settings = {
            "keys": [key_settings("acme", KEY, may_pin=True)],
            "snapshot": {"epoch": 1, "models": {"demo": demo}},
        }
        folder = tmp_path_factory.mktemp("gateway")
        process = stack.enter_context(GatewayProcess(settings, folder))
        yield Endpoint(f"http://127.0.0.1:{process.port}/v1", "demo", KEY)


@pytest.fixture(autouse=True)
def _fresh_scripts(int8: ScriptedUpstream) -> Iterator[None]:
    yield
    int8.reset()


class TestOpenAIClient(OpenAIContract):
    """The suite, and what only a scripted engine can show."""

    PINNED = {"x-penumbra-variant": "int8"}  # noqa: RUF012

    def test_wrong_key_is_refused(self, endpoint: Endpoint) -> None:
        with (
            openai.OpenAI(base_url=endpoint.base_url, api_key="sk-wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as caught,
        ):
            client.chat.completions.create(model=endpoint.model, messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"

    def test_embedding_is_answered(self, client: openai.OpenAI, endpoint: Endpoint) -> None:
        answer = client.embeddings.create(model=endpoint.model, input="text")
        assert answer.data[0].embedding == [0.25, -0.5, 0.125]

    def test_failing_candidate_is_not_seen(
        self, client: openai.OpenAI, endpoint: Endpoint, int8: ScriptedUpstream
    ) -> None:
        int8.always(respond(500, b"boom"))
        answer = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, extra_headers=self.PINNED
        )
        assert answer.choices[0].message.content == TEXT

    def test_dying_candidate_is_not_seen(
        self, client: openai.OpenAI, endpoint: Endpoint, int8: ScriptedUpstream
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        chunks = list(
            client.chat.completions.create(
                model=endpoint.model, messages=MESSAGES, stream=True, extra_headers=self.PINNED
            )
        )
        assert text_of(chunks) == TEXT
        assert len({chunk.id for chunk in chunks}) == 1

    def test_stream_that_cannot_be_continued_raises(
        self, client: openai.OpenAI, endpoint: Endpoint, int8: ScriptedUpstream
    ) -> None:
        int8.always(dying_stream(INT8, after_events=5))
        stream = client.chat.completions.create(
            model=endpoint.model, messages=MESSAGES, stream=True, n=2, extra_headers=self.PINNED
        )
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "upstream_died"
