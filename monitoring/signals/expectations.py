"""Reads from a request the properties that any right answer must have. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from penumbra.monitoring.signals.answer import CHAT_PATH, COMPLETIONS_PATH
from penumbra.monitoring.signals.scripts import NONE
from penumbra.monitoring.signals.writing import wanted_writing

COMPLETIONS_LIMIT_TOKENS = 16
"""Default limit of the completions API."""


class Expectations(msgspec.Struct, frozen=True):
    """Properties that an answer must have. The defaults expect nothing but some text."""

    choices: int = 1
    limit_tokens: int | None = None
    """The most tokens of one choice that the request allows; None if it does not say."""
    wants_json: bool = False
    schema: bytes | None = None
    """JSON schema of the answer, as JSON."""
    tools: dict[str, bytes | None] = {}
    """Name -> JSON schema of the arguments, as JSON; None if the tool says nothing about them."""
    must_call: bool = False
    """Whether the answer has to call a tool."""
    writing: str = NONE
    """What `writing` calls the last user text; `none` if the answer may be in any."""
    usual_chars: float | None = None
    """Usual characters of such answers (`lengths.UsualLengths`). The request does not say it: the
    caller, who counts, fills it in. Without it length drift is not checked."""
    is_partial: bool = False
    """Whether the client left before the end, and both answers are cut where it did: then only what
    shows in the beginning of an answer is looked at."""


def expectations(path: str, body: bytes) -> Expectations:
    """Read a request.

    Args:
        path: `CHAT_PATH` or `COMPLETIONS_PATH`.
        body: What the client sent, which an engine has accepted. What cannot be read in it is not
            expected; nothing raises.
    """
    try:
        wanted = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Expectations()
    if path not in (CHAT_PATH, COMPLETIONS_PATH) or not isinstance(wanted, dict):
        return Expectations()
    is_chat = path == CHAT_PATH
    wants_json, schema = wants_json_by(wanted)
    tools = tools_of(_functions(wanted.get("tools")), "parameters") if is_chat else {}
    messages, own = wanted.get("messages"), wanted.get("prompt")
    prompt = last_user_text(messages) if is_chat else _last_prompt(own)
    choice = wanted.get("tool_choice")
    return Expectations(
        choices=_positive(wanted.get("n"), 1) * (1 if is_chat else _prompts(own)),
        limit_tokens=_limit(wanted, is_chat),
        wants_json=wants_json,
        schema=schema,
        tools=tools,
        must_call=bool(tools) and (choice == "required" or isinstance(choice, dict)),
        writing=wanted_writing(prompt),
    )


def _limit(body: Mapping[str, Any], is_chat: bool) -> int | None:
    if is_chat:
        return limit_of(body, "max_completion_tokens", "max_tokens")
    limit = limit_of(body, "max_tokens")
    return COMPLETIONS_LIMIT_TOKENS if limit is None else limit


def wants_json_by(body: Mapping[str, Any]) -> tuple[bool, bytes | None]:
    """Tell whether JSON is wanted by OpenAI's fields or vLLM's, and its schema if there is one."""
    wanted = body.get("response_format")
    if isinstance(wanted, dict):
        if wanted.get("type") == "json_object":
            return True, None
        if wanted.get("type") == "json_schema":
            described = wanted.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else None
            return True, encoded_schema(schema)
    guide = body.get("structured_outputs")
    schema = guide.get("json") if isinstance(guide, dict) else None
    if schema is None:
        schema = body.get("guided_json")
    if schema is not None:
        return True, encoded_schema(schema)
    return isinstance(guide, dict) and guide.get("json_object") is True, None


def encoded_schema(schema: object) -> bytes | None:
    """Write a schema as JSON; it may come as an object or as JSON in a string."""
    if isinstance(schema, str):
        return schema.encode(errors="replace")
    return msgspec.json.encode(schema) if isinstance(schema, dict) else None


def tools_of(offered: object, schema_field: str) -> dict[str, bytes | None]:
    """Read tools that are named at their top: name -> schema of the arguments, if it has one."""
    found: dict[str, bytes | None] = {}
    for tool in offered if isinstance(offered, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            found[tool["name"]] = encoded_schema(tool.get(schema_field))
    return found


def _functions(offered: object) -> list[object]:
    tools = offered if isinstance(offered, list) else []
    return [tool.get("function") for tool in tools if isinstance(tool, dict)]


def last_user_text(turns: object) -> str:
    """Read the text of the last turn of the user; empty if there is none."""
    for turn in reversed(turns) if isinstance(turns, list) else ():
        if isinstance(turn, dict) and turn.get("role") == "user":
            return _text(turn.get("content"))
    return ""


def limit_of(body: Mapping[str, Any], *names: str) -> int | None:
    """Read the first of these limits that is a whole number."""
    for name in names:
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _last_prompt(prompt: object) -> str:
    if isinstance(prompt, list):
        prompt = prompt[-1] if prompt else ""
    return prompt if isinstance(prompt, str) else ""


def _prompts(prompt: object) -> int:
    """How many prompts there are: a list of numbers is one, as tokens."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _positive(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default
