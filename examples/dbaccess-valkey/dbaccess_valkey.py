"""The engine ``valkey`` for one node of Valkey 8 or later: the worked example of docs/engine-authors.md.

It is about as small as an engine that passes the whole contract can be. The engine ``redis`` that comes with dbaccess serves Valkey
too, and does more: several nodes, clusters, levels by keys and commands, and scripts that delay a drop.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, ClassVar
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from adapters.base import (
    Activity,
    Endpoint,
    Enforced,
    Finding,
    ForeignUser,
    Health,
    Level,
    LoginRefused,
    ManagedUser,
    Rejected,
    Removal,
    Secrets,
    ServerDown,
    Target,
    UserSpec,
    UserToDrop,
    WrongServer,
)
from adapters.level_state import LevelState
from adapters.usernames import scrub, username_pattern

TIMEOUT_SECONDS = 8
OLDEST_SUPPORTED = 8
LEVELS = {
    "readonly": ["%R~*", "+@read", "+@connection", "-@dangerous", "-@scripting"],
    "readwrite": ["~*", "+@read", "+@write", "+@connection", "-@dangerous", "-@scripting"],
}
RIGHTS = (
    "acl setuser x", "acl getuser x", "acl deluser x", "acl users", "acl save", "client list", "client kill x", "info",
)  # fmt: skip
MARK = re.compile(r"~dbaccess:ledger=([a-z0-9]+):request=([0-9]+):until=([0-9]+)")
IDENTITY_PREFIX = "dbaccess_id_"


class Valkey:
    """Implements ``adapters.base.Adapter``. It holds no connection between calls, so several threads may call it."""

    label: ClassVar[str] = "Valkey"
    enforces: ClassVar[Enforced] = Enforced.NOTHING

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self._url = secrets.admin_url
        parts = urlsplit(self._url)
        if parts.scheme not in ("redis", "rediss") or not parts.username or not parts.password or not parts.hostname:
            what = f"the admin URL behind {target.admin_url} cannot be read"  # names the reference, never the URL
            raise Rejected(what, remedy="redis://user:password@host:port")
        self._host, self._port = parts.hostname, parts.port or 6379
        self._user, self._password = parts.username, parts.password

    # The one place where errors of the driver become errors of the adapter, without a secret.

    @contextmanager
    def _session(self, *hidden: str, ends: str | None = None) -> Iterator[Callable[..., Any]]:
        """Gives ``call("ACL", "USERS")`` on the server on which the grant was made. ``hidden`` are secrets to keep out of errors.

        ``ends`` is the user that is ended: a server that lost its identity is the right one if it has this user with the ledger's mark.
        """
        failure: Exception
        try:
            with self._client(self._user, self._password) as client:
                call = client.execute_command
                expected = self.target.identity
                found = _identity(call)
                is_lost = not found and ends is not None and self._is_ours(call, ends)
                if expected not in (None, found) and not is_lost:
                    raise WrongServer(expected=str(expected), found=found or "without an identity")
                yield call
                return
        except NoPermissionError as error:
            failure = Rejected(
                f"the bot lacks a right: {self._without_secrets(error, hidden)}", remedy="run dbaccess doctor"
            )
        except AuthenticationError as error:
            remedy = "put the right user and password into the admin URL"
            failure = Rejected(
                f"the server refused the bot's own login: {self._without_secrets(error, hidden)}", remedy=remedy
            )
        except ResponseError as error:
            failure = Rejected(f"the server refused: {self._without_secrets(error, hidden)}")
        except (RedisError, OSError) as error:
            failure = ServerDown(f"no answer: {self._without_secrets(error, hidden)}", is_ambiguous=True)
        raise failure from None

    def _without_secrets(self, error: Exception, hidden: tuple[str, ...]) -> str:
        text = scrub(str(error), self._url, self._password, *hidden)
        error.args = (text,)  # a log of the adapter's error may also show the driver's, which is its context
        return text

    def _client(self, user: str, password: str) -> redis.Redis:
        return redis.Redis(
            host=self._host, port=self._port, username=user, password=password, protocol=2, decode_responses=True,
            socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, retry=Retry(NoBackoff(), 0), driver_info=None,
        )  # fmt: skip

    # The verbs.

    def identity(self) -> str:
        """The name of a user without rights, made once with a random name. Valkey itself has no identity that outlives a restart."""
        with self._session() as call:
            if not (found := _identity(call)):
                call("ACL", "SETUSER", f"{IDENTITY_PREFIX}{token_hex(8)}", "reset")
                call("ACL", "SAVE")
                found = _identity(call)
            return found

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Changes nothing. The identity is empty where the server has none yet."""
        with self._session() as call:
            findings = [_version_finding(call), *(self._right_finding(call, command) for command in RIGHTS)]
            for level in levels:
                try:
                    _rules(level)
                except Rejected as error:
                    findings.append(Finding(is_ok=False, is_fatal=True, what=error.what, remedy=error.remedy))
            return Health(
                version=_version(call), identity=_identity(call), enforced=Enforced.NOTHING, findings=tuple(findings),
            )  # fmt: skip

    def _right_finding(self, call: Callable[..., Any], command: str) -> Finding:
        name = "|".join(command.split()[:2]) if command != "info" else command
        if call("ACL", "DRYRUN", self._user, *command.split()) == "OK":
            return Finding(is_ok=True, is_fatal=False, what=f"{self._user} may run {name}")
        remedy = f"ACL SETUSER {self._user} +{name}"
        return Finding(is_ok=False, is_fatal=True, what=f"{self._user} may not run {name}", remedy=remedy)

    def level_state(self, level: Level) -> LevelState:
        """The accounts that dbaccess does not manage. No level changes one, so a difference shows what somebody else did meanwhile."""
        del level
        with self._session() as call:
            return self._state(call)

    def _state(self, call: Callable[..., Any]) -> LevelState:
        pattern = username_pattern(self.target.prefix)
        names = [name for name in call("ACL", "USERS") if not pattern.fullmatch(name)]
        return LevelState.of(("accounts", name) for name in names if not name.startswith(IDENTITY_PREFIX))

    def _changes(self, call: Callable[..., Any], before: LevelState | None) -> tuple[str, ...]:
        """Notes on what differs from the state before the grant. An error is a note: the user is gone already."""
        try:
            return before.differences(self._state(call)) if before else ()
        except (RedisError, OSError) as error:
            return (
                f"Whether accounts changed while the grant was live is not known: {self._without_secrets(error, ())}",
            )

    def create_user(self, spec: UserSpec) -> None:
        """SETUSER is atomic. ``reset`` replaces a user that exists."""
        with self._session(spec.password) as call:
            if not (version := _version_finding(call)).is_ok:
                raise Rejected(version.what, remedy=version.remedy)
            self._find_user(call, spec.username)
            mark = self._mark_rule(call, spec.request_id, spec.remaining)
            call(
                "ACL", "SETUSER", spec.username, "reset", "on", _password_rule(spec.password), *_rules(spec.level), mark
            )
            call("ACL", "SAVE")

    def set_password(self, username: str, password: str) -> None:
        """The user is looked up first, because SETUSER would create an absent one."""
        with self._session(password) as call:
            self._require_user(call, username)
            call("ACL", "SETUSER", username, "resetpass", _password_rule(password))
            call("ACL", "SAVE")

    def set_expiry(self, username: str, remaining: float) -> None:
        """Replaces the mark. Valkey itself enforces no expiry."""
        with self._session() as call:
            found = self._require_user(call, username)
            call("ACL", "SETUSER", username, "clearselectors", self._mark_rule(call, found.request_id or 0, remaining))
            call("ACL", "SAVE")

    def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
        """DELUSER ends the login and all sessions. Both are then read back."""
        del level
        with self._session(ends=username) as call:
            found = self._find_user(call, username, to_end=True)
            sessions = _sessions(call, username)
            call("ACL", "DELUSER", username)
            call("ACL", "SAVE")
            left = {row["id"] for row in _clients(call)} & {row["id"] for row in sessions}
            if left or _sessions(call, username) or call("ACL", "GETUSER", username) is not None:
                raise ServerDown(f"{username} or a session of it is still there after ACL DELUSER", is_ambiguous=True)
            return Removal(
                was_absent=found is None, sessions_ended=len(sessions), left_behind=(), left_with=None, read_back_at=_now(call),
                notes=self._changes(call, before),
            )  # fmt: skip

    def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
        """``off`` refuses logins, and CLIENT KILL ends sessions. Absent users are left alone, because SETUSER would create them."""
        pattern = username_pattern(self.target.prefix)
        names = {name for name in usernames if pattern.fullmatch(name)}
        with self._session() as call:
            users = {name: user for name in names if (user := call("ACL", "GETUSER", name)) is not None}
            ours = [n for n, user in users.items() if _to_managed_user(n, user).ledger in (None, self.target.ledger)]
            for name in ours:
                call("ACL", "SETUSER", name, "off")
                call("CLIENT", "KILL", "USER", name)
            call("ACL", "SAVE")
            living = {row["user"] for row in _clients(call)}
            is_off = {name: "off" in _to_dict(call("ACL", "GETUSER", name))["flags"] for name in ours}
        return frozenset(name for name in names if name not in users or (is_off.get(name) and name not in living))

    def drop_blocked_users(self, users: Sequence[UserToDrop]) -> Mapping[str, Removal]:
        """There is no quick way: ``drop_user`` drops each."""
        del users
        return {}

    def end_by_hand(self, username: str) -> tuple[str, ...]:
        """For valkey-cli."""
        return f"ACL DELUSER {username}", "ACL SAVE"

    def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
        """Valkey keeps the rules of a user as they were set, so they are compared as text."""
        with self._session() as call:
            users = {name: user for name in levels if (user := call("ACL", "GETUSER", name)) is not None}
        found = {name: tuple(_differences(_to_dict(user), levels[name])) for name, user in users.items()}
        return {name: sentences for name, sentences in found.items() if sentences}

    def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
        """Nothing: Valkey has no roles."""
        del levels
        return []

    def drop_leftovers(self) -> list[str]:
        """Nothing: a Valkey user leaves keys alone, which have no owners."""
        return []

    def list_users(self) -> list[ManagedUser]:
        """Also those of other ledgers; the caller decides by ``ledger``."""
        pattern = username_pattern(self.target.prefix)
        with self._session() as call:
            names = [name for name in call("ACL", "USERS") if pattern.fullmatch(name)]
            return [_to_managed_user(name, call("ACL", "GETUSER", name)) for name in names]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Valkey does not count statements per user."""
        with self._session() as call:
            rows = {name: _sessions(call, name) for name in usernames}
        hosts = {name: {row["addr"].rpartition(":")[0] for row in found} for name, found in rows.items()}
        return [Activity(username=name, sessions=len(rows[name]), clients=tuple(hosts[name])) for name in usernames]

    def endpoint(self, level: Level) -> Endpoint:
        """The command prompts for the password, because a command line is visible in the process list."""
        connect = self.target.connect
        host, port = connect.host or self._host, connect.port or self._port
        command = f"valkey-cli --user {{username}} -h {host} -p {port} --askpass"
        return Endpoint(
            host=host, port=port, database=level.database or connect.database or "0",
            tls=connect.tls or self.target.tls.mode, note=connect.note, engine=self.label, command=command,
        )  # fmt: skip

    def login(self, username: str, password: str, level: Level) -> Login:
        """The proof of ``doctor --try``."""
        del level
        client = self._client(username, password)
        try:
            return Login(client)
        except AuthenticationError as error:
            client.close()
            raise LoginRefused(scrub(str(error), password)) from None
        except (RedisError, OSError) as error:
            client.close()
            raise ServerDown(f"no login as {username}: {scrub(str(error), password)}") from None

    # The user of another ledger is never touched. A user without a mark is only dropped.

    def _find_user(self, call: Callable[..., Any], username: str, *, to_end: bool = False) -> ManagedUser | None:
        if not username_pattern(self.target.prefix).fullmatch(username):
            raise Rejected(f"{username!r} is no name of a temporary user")
        user = call("ACL", "GETUSER", username)
        if user is None:
            return None
        found = _to_managed_user(username, user)
        is_lost = found.ledger is None and to_end
        if found.ledger != self.target.ledger and not is_lost:
            raise ForeignUser(username, "its mark names another ledger" if found.ledger else "it has no mark")
        return found

    def _is_ours(self, call: Callable[..., Any], username: str) -> bool:
        user = call("ACL", "GETUSER", username)
        return user is not None and _to_managed_user(username, user).ledger == self.target.ledger

    def _require_user(self, call: Callable[..., Any], username: str) -> ManagedUser:
        found = self._find_user(call, username)
        if found is None:
            raise Rejected(f"there is no user {username}")
        return found

    def _mark_rule(self, call: Callable[..., Any], request_id: int, remaining: float) -> str:
        """A selector without commands, which grants nothing. The end is the server's clock plus ``remaining`` seconds."""
        until = int(_now(call).timestamp() + remaining)
        return f"(~dbaccess:ledger={self.target.ledger}:request={request_id}:until={until})"


