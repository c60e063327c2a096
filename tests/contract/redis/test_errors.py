"""What the driver raises becomes an adapter's error, with no secret on it."""

from __future__ import annotations

import inspect
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis.exceptions
from redis.exceptions import AskError, RedisError

from adapters.base import AdapterError, Rejected, Secrets, ServerDown, Target, Tls
from adapters.contract import everything_on
from adapters.redis import Redis, nodes
from tests.contract.redis.harness import BOT_PASSWORD, READING, EngineHarness
from tests.servers.postgresql import free_port


def target(url: str, **changes: object) -> Redis:
    known = {"name": "c", "engine": "redis", "admin_url": "env:CACHE_URL", "prefix": "jit_", "ledger": "abcdefghijkl"}
    found = Target(**{"tls": Tls(mode="prefer"), **known, **changes})  # type: ignore[arg-type]
    return Redis(found, Secrets(admin_url=url))


def every_class() -> list[type[RedisError]]:
    found = {c for _, c in inspect.getmembers(redis.exceptions, inspect.isclass) if issubclass(c, RedisError)}
    return sorted(found, key=lambda c: c.__name__)


def raised(harness: EngineHarness, error: BaseException) -> AdapterError:
    with pytest.raises(AdapterError) as caught, harness.adapter().nodes[0].session():
        raise error
    return caught.value


@pytest.mark.parametrize("kind", every_class(), ids=lambda c: c.__name__)
def test_every_class_of_the_driver_is_translated(pair: EngineHarness, kind: type[RedisError]) -> None:
    text = f"could not use redis://bot:{BOT_PASSWORD}@cache and {BOT_PASSWORD}"
    error = kind("1 h:1") if issubclass(kind, AskError) else kind(text)  # where a key is, which holds no secret
    trouble = raised(pair, error)
    assert isinstance(trouble, ServerDown | Rejected)
    assert BOT_PASSWORD not in everything_on(trouble)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.exceptions.ConnectionError("Connection closed by server."), ServerDown),
        (redis.exceptions.TimeoutError("Timeout reading from socket"), ServerDown),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), ServerDown),
        (redis.exceptions.ResponseError("BUSY Redis is busy running a script"), ServerDown),
        (redis.exceptions.ResponseError("UNKILLABLE Sorry the script already executed write commands"), ServerDown),
        (redis.exceptions.ResponseError("max number of clients reached"), ServerDown),
        (redis.exceptions.ResponseError("There was an error trying to save the ACLs"), ServerDown),
        (redis.exceptions.ConnectionError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"), ServerDown),
        (OSError("Broken pipe"), ServerDown),
        (redis.exceptions.AuthenticationError("invalid username-password pair or user is disabled."), Rejected),
        (redis.exceptions.AuthenticationError("Authentication required."), Rejected),
        (redis.exceptions.NoPermissionError("this user has no permissions to run the 'acl|users' command"), Rejected),
        (redis.exceptions.ResponseError("DENIED Redis is running in protected mode"), Rejected),
        (redis.exceptions.ResponseError("Error in ACL SETUSER modifier '+x': Unknown command"), Rejected),
        (redis.exceptions.ResponseError("unknown command 'ACL'"), Rejected),
        (redis.exceptions.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), Rejected),
        (redis.exceptions.ConnectionError("[SSL: WRONG_VERSION_NUMBER] wrong version number"), Rejected),
        (redis.exceptions.ConnectionError("[SSL: RECORD_LAYER_FAILURE] record layer failure"), Rejected),
    ],
)
def test_what_may_be_different_next_time_and_what_not(
    pair: EngineHarness, error: BaseException, expected: type[AdapterError]
) -> None:
    assert type(raised(pair, error)) is expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql://bot:Never0Shown@h/db",
        "redis://",
        "redis://h:port",
        "redis://h:99999",
        "redis://bot:Never0Shown@",
        "unix:///run/redis.sock",
        "redis://bot:Never0Shown@h:1/0?ssl_cert_reqs=none",
        "redis://[::1",
        "h:6379",
    ],
)
def test_a_url_that_cannot_be_read_is_said_without_it(url: str) -> None:
    with pytest.raises(Rejected, match="env:CACHE_URL cannot be read") as caught:
        target(url)
    assert "Never0Shown" not in everything_on(caught.value)


def test_parts_of_a_url() -> None:
    (node,) = target("redis://b%40t:p%2Fw%3A@[::1]:7000/3").nodes
    assert (node.user, node.password, node.host, node.port, node.database) == ("b@t", "p/w:", "::1", 7000, "3")
    (node,) = target("redis://:pw@h").nodes
    assert (node.user, node.password, node.port, node.database) == ("default", "pw", 6379, "0")
    assert "pw" not in repr(node)


def test_a_wrong_password_is_said(pair: EngineHarness) -> None:
    url = pair.server.url(pair.bot, "wrong0password")
    with pytest.raises(Rejected, match=f"does not let {pair.bot} in") as caught:
        target(url).list_users()
    assert "wrong0password" not in everything_on(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_nobody_there(host: str) -> None:
    with pytest.raises(ServerDown):
        target(f"redis://bot:pw@{host}:{free_port()}").check()


@contextmanager
def silent() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(10)
        yield int(listening.getsockname()[1])


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ANSWER_SECONDS", 0.3)
    with silent() as port:
        adapter = target(f"redis://bot:pw@127.0.0.1:{port}")
        for verb in (adapter.check, adapter.identity, lambda: adapter.drop_user("jit_1_a_0000", READING)):
            began = time.monotonic()
            with pytest.raises(ServerDown):
                verb()
            assert time.monotonic() - began < 7, "without the patch it would be 8"
        with pytest.raises(ServerDown):
            adapter.login("jit_1_a_0000", "x" * 20, READING)
