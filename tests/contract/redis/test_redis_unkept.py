"""A server that keeps its users nowhere: a restart ends all access, and the bot goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base import LoginRefused
from tests.conftest import had
from tests.contract.redis.bench import READING, RIGHTS, Bench, make_bot
from tests.servers import redis as servers
from tests.servers.redis import REDIS, VALKEY


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    for server in had(lambda: servers.start(request.param, keeps="nothing")):
        yield Bench((server,))


def test_a_restart_ends_all_access_and_the_drop_says_so(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    identity = adapter.identity()
    assert adapter.check().identity == identity
    frozen = bench.adapter(identity=identity)
    frozen.create_user(spec)
    bench.login(spec.username, spec.password).close()
    bench.server.restart()
    make_bot(bench.server, bench.bot, RIGHTS)
    with pytest.raises(LoginRefused):
        bench.login(spec.username, spec.password)
    assert frozen.drop_user(spec.username, READING).was_absent
    assert bench.adapter().identity() == identity


def test_it_is_said(bench: Bench) -> None:
    health = bench.adapter().check([READING])
    assert health.problems == ()
    assert [w for w in health.warnings if "a restart forgets all users" in w.what]


def test_access_is_given_and_taken(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    adapter.create_user(spec)
    session = bench.login(spec.username, spec.password)
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