class Login:
    """One login of a temporary user. It compares the server's id of the connection, because the driver may connect again by itself."""

    def __init__(self, client: redis.Redis) -> None:
        self.close = client.close
        driver: Any = client
        self._call = driver.execute_command
        self._id = self._call("CLIENT ID")

    def is_alive(self) -> bool:
        try:
            return bool(self._call("CLIENT ID") == self._id)
        except (RedisError, OSError):
            return False


def _rules(level: Level) -> list[str]:
    if level.grants or level.settings or len(level.roles) != 1 or level.roles[0] not in LEVELS:
        raise Rejected(f"the level {level.name} is no preset of Valkey", remedy="roles: [readonly] or [readwrite]")
    return ["resetchannels", *LEVELS[level.roles[0]]]


def _version(call: Callable[..., Any]) -> str:
    return f"Valkey {call('INFO', 'server').get('valkey_version', 'of unknown version')}"


def _version_finding(call: Callable[..., Any]) -> Finding:
    """An older server gets no new users. Nothing else looks at the version, so users that are there are still dropped."""
    version = _version(call)
    is_ok = (found := re.match(r"Valkey ([0-9]+)", version)) is not None and int(found[1]) >= OLDEST_SUPPORTED
    remedy = None if is_ok else f"upgrade it to Valkey {OLDEST_SUPPORTED}.0 or later"
    return Finding(is_ok=is_ok, is_fatal=not is_ok, what=f"the server runs {version}", remedy=remedy)


