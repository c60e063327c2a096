"""A server that keeps its users nowhere: a restart ends all access, and the bot goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base import LoginRefused
from tests.conftest import had
from tests.contract.redis.harness import READING, RIGHTS, EngineHarness, make_bot
from tests.servers import redis as servers
from tests.servers.redis import REDIS, VALKEY


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def harness(request: pytest.FixtureRequest) -> Iterator[EngineHarness]:
    for server in had(lambda: servers.start(request.param, keeps="nothing")):
        yield EngineHarness((server,))


def test_a_restart_ends_all_access_and_the_drop_says_so(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    identity = adapter.identity()
    assert adapter.check().identity == identity
    frozen = harness.adapter(identity=identity)
    frozen.create_user(spec)
    harness.login(spec.username, spec.password).close()
    harness.server.restart()
    make_bot(harness.server, harness.bot, RIGHTS)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)
    assert frozen.drop_user(spec.username, READING).was_absent
    assert harness.adapter().identity() == identity


def test_it_is_said(harness: EngineHarness) -> None:
    health = harness.adapter().check([READING])
    assert health.problems == ()
    assert [w for w in health.warnings if "a restart forgets all users" in w.what]


def test_access_is_given_and_taken(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
