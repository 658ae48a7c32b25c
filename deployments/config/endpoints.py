"""Addresses of variants: the configuration names external ones, an endpoints file hosted ones."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from penumbra.deployments.config.loader import build_model
from penumbra.deployments.config.spec import PenumbraSpec
from penumbra.deployments.errors import ConfigInvalid
from penumbra.deployments.history.events import ConfigPayload

Endpoints = dict[str, dict[str, str]]
"""Model -> variant -> base URL."""

_ADAPTER: TypeAdapter[Endpoints] = TypeAdapter(Endpoints)


def read_endpoints(path: Path | None) -> Endpoints:
    """Reads an endpoints file; without one the result is empty.

    Raises:
        ConfigInvalid: It cannot be read.
    """
    if path is None:
        return {}
    try:
        return _ADAPTER.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise ConfigInvalid(str(path), (f"found {error.strerror}, wanted a file",)) from error
    except ValidationError as error:
        problem = f"found {error.errors()[0]['msg']}, wanted {{model: {{variant: base URL}}}}"
        raise ConfigInvalid(str(path), (problem,)) from error


def configuration(spec: PenumbraSpec, endpoints: Endpoints, file: str) -> ConfigPayload:
    """Makes the models of a configuration, with the address of every variant.

    Args:
        spec: The configuration.
        endpoints: Addresses of the hosted variants.
        file: The file that should name these addresses, for the error.

    Raises:
        ConfigInvalid: A hosted variant has no address.
    """
    missing: list[str] = []

    def base_url_of(model: str, variant: str) -> str:
        url = endpoints.get(model, {}).get(variant)
        if url is None:
            missing.append(f"{model}.{variant}: found nothing, wanted the variant's base URL")
        return url or ""

    models = {
        name: build_model(name, model, model.flag, base_url_of)
        for name, model in spec.models.items()
    }
    if missing:
        raise ConfigInvalid(file, tuple(missing))
    # A file without `keys` says nothing of them: gateways elsewhere may have some in theirs.
    keys = spec.keys if "keys" in spec.model_fields_set else None
    return ConfigPayload(models=models, keys=keys)


def hosted_endpoints(spec: PenumbraSpec, payload: ConfigPayload) -> Endpoints:
    """The addresses of the variants that are hosted beside the control process.

    Args:
        spec: The configuration that it started with.
        payload: Its models, with the address of every variant.
    """
    return {
        name: {
            variant: payload.models[name].variants[variant].url
            for variant, found in model.variants.items()
            if found.engine is not None
        }
        for name, model in spec.models.items()
    }
