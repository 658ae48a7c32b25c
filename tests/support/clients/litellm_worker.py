"""Calls litellm: each line of standard input names a function, a line answers.

It runs in the environment of `requirements/clients.txt`; `tests/support/litellm_client.py` has the
sending side. A call is `{"function", "arguments"}`, its outcome has `answer` or `chunks`, with the
`headers` that litellm keeps of the answer, or `error`.
"""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from operator import attrgetter
from typing import Any, TextIO


def main() -> None:
    """Answer calls until standard input ends."""
    # litellm prints hints about its errors: the outcomes get a descriptor of their own.
    outcomes = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner() as runner:
        serve(outcomes, runner)


def serve(outcomes: TextIO, runner: asyncio.Runner) -> None:
    for line in sys.stdin:
        outcomes.write(json.dumps(perform(json.loads(line), runner)) + "\n")
        outcomes.flush()


def perform(call: dict[str, Any], runner: asyncio.Runner) -> dict[str, Any]:
    import litellm  # seconds

    function = attrgetter(call["function"])(litellm)
    try:
        result = function(**call["arguments"])
        if inspect.isawaitable(result):
            return runner.run(of_async(result))
        if isinstance(result, Iterator):
            return {"chunks": [plain(part) for part in result], "headers": headers(result)}
        return {"answer": plain(result), "headers": headers(result)}
    except Exception as error:  # noqa: BLE001  # the tests judge it
        return {"error": described(error)}


async def of_async(awaitable: Any) -> dict[str, Any]:
    result = await awaitable
    if isinstance(result, AsyncIterator):
        return {"chunks": [plain(part) async for part in result], "headers": headers(result)}
    return {"answer": plain(result), "headers": headers(result)}


def plain(value: Any) -> Any:
    """The value as JSON has it."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value.decode() if isinstance(value, bytes) else value


def headers(result: Any) -> dict[str, str]:
    """The answer's headers, which litellm prefixes where it keeps them."""
    kept = getattr(result, "_hidden_params", None) or {}
    named = kept.get("additional_headers") or {}
    return {name.removeprefix("llm_provider-"): str(value) for name, value in named.items()}


def described(error: Exception) -> dict[str, Any]:
    facts = {"status": getattr(error, "status_code", None), "message": str(error)}
    for name in ("code", "param", "type"):
        value = getattr(error, name, None)
        facts[name] = None if value is None else str(value)
    return {"classes": [kind.__name__ for kind in type(error).__mro__], **facts}


if __name__ == "__main__":
    main()
