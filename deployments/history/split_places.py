"""Places of candidates in splits, kept from one configuration to the next. Pure.

A place says where a candidate's share lies on the line of a split
(`penumbra.router.flags.bucketing`). Without the places of the configuration before, it would follow
from the order in the file, and a variant that is taken out, or moved in the file, would give the
users of others to others.
"""

from collections.abc import Mapping

from penumbra.deployments.history.events import ConfigPayload
from penumbra.router.flags.bucketing import places
from penumbra.router.flags.routing_table import ModelSnapshot

Places = Mapping[str, Mapping[str, int]]
"""Model -> candidate -> place."""


def places_of(model: ModelSnapshot) -> dict[str, int]:
    """Return the place of each candidate of a model."""
    return places(_candidates(model), model.places)


def keep_places(payload: ConfigPayload, known: Places) -> ConfigPayload:
    """Return a configuration in which candidates that are known keep their places.

    Args:
        payload: The configuration.
        known: The places of the one before.
    """
    models = {name: _placed(model, known.get(name, {})) for name, model in payload.models.items()}
    return payload.model_copy(update={"models": models})


def _placed(model: ModelSnapshot, known: Mapping[str, int]) -> ModelSnapshot:
    kept = places(_candidates(model), known)
    # Left out where it follows from the order: an older gateway refuses a field that it does not
    # know.
    is_declared = kept == places(_candidates(model), {})
    return model.model_copy(update={"places": {} if is_declared else kept})


def _candidates(model: ModelSnapshot) -> list[str]:
    return [name for name in model.variants if name != model.baseline]
