"""Environment of a child process: the operator's, without the secrets of others.

A variable is a secret by its name (it ends in token, key, password, ...) or by its value
(a URL with a password). Each process of ours gets only the secrets that it is known to need.
Engines fetch weights from hubs and clouds with credentials that cannot be listed, so they get all
but Penumbra's own and the API keys of servers elsewhere. Variables of proxies are kept everywhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY|HEADERS|STORE_URL)(_ID|_FILE|_BASE64)?$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_PROXY = re.compile(r"_proxy$", re.IGNORECASE)
_PENUMBRAS = re.compile(r"^PENUMBRA_\w*(TOKEN|STORE_URL)(_FILE)?$")
_HUB_TOKENS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})


@dataclass(frozen=True)
class Secrets:
    """The secrets of the operator's environment that a process may have."""

    names: frozenset[str] = frozenset()
    """Variables that it needs."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of such variables."""
    is_engine: bool = False
    """Whether it may have all others too, but Penumbra's own tokens and `withheld`."""
    withheld: frozenset[str] = frozenset()
    """API keys of servers elsewhere."""

    def may_have(self, name: str, value: str) -> bool:
        """Whether the process may have a variable."""
        if name in self.names or not is_secret(name, value):
            return True
        if self.is_engine:
            is_anothers = name in self.withheld and name not in _HUB_TOKENS
            return _PENUMBRAS.match(name) is None and not is_anothers
        return name.startswith(self.prefixes)


NO_SECRETS = Secrets()


def child_environment(environment: Mapping[str, str], secrets: Secrets) -> dict[str, str]:
    """The variables of the operator's environment that a process may have.

    Args:
        environment: The operator's.
        secrets: What the process needs of it.
    """
    return {name: value for name, value in environment.items() if secrets.may_have(name, value)}


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like a secret."""
    if _PROXY.search(name):
        return False
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))
