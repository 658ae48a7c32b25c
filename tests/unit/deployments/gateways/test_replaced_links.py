"""Links that take the place of others, and processes that are called alike."""

import asyncio

from penumbra.deployments.gateways.inbox import LinkInbox
from penumbra.deployments.gateways.link import Link
from penumbra.deployments.gateways.liveness import GuardLiveness
from penumbra.deployments.gateways.publisher import Publisher
from penumbra.monitoring.observations import Report
from penumbra.router.flags.routing_table import Snapshot
from penumbra.router.link.messages import Hello, LeaseGrant, Renew, encode
from tests.support.control_plane import FakeGateway, refuse_report
from tests.support.routing_tables import model

HOST = "machine-1"
TABLE = Snapshot(epoch=1, models={"demo": model()})


async def test_a_connection_that_ends_late_does_not_vouch_for_the_report_on_the_next_one() -> None:
    # The process connected again and sent its report once more before the old link was given up.
    liveness = GuardLiveness(10.0)
    inbox = LinkInbox(liveness, lambda: 100.0, refuse_report)
    report = Report("gateway-0", "life-1", 1, ())
    hello = Hello("gateway-0", 1, "", 0, HOST)
    old, new = (Link(hello, FakeGateway("gateway-0"), 100.0) for _ in range(2))
    serving = []
    for link in (old, new):
        serving.append(inbox.open(link))
        inbox.handle(link, report)
    inbox.close(old)
    liveness.note_tick(109.0)
    assert liveness.grant(Snapshot(epoch=1, models={"demo": model()}), HOST, 109.0) == {"demo": 1.0}
    inbox.close(new)
    assert liveness.grant(Snapshot(epoch=1, models={"demo": model()}), HOST, 109.0) == {
        "demo": 10.0
    }
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


async def test_processes_of_two_machines_are_two_whatever_they_are_called() -> None:
    # In containers every process has the pid 1.
    publisher = Publisher("store", lambda: 1.0)
    gateways = [FakeGateway("gateway-0", host=host) for host in ("pod-1", "pod-2")]
    attending = []
    async with asyncio.timeout(30):
        for epoch, gateway in enumerate(gateways, start=1):
            attending.append(asyncio.create_task(publisher.attend(gateway)))
            publisher.publish(TABLE.model_copy(update={"epoch": epoch}), 1.0)
            await gateway.reach(epoch)
        publisher.publish(TABLE.model_copy(update={"epoch": 3}), 1.0)
        for gateway in gateways:
            await gateway.reach(3)
    for gateway in gateways:
        gateway.leave()
    await asyncio.gather(*attending)


async def test_a_link_that_gets_no_tables_any_more_gets_no_lease_either() -> None:
    liveness = GuardLiveness(10.0)
    liveness.note_tick(1.0)
    publisher = Publisher("store", lambda: 1.0)
    inbox = LinkInbox(liveness, lambda: 1.0, refuse_report, newest_table=lambda: publisher.snapshot)
    gateways = [FakeGateway("gateway-0") for _ in range(2)]
    attending = []
    for gateway in gateways:
        attending.append(asyncio.create_task(publisher.attend(gateway, inbox)))
        publisher.publish(TABLE, 1.0)
        await gateway.reach(1)
    old, new = gateways
    old.say(encode(Renew(1)))
    async with asyncio.timeout(30):
        await attending[0]
    assert old.heard == []
    new.say(encode(Renew(2)))
    assert (await new.hear(LeaseGrant)).nonce == 2
    new.leave()
    await attending[1]
