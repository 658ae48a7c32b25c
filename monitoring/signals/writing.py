"""Detects the script of a text (Latin, Greek, ...), to find answers in another one. Pure."""

import re
from collections import Counter

from penumbra.monitoring.signals.scripts import NONE, SCRIPTS, dominant_script

LOOKED_AT_CHARS = 4096
"""Characters that are looked at, from the beginning of a text."""
LEAST_LETTERS = 10
"""A text of fewer letters is in no writing: a name or a formula tells nothing."""

FEW_LETTERS = 2
"""So many letters of a writing are no symbols: one Chinese word has no more."""
LATIN = "latin"
JAPANESE = "japanese"
WRITINGS = SCRIPTS | {JAPANESE}
"""Every writing that a text may have."""

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

    It is one of `WRITINGS`: a script, or `japanese` for han with kana.

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
    return JAPANESE if is_japanese else "han"


def wanted_writing(prompt: str) -> str:
    """The writing that an answer to a prompt should have; `none` if it may be any.

    Latin words stand in texts of every language, technical ones above all. So a prompt that is
    mostly Latin, with a few letters of another writing, may well want its answer in that one.
    """
    if may_want_another(prompt):
        return NONE
    found = writing(prompt)
    if found != LATIN:
        return found
    foreign = Counter(map(dominant_script, filter(_is_foreign, prose(prompt)[:LOOKED_AT_CHARS])))
    return NONE if max(foreign.values(), default=0) >= FEW_LETTERS else LATIN


def holds(text: str, wanted: str) -> bool:
    """Whether a text holds letters of a writing, if only a few."""
    scripts = ("han", "kana") if wanted == JAPANESE else (wanted,)
    looked_at = filter(str.isalpha, prose(text)[:LOOKED_AT_CHARS])
    return sum(dominant_script(letter) in scripts for letter in looked_at) >= FEW_LETTERS


def _is_foreign(character: str) -> bool:
    return character.isalpha() and dominant_script(character) != LATIN


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return "\n".join(text.split(FENCE)[::2]) if FENCE in text else text


def may_want_another(prompt: str) -> bool:
    """Whether a prompt names a language or speaks of translating.

    Then its answer may well be in another writing than the prompt, and none is wrong.
    """
    return _FOREIGN.search(prompt[:LOOKED_AT_CHARS].lower()) is not None
