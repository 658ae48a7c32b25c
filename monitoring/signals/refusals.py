"""Detects refusals by the beginning of an answer. Pure.

The detector is a short list of set phrases. It misses refusals in other words and other languages;
what it finds in both builds' answers cancels.
"""

import re

from penumbra.monitoring.signals.scripts import NONE
from penumbra.monitoring.signals.writing import LATIN, writing

LOOKED_AT_CHARS = 160
"""How much of the answer is looked at, from its beginning: later on, such words are content."""

_VERBS = (
    "(?:help|assist|provide|comply|do that|do this|fulfil|answer|create|generate|discuss|support"
    "|share|write|engage|continue|process|complete|give|offer|produce|respond)"
)
_PHRASES = re.compile(
    "|".join(
        (
            rf"\bi(?: can't| cannot| can not| won't| will not|'m unable to| am unable to"
            rf"|'m not able to| am not able to|'m not comfortable)(?: \w+)? {_VERBS}",
            r"\bas an ai(?: language model| assistant)?, i (?:can't|cannot|don't|do not|am not)",
            r"\bje ne (?:peux|suis) pas (?:en mesure de )?(?:vous |t')?(?:aider|répondre|fournir)",
            r"\bich kann (?:dir|ihnen|dabei|diese|das|bei dies\w+)\b.{0,40}\bnicht\b",
            r"\bno puedo (?:ayudar|proporcionar|responder|cumplir|hacer eso|generar|crear)",
            r"\bnão posso (?:ajudar|fornecer|responder|atender|gerar|criar)",
            r"\bnon posso (?:aiutar|fornire|rispondere|generare|creare)",
            r"\bя не (?:могу|в состоянии) (?:\w+ )?(?:помочь|ответить|предоставить|выполнить)",
            r"(?:我|很抱歉|抱歉).{0,6}(?:无法|不能|無法)(?:为您|帮|幫|提供|协助|協助|满足|滿足|回答|完成)",
            r"(?:お手伝い|お答え|ご提供|対応|提供)(?:する(?:こと)?(?:が|は))?.{0,3}(?:できません|できかねます)",
            r"(?:도와드릴|제공할|답변할|답변해 드릴) 수 없",
            r"لا (?:أستطيع|يمكنني) (?:مساعد|تقديم|الإجابة)",
        )
    )
)


_KNOWN_WRITINGS = frozenset({NONE, "cyrillic", "han", "japanese", "hangul", "arabic"})
_LETTERS_OF_OTHERS = re.compile("[ąćęłńśźżčďěňřšťůžğışđơưăâșțőűåøæāēģīķļņūėįųħ]")
_WORDS_OF_OTHERS = re.compile(
    r"\b(?:het|een|niet|ik|och|inte|jag|ikke|jeg|og|ei|että|olen|nie|jest|nejsem|není|bir|ben"
    r"|için|tidak|yang|dan|saya|nu|sunt|nem|hogy|vagyok|không|tôi|hindi|ako|ang|sio|kwa|mimi)\b"
)
_FEW = 2


def may_refuse_unseen(text: str) -> bool:
    """Whether a text is in a language whose refusals are not known here."""
    found = writing(text)
    if found in _KNOWN_WRITINGS:
        return False
    if found != LATIN:
        return True
    beginning = text[:LOOKED_AT_CHARS].lower()
    if _LETTERS_OF_OTHERS.search(beginning):
        return True
    return len(set(_WORDS_OF_OTHERS.findall(beginning))) >= _FEW


def is_refusal(text: str) -> bool:
    """Whether a text begins as a refusal does."""
    beginning = text[:LOOKED_AT_CHARS].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return _PHRASES.search(beginning) is not None
