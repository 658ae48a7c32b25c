"""Detects the script of a text (Latin, Greek, ...), to find answers in another one. Pure."""

import re
from collections import Counter

from penumbra.monitoring.signals.scripts import NONE, dominant_script

LOOKED_AT_CHARS = 4096
"""Characters that are looked at, from the beginning of a text."""
LEAST_LETTERS = 10
"""A text of fewer letters is in no writing: a name or a formula tells nothing."""

FENCE = "```"

_KANA_SHARE = 0.1
"""Japanese mixes kana and han in any proportion, Chinese has no kana at all."""

_FOREIGN = re.compile(
    "translat|transliterat|übersetz|tradui|traduz|traduc|перевод|перевед|переклад|tłumacz|çevir"
    "|翻译|翻譯|翻訳|번역|ترجم|תרגם|अनुवाद|แปล|dịch|μετάφρασ|μεταφράσ"
    "|arabic|armenian|bengali|bulgarian|chinese|cyrillic|english|french|georgian|german|greek"
    "|hebrew|hindi|italian|japanese|kanji|katakana|hiragana|korean|mandarin|persian|pinyin|polish"
    "|portuguese|romaji|russian|serbian|spanish|tamil|telugu|thai|turkish|ukrainian|urdu|vietnamese"
    "|английск|русск|китайск|японск|немецк|французск|испанск|арабск"
    "|英语|英文|中文|汉语|日语|俄语|英語|中国語|日本語|영어|한국어|중국어|일본어"
    "|الإنجليزية|العربية|अंग्रेज़ी|हिंदी|हिन्दी"
)
"""Words of a prompt that may ask for an answer in another language than its own."""


def writing(text: str) -> str:
    """The writing of a text; `none` if there is little text.

    It is one of `scripts.SCRIPTS`, or `japanese` for han with kana.

    Fenced code is left out: it is Latin in every language.
    """
    looked_at = prose(text)[:LOOKED_AT_CHARS]
    if sum(map(str.isalpha, looked_at)) < LEAST_LETTERS:
        return NONE
    script = dominant_script(looked_at)
    if script not in ("han", "kana"):
        return script
    scripts = Counter(map(dominant_script, filter(str.isalpha, looked_at)))
    is_japanese = scripts["kana"] >= _KANA_SHARE * (scripts["kana"] + scripts["han"])
    return "japanese" if is_japanese else "han"


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return "\n".join(text.split(FENCE)[::2]) if FENCE in text else text


def may_want_another(prompt: str) -> bool:
    """Whether a prompt names a language or speaks of translating.

    Then its answer may well be in another writing than the prompt, and none is wrong.
    """
    return _FOREIGN.search(prompt[:LOOKED_AT_CHARS].lower()) is not None
