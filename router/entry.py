"""What the entry points of the processes share: settings are read, or it is said what is wrong."""

import argparse
import sys
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

TOKEN_VARIABLE = "PENUMBRA_GATEWAY_TOKEN"  # noqa: S105 -- the name, not the token

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class SettingsUnreadable(ValueError):
    """The settings cannot be read; says where and why."""

    code = "settings_unreadable"


def read_settings(kind: type[SettingsT], program: str, description: str | None) -> SettingsT:
    """The settings in the file that `--settings` names.

    Args:
        kind: What the file holds, as JSON.
        program: For the help text, as is `description`.
        description: What the program does.

    Raises:
        SettingsUnreadable: There is no such file, or its content is wrong.
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--settings", type=Path, required=True, help=f"{kind.__name__} as JSON")
    path = parser.parse_args().settings
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsUnreadable(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors()
        ]
        raise SettingsUnreadable("\n".join(lines)) from error


def complain(message: str) -> int:
    """Say why the process cannot run; its exit status."""
    print(message, file=sys.stderr)  # noqa: T201 -- read by a person, before logs are set up
    return 2
