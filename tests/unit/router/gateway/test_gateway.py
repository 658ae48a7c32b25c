"""A gateway without sockets: a table that cannot be put into force changes nothing."""

import pytest

from penumbra.monitoring.vocabulary import Outcome
from penumbra.router.flags.routing_table import Flag, ModelSnapshot, Snapshot, Variant, Watch
from penumbra.router.gateway.gateway import Gateway
from penumbra.router.settings import GatewaySettings
from penumbra.router.upstream.fake import FakeUpstream, whole
from penumbra.router.upstream.port import Upstream


def table(epoch: int, run: str = "run-1", url: str = "http://int8.test") -> Snapshot:
    model = ModelSnapshot(
        baseline="full",
        variants={"full": Variant(url="http://full.test"), "int8": Variant(url=url)},
        flag=Flag(split={"int8": 50}),
        watches=(Watch(candidate="int8", run=run),),
    )
    return Snapshot(epoch=epoch, models={"demo": model})


def connect(model: str, variant: Variant) -> Upstream:
    if variant.url == "ftp://nowhere":
        raise ValueError("no such thing")
    return FakeUpstream(model, lambda _: whole({}))


def test_a_table_that_cannot_be_put_into_force_changes_nothing() -> None:
    gateway = Gateway(GatewaySettings(snapshot=table(1)), lambda: 0.0, connect)
    attempt = gateway._models["demo"].attempts["int8"]
    for _ in range(20):
        attempt.record_end("facts", Outcome.SERVER_ERROR)
    assert gateway._models["demo"].snapshot.flag.blocked == ("int8",)
    with pytest.raises(ValueError, match="no such thing"):
        gateway.apply(table(2, run="run-2", url="ftp://nowhere"))
    # The run goes on, so its observations still count.
    gateway.apply(table(3))
    assert gateway._models["demo"].snapshot.flag.blocked == ("int8",)
