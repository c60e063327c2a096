"""The network between the bot and each of its partners is slow, cut, silent or closed for a while. Grants on other links end on time, and afterwards all ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.test_engines import mongodb_engine, mysql_engine
from tests.nightly.aftermath import Finding, check
from tests.nightly.fleet import Fleet, Servers, add_database, running_fleet, write_config
from tests.nightly.proxy import Proxy, Toxic
from tests.nightly.stories import Cast, LedgerView, Story
from tests.nightly.users import UserWatch
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer
from tests.soak import soak_only

AMOUNTS = {Toxic.DELAY: 0.5, Toxic.CUT: 600.0}
LINKS = ("slack", "ledger", "shop", "cache", "maria", "mongo")
OFTEN = {("slack", Toxic.SILENT), ("shop", Toxic.CUT), ("ledger", Toxic.REFUSE)}
"""These run in ``make test``."""
HELD_SECONDS = 8.0
ON_TIME_SECONDS = 20.0
"""An end on a link without a fault takes less than a second. The limit is far above that, for busy machines."""


def cases() -> list[Any]:
    return [
        pytest.param(link, toxic, id=f"{link}-{toxic}", marks=() if (link, toxic) in OFTEN else soak_only)
        for link in LINKS
        for toxic in Toxic
    ]


async def add_engine(fleet: Fleet, name: str, request: pytest.FixtureRequest) -> None:
    """MariaDB or the stand-in for MongoDB, behind a proxy of its own."""
    server = request.getfixturevalue("mariadb" if name == "maria" else "mongodb_server")
    engine = mysql_engine(server, fleet.prefix) if name == "maria" else mongodb_engine(server)
    proxy = Proxy(server.port)
    await proxy.start()
    fleet.links[name] = proxy
    levels = {"readonly": engine.entry["levels"]["readonly"]}
    add_database(fleet, name, {**engine.entry, "levels": levels}, engine.admin_url)


@asynccontextmanager
async def started(
    request: pytest.FixtureRequest, servers: Servers, link: str
) -> AsyncIterator[tuple[Fleet, LedgerView]]:
    async with running_fleet(servers, ledger="postgresql" if link == "ledger" else "sqlite") as fleet:
        if link in ("maria", "mongo"):
            await add_engine(fleet, link, request)
            write_config(fleet)
        await fleet.start()
        view = LedgerView(fleet)
        looking = asyncio.create_task(view.watch())
        try:
            yield fleet, view
        finally:
            looking.cancel()
            for proxy in fleet.links.values():
                await proxy.stop()


async def under_fault(
    fleet: Fleet, proxy: Proxy, toxic: Toxic, beside: Story, watch: UserWatch, *, may_wait: bool
) -> None:
    """Hold the fault until the grant beside it has ended, which happens on time. ``may_wait``: nothing ends without this link."""
    await proxy.infect(toxic, AMOUNTS.get(toxic, 0.0))
    began = time.monotonic()
    row = beside.row
    assert row is not None, "the grant is active"
    due = row.expires_at.timestamp()
    while time.monotonic() - began < HELD_SECONDS or (
        not may_wait and watch.is_there(row.username) and time.time() < due + ON_TIME_SECONDS
    ):
        await asyncio.sleep(0.1)
    assert may_wait or not watch.is_there(row.username), "a grant on another link did not end on time"
    await proxy.lift()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("link", "toxic"), cases())
async def test_everything_ends_right_after_a_fault_of_the_network(
    request: pytest.FixtureRequest, postgresql15: PostgresServer, redis7: RedisServer, link: str, toxic: Toxic
) -> None:
    async with started(request, Servers(postgresql15, redis7), link) as (fleet, view):
        with UserWatch(fleet) as watch:
            cast = Cast()
            beside = cast.story(fleet, view, "approved", "cache" if link == "shop" else "shop", 12)
            touched = cast.story(fleet, view, "extended", link if link in fleet.databases else "cache", 12)
            first = asyncio.create_task(beside.run())
            await beside.until("it is active", lambda: beside.state == "active" and beside.was_delivered)
            second = asyncio.create_task(touched.run())
            await under_fault(fleet, fleet.links[link], toxic, beside, watch, may_wait=link == "ledger")
            await asyncio.gather(first, second)
            await beside.until("nothing is left to do", lambda: not view.unfinished_tasks())
        findings: list[Finding] = []
        await check(findings, {}, fleet, [beside, touched], watch, shows=0)
        assert [str(one) for one in findings if one.about != "late"] == []
