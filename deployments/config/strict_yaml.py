"""YAML as configuration needs it: no key twice, no key that is not text, no dates by surprise."""

from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without timestamps, and with mappings that are JSON objects."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, *, deep: bool = False) -> Any:
    del deep
    _refuse_repeated_keys(node)
    # Only now: a key that is written out may override one that is merged in with `<<`.
    loader.flatten_mapping(node)
    return {
        _text_key(loader, key_node): loader.construct_object(value_node, deep=True)
        for key_node, value_node in node.value
    }


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key_node in scalars:
        if key_node.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f'found the key "{key_node.value}" a second time, wanted each key once',
                problem_mark=key_node.start_mark,
            )
        seen.add(key_node.value)


def _text_key(loader: _StrictLoader, node: yaml.Node) -> str:
    key = loader.construct_object(node, deep=True)
    if not isinstance(key, str):
        raise yaml.MarkedYAMLError(
            problem=f"found the key {key!r}, wanted text: put it in quotes",
            problem_mark=node.start_mark,
        )
    return key


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> Any:
    """The data of one YAML document: JSON types only.

    Raises:
        yaml.YAMLError: It is not YAML, or uses what is left out here; carries the line.
    """
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, see above
