"""Bytes as tokens, and the chat format: the one place that training and serving agree on both.

A token id below 256 is that byte. The special tokens follow. The tokenizer files written here make
a Hugging Face tokenizer give exactly the ids of `encode_turn`; a test holds them together.
"""

import json
from pathlib import Path
from typing import Final

SPECIAL: Final = (
    "<|begin|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|pad|>",
    "<|reserved0|>",
    "<|reserved1|>",
)
BEGIN, END, USER, ASSISTANT, SYSTEM, PAD = range(256, 262)
VOCABULARY_SIZE: Final = 256 + len(SPECIAL)
POSITIONS: Final = 1024

CHAT_TEMPLATE: Final = (
    "<|begin|>"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def encode_turn(prompt: str) -> list[int]:
    """The ids of a user turn, up to where the assistant begins; `BEGIN` comes before the first."""
    return [USER, *prompt.encode(), END, ASSISTANT]


def encode_answer(answer: str) -> list[int]:
    """The ids that the model has to produce."""
    return [*answer.encode(), END]


def write_tokenizer(folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` with the chat template into `folder`."""
    alphabet = _byte_alphabet()
    added = [
        {
            "id": 256 + index,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, content in enumerate(SPECIAL)
    ]
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": False,
            "use_regex": False,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(alphabet)},
            "merges": [],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "pad_token": SPECIAL[5],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)


def _byte_alphabet() -> list[str]:
    """The printable character that byte-level BPE writes for each byte.

    Printable Latin-1 stands for itself; every other byte takes the next code point from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    alphabet: list[str] = []
    spare = 256
    for byte in range(256):
        if byte in printable:
            alphabet.append(chr(byte))
        else:
            alphabet.append(chr(spare))
            spare += 1
    return alphabet


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
