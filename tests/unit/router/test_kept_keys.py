"""The keys that a gateway was told last, over its restarts."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from penumbra.router.errors import InvalidKey
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.flags.tenant_keys import KeySettings
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.kept_keys import KeptKeys, with_kept_keys
from penumbra.router.settings import GatewaySettings

OLD, NEW = (
    KeySettings(tenant="acme", sha256=hashlib.sha256(name).hexdigest()) for name in (b"old", b"new")
)
SETTINGS = GatewaySettings(keys=(OLD,), snapshot=Snapshot(epoch=0, models={}))


def tell(kept: KeptKeys, *told: tuple[KeySettings, ...] | None) -> None:
    """Keep keys as a gateway does, and wait for the thread that writes them."""

    async def work() -> None:
        for keys in told:
            kept.keep(keys)

    asyncio.run(work())


def test_a_start_has_the_keys_that_were_told_last(tmp_path: Path) -> None:
    file = tmp_path / "gateway-0-keys.json"
    kept = KeptKeys(file)
    assert with_kept_keys(SETTINGS, kept) is SETTINGS
    tell(kept, (OLD, NEW), (NEW,))
    assert file.stat().st_mode & 0o777 == 0o600
    assert with_kept_keys(SETTINGS, KeptKeys(file)).snapshot.keys == (NEW,)


def test_a_table_that_tells_of_no_keys_puts_none_back(tmp_path: Path) -> None:
    # An older control process tells none: what this one's revoked stays revoked.
    file = tmp_path / "gateway-0-keys.json"
    tell(KeptKeys(file), (NEW,))
    settings = with_kept_keys(SETTINGS, KeptKeys(file))
    gateway = Gateway(settings, lambda: 0.0)
    gateway.keys.identify(b"Bearer new")
    gateway.apply(SETTINGS.snapshot.model_copy(update={"epoch": 1}))
    gateway.keys.identify(b"Bearer new")
    with pytest.raises(InvalidKey):
        gateway.keys.identify(b"Bearer old")
    tell(KeptKeys(file), None)
    assert KeptKeys(file).read() == (NEW,)


def test_keys_that_could_not_be_written_are_written_when_they_are_told_again(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "later"
    kept = KeptKeys(folder / "keys.json")
    tell(kept, (NEW,))
    folder.mkdir()
    tell(kept, (NEW,))
    assert KeptKeys(folder / "keys.json").read() == (NEW,)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]"])
def test_a_file_of_no_use_is_said_and_left_out(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    assert with_kept_keys(SETTINGS, KeptKeys(file)) is SETTINGS
    assert caplog.records[0].message == "keys_not_kept"


def test_a_folder_that_takes_no_file_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptKeys(tmp_path / "nosuch" / "keys.json")
    tell(kept, (NEW,))
    assert caplog.records[0].message == "keys_not_kept"
