"""Every error of the driver becomes an AdapterError without a secret. Admin URLs that cannot be read are rejected without being shown."""

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


def adapter_for(url: str, **changes: object) -> Redis:
    known = {"name": "c", "engine": "redis", "admin_url": "env:CACHE_URL", "prefix": "jit_", "ledger": "abcdefghijkl"}
    found = Target(**{"tls": Tls(mode="prefer"), **known, **changes})  # type: ignore[arg-type]
    return Redis(found, Secrets(admin_url=url))


def driver_errors() -> list[type[RedisError]]:
    found = {c for _, c in inspect.getmembers(redis.exceptions, inspect.isclass) if issubclass(c, RedisError)}
    return sorted(found, key=lambda c: c.__name__)


def translated(harness: EngineHarness, error: BaseException) -> AdapterError:
    """The error that a session raises when the driver raises ``error``."""
    with pytest.raises(AdapterError) as caught, harness.adapter().nodes[0].session():
        raise error
    return caught.value


@pytest.mark.parametrize("kind", driver_errors(), ids=lambda c: c.__name__)
def test_every_driver_error_becomes_an_adapter_error_without_secrets(
    pair: EngineHarness, kind: type[RedisError]
) -> None:
    text = f"could not use redis://bot:{BOT_PASSWORD}@cache and {BOT_PASSWORD}"
    error = (
        kind("1 h:1") if issubclass(kind, AskError) else kind(text)
    )  # AskError needs the address of a key, which holds no secret
    found = translated(pair, error)
    assert isinstance(found, ServerDown | Rejected)
    assert BOT_PASSWORD not in everything_on(found)


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
def test_error_is_server_down_if_a_retry_may_help_and_rejected_otherwise(
    pair: EngineHarness, error: BaseException, expected: type[AdapterError]
) -> None:
    assert type(translated(pair, error)) is expected


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
def test_unreadable_url_is_rejected_by_reference_and_never_shown(url: str) -> None:
    with pytest.raises(Rejected, match="env:CACHE_URL cannot be read") as caught:
        adapter_for(url)
    assert "Never0Shown" not in everything_on(caught.value)


def test_parts_of_a_url_are_unquoted() -> None:
    (node,) = adapter_for("redis://b%40t:p%2Fw%3A@[::1]:7000/3").nodes
    assert (node.user, node.password, node.host, node.port, node.database) == ("b@t", "p/w:", "::1", 7000, "3")
    (node,) = adapter_for("redis://:pw@h").nodes
    assert (node.user, node.password, node.port, node.database) == ("default", "pw", 6379, "0")
    assert "pw" not in repr(node)


def test_wrong_admin_password_is_rejected_without_showing_it(pair: EngineHarness) -> None:
    url = pair.server.url(pair.bot, "wrong0password")
    with pytest.raises(Rejected, match=f"does not let {pair.bot} in") as caught:
        adapter_for(url).list_users()
    assert "wrong0password" not in everything_on(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_closed_port_or_unknown_host_is_server_down(host: str) -> None:
    with pytest.raises(ServerDown):
        adapter_for(f"redis://bot:pw@{host}:{free_port()}").check()


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(10)
        yield int(listening.getsockname()[1])


def test_server_that_never_answers_is_server_down_within_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(nodes, "DROP_SECONDS", 0.3)
    with silent_server() as port:
        adapter = adapter_for(f"redis://bot:pw@127.0.0.1:{port}")
        for verb in (adapter.check, adapter.identity, lambda: adapter.drop_user("jit_1_a_0000", READING)):
            began = time.monotonic()
            with pytest.raises(ServerDown):
                verb()
            assert time.monotonic() - began < 7, "without the patch the limit is 8 seconds"
        with pytest.raises(ServerDown):
            adapter.login("jit_1_a_0000", "x" * 20, READING)
