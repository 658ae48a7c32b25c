"""Reader of YAML files with one mapping; every error names the file and the place in it."""

from pathlib import Path
from typing import Any

import yaml

from penumbra.deployments.config import error_words, strict_yaml
from penumbra.deployments.errors import ConfigInvalid


def read_mapping(path: Path, expected: str) -> dict[str, Any]:
    """Reads the mapping in a file.

    Args:
        path: The file.
        expected: Description of its content, for the error: ``a mapping with `models` ``.

    Raises:
        ConfigInvalid: The file cannot be read, or does not hold a YAML mapping.
    """
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigInvalid(file, (f"found {reason}, wanted a readable file",)) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(file, (f"found {error.reason}, wanted UTF-8 text",)) from error
    try:
        data = strict_yaml.parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigInvalid(file, (f"{where}{error.problem}",)) from error
    except yaml.YAMLError as error:
        raise ConfigInvalid(file, (f"found {error}, wanted YAML",)) from error
    if not isinstance(data, dict):
        raise ConfigInvalid(file, (f"found {error_words.shown(data)}, wanted {expected}",))
    return data
