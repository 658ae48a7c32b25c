import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.scripts import SCRIPTS
from penumbra.monitoring.signals.writing import may_want_another, writing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The capital of France is Paris.", "latin"),
        ("Столица Франции называется Париж.", "cyrillic"),
        ("法国的首都是巴黎这座城市。", "han"),
        ("フランスの首都はパリという町です。", "japanese"),
        ("日本の首都は東京です。人口が多い。", "japanese"),
        ("프랑스의 수도는 파리입니다.", "hangul"),
        ("42 + 17 = 59", "none"),
        ("Paris.", "none"),
        ("", "none"),
        ("Вот программа для вас:\n```python\n" + "print('hello')\n" * 20 + "```", "cyrillic"),
    ],
)
def test_a_text_is_in_the_writing_of_its_prose(text: str, expected: str) -> None:
    assert writing(text) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "Translate this into Russian: good morning",
        "How do you say 'cat' in Japanese?",
        "Переведи на английский: доброе утро",
        "把这句话翻译成英文",
        "Traduis cette phrase",
        "Übersetze das bitte",
    ],
)
def test_a_prompt_that_names_a_language_may_want_another(prompt: str) -> None:
    assert may_want_another(prompt)


@pytest.mark.parametrize("prompt", ["What is the capital?", "Какая столица Франции?", ""])
def test_other_prompts_want_their_own(prompt: str) -> None:
    assert not may_want_another(prompt)


@given(st.text())
def test_every_text_is_in_some_writing(text: str) -> None:
    assert writing(text) in SCRIPTS | {"japanese"}
