"""Command line of the process entry points: reads the settings file or reports its errors."""

import argparse
import sys
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

TOKEN_VARIABLE = "PENUMBRA_GATEWAY_TOKEN"  # noqa: S105 -- the name, not the token
COMPARATOR_TOKEN_VARIABLE = "PENUMBRA_COMPARATOR_TOKEN"  # noqa: S105 -- likewise
"""The comparator's token; without it the comparator shows the gateways'."""

SettingsT = TypeVar("SettingsT", bound=BaseModel)


class SettingsUnreadable(ValueError):
    """The settings cannot be read; the message names the file, the place and the reason."""

    code = "settings_unreadable"


def read_settings(kind: type[SettingsT], program: str, description: str | None) -> SettingsT:
    """Read the settings from the file that `--settings` names.

    Args:
        kind: Model of the settings; the file holds it as JSON.
        program: Command, for the help text.
        description: Description of the program, for the help text.

    Raises:
        SettingsUnreadable: The file is missing or its content is wrong.
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
    """Print why the process cannot run; returns its exit status, 2."""
    print(message, file=sys.stderr)  # noqa: T201 -- read by a person, before logs are set up
    return 2
