"""The whole state of an evidence object as plain values, to compare two of them bit for bit."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel


def state_of(value: Any) -> Any:
    """Lists every attribute of an object, its private ones too, down to plain values."""
    if isinstance(value, Mapping):
        return [(state_of(key), state_of(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [state_of(item) for item in value]
    is_ours = type(value).__module__.startswith("penumbra.")
    if not is_ours or isinstance(value, Enum | BaseModel):
        return value
    names = [*_slots(type(value)), *getattr(value, "__dict__", ())]
    return type(value).__name__, [(name, state_of(getattr(value, name))) for name in names]


def _slots(kind: type) -> list[str]:
    return [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