def _password_rule(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _identity(call: Callable[..., Any]) -> str:
    return next(iter(sorted(name for name in call("ACL", "USERS") if name.startswith(IDENTITY_PREFIX))), "")


def _to_dict(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


def _differences(user: dict[str, Any], level: Level) -> Iterator[str]:
    keys, *commands = _rules(level)[1:]
    expected = {"keys": keys, "commands": " ".join(["-@all", *commands]), "channels": ""}
    for part, rules in expected.items():
        if user[part] != rules:
            yield f"its {part} are {str(user[part])[:200] or 'none'} and not {rules or 'none'}"
    if "nopass" in user["flags"] or len(user["passwords"]) != 1:
        yield f"it has {len(user['passwords'])} passwords and not 1"
    if any(_to_dict(selector)["commands"] != "-@all" for selector in user["selectors"]):
        yield "it has a selector, and its level gives none"


def _to_managed_user(username: str, user: Any) -> ManagedUser:
    selectors = [_to_dict(selector) for selector in _to_dict(user)["selectors"]]
    mark = next((found for s in selectors if (found := MARK.fullmatch(str(s["keys"])))), None)
    if mark is None:
        return ManagedUser(username=username, ledger=None, request_id=None, expires_at=None)
    until = datetime.fromtimestamp(int(mark[3]), UTC)
    return ManagedUser(username=username, ledger=mark[1], request_id=int(mark[2]), expires_at=until)


def _clients(call: Callable[..., Any]) -> list[dict[str, Any]]:
    return list(call("CLIENT LIST"))  # as one word, so that the driver parses the answer


def _sessions(call: Callable[..., Any], username: str) -> list[dict[str, Any]]:
    return [row for row in _clients(call) if row["user"] == username]


def _now(call: Callable[..., Any]) -> datetime:
    """The server's clock from INFO, for which the bot has a right anyway."""
    return datetime.fromtimestamp(int(call("INFO", "server")["server_time_usec"]) / 1e6, UTC)
