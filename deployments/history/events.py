"""Events: the changes to an installation, which are never changed themselves.

An event makes exactly one epoch. Pure.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from penumbra.deployments.history.identities import AccessPayload
from penumbra.deployments.rollouts.payload import RolloutPayload
from penumbra.router.flags.routing_table import Flag, ModelSnapshot
from penumbra.router.flags.tenant_keys import KeySettings

_STRICT = ConfigDict(extra="forbid", frozen=True)


class Kind(StrEnum):
    """Kind of an event. The values are stored; renaming one breaks old stores."""

    CONFIG = "config"
    """The configuration changed: models, variants, slices, keys, or where variants answer."""
    SET = "set"
    """The whole flag was replaced."""
    KILL = "kill"
    UNKILL = "unkill"
    PIN = "pin"
    UNPIN = "unpin"
    SPLIT = "split"
    IMPORT = "import"
    """The flag was read from flagd JSON."""
    RESET = "reset"
    """The flag went back to the one in the configuration file."""
    RECOVER = "recover"
    """The store had lost events, and what they took away was taken away again."""
    ROLLOUT = "rollout"
    """A rollout changed, and the flag with it: by an operator or by the guard."""
    ACCESS = "access"
    """An identity was added, its tokens were rotated, or it was revoked."""


class ConfigPayload(BaseModel):
    """The configured models and keys.

    A model without a stored flag starts with the flag given here.
    """

    model_config = _STRICT

    models: dict[str, ModelSnapshot]
    keys: tuple[KeySettings, ...] | None = None
    """API keys; None says nothing of them, and what was said before holds."""
    engines: dict[str, dict[str, dict[str, JsonValue]]] | None = None
    """Model -> variant -> its engine, as `penumbra.deployments.history.hosted_engines` has it, of
    the variants that are hosted here; None says nothing of them, as for keys."""
    starting: tuple[tuple[str, str], ...] = ()
    """Model and variant of each of these engines that does not answer yet."""


class FlagPayload(BaseModel):
    """One model's flag before and after."""

    model_config = _STRICT

    before: Flag
    after: Flag


class Authority(BaseModel):
    """The right by which a change was made: what the control process knows of the caller itself."""

    # Ignored: what a newer release knows besides; the change itself can be read.
    model_config = ConfigDict(extra="ignore", frozen=True)

    role: str = Field(max_length=32)
    """Role of the token that was shown."""
    identity: str | None = Field(default=None, max_length=512)
    """Name of the identity whose token it was; None: a token of the environment."""
    note: str = Field(default="", max_length=128)
    """Name that the client gave besides, if it is another one: a claim, and no proof."""


class Draft(BaseModel):
    """An event that is not stored yet, so without epoch and time."""

    model_config = _STRICT

    kind: Kind
    actor: str = Field(min_length=1, max_length=128)
    """The operator or service that made the change."""
    reason: str = Field(min_length=1, max_length=1000)
    """The reason in the actor's words."""
    model: str | None
    """The model whose flag changed; None for `config`, `set_aside.ACCESS` for `access`."""
    payload: ConfigPayload | FlagPayload | RolloutPayload | AccessPayload
    authority: Authority | None = None
    """None: a part of the system made the change, or a release of before wrote it."""


class Event(Draft):
    """A stored event."""

    epoch: int = Field(ge=1)
    at: datetime

    @classmethod
    def of(cls, draft: Draft, epoch: int, at: datetime) -> Self:
        """Make the event of a draft."""
        return cls(
            kind=draft.kind,
            actor=draft.actor,
            reason=draft.reason,
            model=draft.model,
            payload=draft.payload,
            authority=draft.authority,
            epoch=epoch,
            at=at,
        )

    def columns(self) -> tuple[dict[str, Any], str]:
        """All fields but the payload, and that as JSON: what `stored` reads."""
        fields = {
            "epoch": self.epoch,
            "at": self.at.isoformat(),
            "actor": self.actor,
            "reason": self.reason,
            "kind": self.kind.value,
            "model": self.model,
            "authority": self.authority and self.authority.model_dump_json(exclude_defaults=True),
        }
        # An older release refuses a field that it does not know, so it is written only where it is
        # used.
        return fields, self.payload.model_dump_json(exclude=_unused(self.payload))

    @classmethod
    def stored(cls, columns: dict[str, Any], payload: str) -> Self:
        """Read a stored event.

        Args:
            columns: All fields but the payload.
            payload: JSON.
        """
        kind = Kind(columns["kind"])
        told = columns.get("authority")
        return cls(
            **columns | {"authority": Authority.model_validate_json(told) if told else None},
            payload=_SCHEMAS.get(kind, FlagPayload).model_validate_json(payload),
        )


def _unused(payload: BaseModel) -> set[str]:
    """Fields of a configuration that the first releases do not know, and that say nothing."""
    names = {name for name in ("keys", "engines") if getattr(payload, name, None) is None}
    return names if getattr(payload, "starting", ()) else names | {"starting"}


_SCHEMAS: dict[Kind, type[ConfigPayload | FlagPayload | RolloutPayload | AccessPayload]] = {
    Kind.ACCESS: AccessPayload,
    Kind.CONFIG: ConfigPayload,
    Kind.ROLLOUT: RolloutPayload,
}
