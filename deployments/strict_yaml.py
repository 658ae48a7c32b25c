"""YAML as configuration needs it: no key twice, no key that is not text, no dates by surprise."""

from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without timestamps, and with mappings that are JSON objects."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, *, deep: bool = False) -> Any:
    del deep
    loader.flatten_mapping(node)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(
                problem=f"found the key {key!r}, wanted text: put it in quotes",
                problem_mark=key_node.start_mark,
            )
        if key in mapping:
            raise yaml.MarkedYAMLError(
                problem=f'found the key "{key}" a second time, wanted each key once',
                problem_mark=key_node.start_mark,
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


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
