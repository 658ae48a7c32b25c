"""Tokens of the control process, from its environment; all other settings are in the file."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penumbra.deployments.api.access import Access, Role
from penumbra.router.secret_values import secret_of

TOKEN_CHARS = 16
"""Least length of a token, characters."""


class ControlSettings(BaseSettings):
    """Tokens from the variables PENUMBRA_ADMIN_TOKEN, PENUMBRA_GATEWAY_TOKEN and so on.

    Raises:
        ValueError: A required token is missing, or a token is too short.
    """

    model_config = SettingsConfigDict(env_prefix="PENUMBRA_", frozen=True, extra="ignore")

    admin_token: SecretStr = Field(min_length=TOKEN_CHARS)
    operator_token: SecretStr | None = Field(default=None, min_length=TOKEN_CHARS)
    viewer_token: SecretStr | None = Field(default=None, min_length=TOKEN_CHARS)
    gateway_token: SecretStr = Field(min_length=TOKEN_CHARS)
    comparator_token: SecretStr | None = Field(default=None, min_length=TOKEN_CHARS)
    """Without it comparators show the gateways' token."""
    alert_token: SecretStr | None = Field(default=None, min_length=TOKEN_CHARS)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the tokens from an environment, each from its variable or the file that one names.

        Raises:
            ValueError: A required token is missing, or a token is too short.
            SecretUnreadable: A token is given in two ways, or its file cannot be read.
        """
        names = {field: f"PENUMBRA_{field}".upper() for field in cls.model_fields}
        found = {field: secret_of(environment, name) for field, name in names.items()}
        given = {field: SecretStr(token) for field, token in found.items() if token}
        return cls.model_validate(given)

    def access(self) -> Access:
        """Builds the access control of these tokens."""
        tokens = {
            Role.ADMIN: self.admin_token,
            Role.OPERATOR: self.operator_token,
            Role.VIEWER: self.viewer_token,
        }
        given = {role: token.get_secret_value() for role, token in tokens.items() if token}
        alerts, comparators = _given(self.alert_token), _given(self.comparator_token)
        return Access(given, self.gateway_token.get_secret_value(), alerts, comparators)


def _given(token: SecretStr | None) -> str | None:
    return token.get_secret_value() if token else None
