"""Tokens of the control process, from its environment; all other settings are in the file."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penumbra.deployments.api.access import Access, Role

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
