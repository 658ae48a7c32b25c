import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest

from penumbra.serve.hosting.amx import allow_amx


@pytest.mark.parametrize("is_supported", [True, False])
def test_amx_is_asked_for_where_there_is_any(
    monkeypatch: pytest.MonkeyPatch, is_supported: bool
) -> None:
    asked: list[bool] = []
    cpu = SimpleNamespace(
        _is_amx_tile_supported=lambda: is_supported, _init_amx=lambda: asked.append(True)
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cpu=cpu))
    allow_amx()
    assert asked == [True] * is_supported


def test_vllm_finds_it_in_every_process() -> None:
    (found,) = entry_points(group="vllm.general_plugins", name="penumbra_amx")
    assert found.value == "penumbra.serve.hosting.amx:allow_amx"
