from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.router.flags.modality import MODALITIES, modality_of
from penumbra.router.flags.request_features import RequestFeatures

TEXT = {"type": "text", "text": "What is this?"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {}}


def turn(*parts: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def answered(tool: dict[str, object]) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": [tool]}]}


@pytest.mark.parametrize(
    ("route", "body", "expected"),
    [
        ("chat", {"messages": [{"role": "user", "content": "hello"}]}, "text"),
        ("chat", {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "text"),
        ("chat", turn(TEXT, "and this"), "text"),
        ("chat", turn(TEXT, PICTURE), "image"),
        ("chat", turn(SOUND), "audio"),
        ("chat", turn({"type": "video_url"}), "video"),
        ("chat", turn({"type": "file"}), "file"),
        ("chat", turn(PICTURE, SOUND), "mixed"),
        ("chat", turn({"type": "hologram"}, PICTURE), "unknown"),
        ("chat", turn({"image_url": "the engine guesses its type"}), "unknown"),
        ("chat", turn(5), "unknown"),
        ("chat", {"messages": [{"role": "user", "content": 5}]}, "unknown"),
        ("completions", {"prompt": "hello"}, "text"),
        ("completions", {"prompt": [1, 2]}, "text"),
        ("embeddings", {"input": ["one", "two"]}, "text"),
        ("embeddings", {"input": [[1, 2], [3]]}, "text"),
        ("responses", {"input": "hello"}, "text"),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "text"),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "image"),
        ("responses", {"input": [{"type": "function_call", "arguments": "{}"}]}, "text"),
        ("responses", {"input": [{"type": "function_call_output", "output": "5"}]}, "text"),
        (
            "responses",
            {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]},
            "image",
        ),
        ("responses", {"input": [{"type": "reasoning", "summary": []}]}, "text"),
        ("responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "unknown"),
        ("messages", turn({"type": "image", "source": {}}), "image"),
        ("messages", turn({"type": "document", "source": {}}), "file"),
        ("messages", answered({"type": "tool_result", "content": "5"}), "text"),
        ("messages", answered({"type": "tool_result", "content": [{"type": "image"}]}), "image"),
        ("transcriptions", {}, "audio"),
        ("tokenize", {}, "text"),
    ],
)
def test_a_modality_is_what_a_prompt_carries_besides_text(
    route: str, body: dict[str, Any], expected: str
) -> None:
    assert modality_of(route, body) == expected
    assert RequestFeatures.of(body, route).modality == expected


def test_a_body_that_cannot_be_read_is_of_no_known_modality() -> None:
    def load() -> object:
        raise ValueError("more than is decoded")

    assert RequestFeatures(load).modality == "unknown"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("image_url"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "output", "role"]), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["messages", "input", "prompt"]), json_values))
def test_modality_is_total(body: dict[str, Any]) -> None:
    assert modality_of("chat", body) in MODALITIES
