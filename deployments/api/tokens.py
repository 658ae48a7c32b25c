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
    alert_token: SecretStr | None = Field(default=None, min_length=TOKEN_CHARS)

    def access(self) -> Access:
        """Builds the access control of these tokens."""
        tokens = {
            Role.ADMIN: self.admin_token,
            Role.OPERATOR: self.operator_token,
            Role.VIEWER: self.viewer_token,
        }
        given = {role: token.get_secret_value() for role, token in tokens.items() if token}
        alerts = self.alert_token.get_secret_value() if self.alert_token else None
        return Access(given, self.gateway_token.get_secret_value(), alerts)
