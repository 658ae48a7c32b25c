"""Parses YAML for configuration: keys are text and unique, and dates stay text.

PyYAML 6.0.4 merges (`<<`) wrongly: a base loses its own overrides, and of several bases the last
one wins. The result looks like a valid configuration, so `parse` refuses such a version.
"""

import functools
from typing import Any

import yaml

from penumbra.deployments.errors import ConfigInvalid

_MERGES = """
base: &base {a: 1, first: 1}
derived: &derived {<<: *base, a: 2}
other: &other {first: 3, second: 3}
again: {<<: *derived}
several: {<<: [*base, *other], second: 4}
"""
_MERGED = {"again": {"a": 2, "first": 1}, "several": {"a": 1, "first": 1, "second": 4}}


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without timestamps, whose mappings are JSON objects."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode, *, deep: bool = False) -> Any:
    del deep
    _refuse_repeated_keys(node)
    # After the check: a key that is written out may override one that `<<` merges in.
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


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> Any:
    """Parses one YAML document into JSON types.

    Raises:
        yaml.YAMLError: The text is not YAML, or uses a feature that is refused here; carries the
            line.
        ConfigInvalid: The installed PyYAML merges wrongly.
    """
    require_right_merges()
    return _load(text)


@functools.cache
def require_right_merges() -> None:
    """Checks, once, that the installed PyYAML resolves merge keys as YAML defines them.

    Raises:
        ConfigInvalid: It does not.
    """
    document = _load(_MERGES)
    merged = {name: document[name] for name in _MERGED}
    if merged != _MERGED:
        problem = "found that merge keys (`<<`) lose overrides, wanted another version: 6.0.3"
        raise ConfigInvalid(f"PyYAML {yaml.__version__}", (problem,))


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, see above
