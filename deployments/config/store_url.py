"""The store's URL: from the environment, so that its password need not be in the configuration."""

from collections.abc import Mapping
from pathlib import Path

from penumbra.deployments.config.loader import load_in_force
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.router.secret_values import SecretUnreadable, secret_of

STORE_URL_VARIABLE = "PENUMBRA_STORE_URL"


def with_store_url(spec: PenumbraSpec, environment: Mapping[str, str]) -> PenumbraSpec:
    """Use the store that the environment names, if it names one, in place of `control.store`.

    Raises:
        ConfigInvalid: It names one in two ways, or in a file that cannot be read.
    """
    try:
        url = secret_of(environment, STORE_URL_VARIABLE)
    except SecretUnreadable as error:
        raise ConfigInvalid("the environment", (str(error),)) from error
    if url is None:
        return spec
    return spec.model_copy(update={"control": spec.control.model_copy(update={"store": url})})


def load_with_store(path: Path | str, environment: Mapping[str, str]) -> PenumbraSpec:
    """Read a configuration file that an installation may run with, and the store's URL.

    Raises:
        ConfigInvalid: The file, or what the environment says of the store, cannot be used.
    """
    return with_store_url(load_in_force(path), environment)
