"""Detects the script of a text by Unicode blocks. Pure."""

import bisect
from collections import Counter

_RANGES: tuple[tuple[int, int, str], ...] = (
    (0x0041, 0x005A, "latin"),
    (0x0061, 0x007A, "latin"),
    (0x00C0, 0x024F, "latin"),
    (0x0370, 0x03FF, "greek"),
    (0x0400, 0x052F, "cyrillic"),
    (0x0531, 0x058F, "armenian"),
    (0x05D0, 0x05F4, "hebrew"),
    (0x0620, 0x077F, "arabic"),
    (0x08A0, 0x08FF, "arabic"),
    (0x0900, 0x097F, "devanagari"),
    (0x0980, 0x09FF, "bengali"),
    (0x0A00, 0x0A7F, "gurmukhi"),
    (0x0A80, 0x0AFF, "gujarati"),
    (0x0B80, 0x0BFF, "tamil"),
    (0x0C00, 0x0C7F, "telugu"),
    (0x0C80, 0x0CFF, "kannada"),
    (0x0D00, 0x0D7F, "malayalam"),
    (0x0D80, 0x0DFF, "sinhala"),
    (0x0E00, 0x0E7F, "thai"),
    (0x0E80, 0x0EFF, "lao"),
    (0x0F00, 0x0FFF, "tibetan"),
    (0x1000, 0x109F, "myanmar"),
    (0x10A0, 0x10FF, "georgian"),
    (0x1100, 0x11FF, "hangul"),
    (0x1200, 0x139F, "ethiopic"),
    (0x1780, 0x17FF, "khmer"),
    (0x1E00, 0x1EFF, "latin"),
    (0x1F00, 0x1FFF, "greek"),
    (0x3040, 0x30FF, "kana"),
    (0x3130, 0x318F, "hangul"),
    (0x31F0, 0x31FF, "kana"),
    (0x3400, 0x4DBF, "han"),
    (0x4E00, 0x9FFF, "han"),
    (0xAC00, 0xD7AF, "hangul"),
    (0xF900, 0xFAFF, "han"),
    (0xFB50, 0xFDFF, "arabic"),
    (0xFE70, 0xFEFC, "arabic"),
    (0xFF66, 0xFF9F, "kana"),
    (0x20000, 0x323AF, "han"),
)
_STARTS = [start for start, _, _ in _RANGES]

NONE = "none"
OTHER = "other"
SCRIPTS = frozenset(name for _, _, name in _RANGES) | {NONE, OTHER}
"""Every script that a rule may name; `none` is a text without letters, `other` one not listed."""


def dominant_script(text: str) -> str:
    """The script of most letters of `text`; of two with equally many the one that comes first."""
    if text.isascii():
        return "latin" if text.upper() != text.lower() else NONE
    letters: Counter[str] = Counter()
    # Distinct characters are few, so the look-up by range runs some dozens of times, not thousands.
    for character, count in Counter(text).items():
        if character.isalpha():
            letters[_script_of(ord(character))] += count
    return max(letters, key=letters.__getitem__) if letters else NONE


def _script_of(code_point: int) -> str:
    index = bisect.bisect_right(_STARTS, code_point) - 1
    if index >= 0:
        _, end, name = _RANGES[index]
        if code_point <= end:
            return name
    return OTHER
