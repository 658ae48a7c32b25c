"""Loader of rollout files."""

import json
from pathlib import Path

from pydantic import ValidationError

from penumbra.deployments.config import error_words
from penumbra.deployments.config.yaml_files import read_mapping
from penumbra.deployments.errors import ConfigInvalid
from penumbra.deployments.rollouts.limits import spec_problems
from penumbra.deployments.rollouts.spec import RolloutSpec


def load_rollout(path: Path) -> RolloutSpec:
    """Reads a rollout file.

    Raises:
        ConfigInvalid: The file cannot be read or used; lists every problem.
    """
    data = read_mapping(path, "a mapping with `model` and `candidate`")
    try:
        # Through JSON: strict validation takes a list for a tuple there, and only there.
        spec = RolloutSpec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ConfigInvalid(str(path), error_words.problems(error, RolloutSpec)) from error
    problems = tuple(spec_problems(spec))
    if problems:
        raise ConfigInvalid(str(path), problems)
    return spec
