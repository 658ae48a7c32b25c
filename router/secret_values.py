"""Secrets of the environment: the value of a variable, or the content of the file that one names.

A secret NAME is given as the variable NAME, or as NAME_FILE with the path of a file, as container
platforms mount them. Both at once are refused: which one was meant cannot be known.
"""

from collections.abc import Mapping
from pathlib import Path

FILE_SUFFIX = "_FILE"
_MOST_BYTES = 64 * 1024


class SecretUnreadable(ValueError):
    """A secret is given in two ways, or its file cannot be read; the message quotes no secret."""

    code = "secret_unreadable"


def secret_of(environment: Mapping[str, str], name: str) -> str | None:
    """Read a secret; None if it is not given, or empty.

    Args:
        environment: The environment's variables.
        name: Name of the variable.

    Raises:
        SecretUnreadable: Both the variable and its file are given, or the file cannot be read.
    """
    file = environment.get(f"{name}{FILE_SUFFIX}", "")
    if not file:
        return environment.get(name) or None
    if environment.get(name):
        raise SecretUnreadable(f"found both {name} and {name}{FILE_SUFFIX}, wanted one of them")
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SecretUnreadable(f"{name}{FILE_SUFFIX}: cannot read {file}: {reason}") from error
    return text.strip() or None


def api_key_of(environment: Mapping[str, str], name: str | None) -> str | None:
    """Read a server's API key; None if no name is given, or nothing can be read under it."""
    try:
        return secret_of(environment, name) if name else None
    except SecretUnreadable:
        return None  # the caller says that the key is missing; the server refuses requests
