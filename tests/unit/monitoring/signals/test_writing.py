import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.scripts import SCRIPTS
from penumbra.monitoring.signals.writing import holds, may_want_another, wanted_writing, writing


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


@pytest.mark.parametrize(
    "prompt",
    [
        "请解释 TypeError: Cannot read properties of undefined (reading 'map') in React",
        "Python の asyncio.gather と asyncio.wait の using create_task return_exceptions=True",
        "docker compose up --build fails with exit code 137 OOMKilled 왜 그런가요",
        "почему TypeError: unsupported operand type(s) for +: 'int' and 'str' in pandas DataFrame",
        "Γιατί docker compose build --no-cache fails with permission denied",
        "git rebase --interactive HEAD~3 מה זה עושה",
    ],
)
def test_latin_words_do_not_make_a_prompt_latin(prompt: str) -> None:
    assert wanted_writing(prompt) in ("none", "japanese", "cyrillic", "greek", "han", "hangul")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("What is the capital of France, and why?", "latin"),
        ("Was ist die Hauptstadt von Österreich?", "latin"),
        ("Какая столица Франции?", "cyrillic"),
        ("How large is the angle α in this triangle?", "latin"),
        ("Translate this into Russian: good morning", "none"),
    ],
)
def test_an_answer_should_be_in_the_writing_of_its_prompt(prompt: str, expected: str) -> None:
    assert wanted_writing(prompt) == expected


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("使用 asyncio.gather", "han", True),
        ("Use asyncio.gather", "han", False),
        ("await を使う", "japanese", True),
        ("используйте gather", "cyrillic", True),
        ("x", "cyrillic", False),
    ],
)
def test_a_few_letters_of_a_writing_are_found(text: str, wanted: str, expected: bool) -> None:
    assert holds(text, wanted) is expected


@given(st.text())
def test_every_text_is_in_some_writing(text: str) -> None:
    assert writing(text) in SCRIPTS | {"japanese"}
