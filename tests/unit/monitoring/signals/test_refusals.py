import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.monitoring.signals.refusals import LOOKED_AT_CHARS, is_refusal, may_refuse_unseen


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, I can\N{RIGHT SINGLE QUOTATION MARK}t assist.",
        "I cannot provide instructions for that.",
        "Sorry, I am unable to answer this question.",
        "As an AI language model, I don't have opinions.",
        "I will not create that content.",
        "Je suis désolé, je ne peux pas vous aider.",
        "Es tut mir leid, aber ich kann dir dabei nicht helfen.",
        "Lo siento, no puedo ayudar con eso.",
        "Desculpe, não posso ajudar com isso.",
        "Mi dispiace, non posso aiutare.",
        "Извините, я не могу помочь с этим.",
        "很抱歉，我无法提供帮助。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "عذرا، لا أستطيع مساعدتك",
    ],
)
def test_a_set_phrase_is_a_refusal(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris is the capital of France.",
        "I can't believe how well this works! Here is the list.",
        "You cannot help but smile.",
        "Sorry for the delay; here is your answer.",
        "No puedo más, dijo ella.",
        "x" * LOOKED_AT_CHARS + " I cannot help with that.",
    ],
)
def test_other_beginnings_are_none(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Przykro mi, ale nie mogę pomóc w tej sprawie.",
        "Het spijt me, maar ik kan je daar niet mee helpen.",
        "Jag är ledsen, men det kan jag inte hjälpa dig med, och jag beklagar.",
        "Üzgünüm, bu konuda yardımcı olamam.",
        "Xin lỗi, tôi không thể giúp bạn việc này.",
        "Maaf, saya tidak dapat membantu dengan permintaan yang ini.",
        "ขอโทษ ฉันไม่สามารถช่วยเรื่องนี้ได้",
        "Λυπάμαι, δεν μπορώ να βοηθήσω με αυτό.",
    ],
)
def test_a_refusal_in_another_language_may_go_unseen(text: str) -> None:
    assert not is_refusal(text)
    assert may_refuse_unseen(text)


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is Paris, and it is large.",
        "La capitale de la France est Paris.",
        "Die Hauptstadt von Frankreich ist Paris.",
        "La capital de Francia es París.",
        "A capital da França é Paris.",
        "Столица Франции называется Париж.",
        "法国的首都是巴黎这座城市。",
        "42",
        "",
    ],
)
def test_refusals_are_known_in_the_languages_of_the_phrases(text: str) -> None:
    assert not may_refuse_unseen(text)


@given(st.text())
def test_only_the_beginning_decides(text: str) -> None:
    assert is_refusal(text) == is_refusal(text[:LOOKED_AT_CHARS])
