"""Valkey, one node, as an engine of its own: the worked example of docs/engine-authors.md.

It is as small as an engine can be that keeps all promises. The engine ``redis`` that comes with dbaccess serves Valkey too, and does
more: several nodes, levels by keys and commands, clusters, scripts that hold up a revocation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
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
    WrongServer,
    scrub,
    username_pattern,
)

SECONDS = 8
LEVELS = {
    "readonly": ["%R~*", "+@read", "+@connection", "-@dangerous", "-@scripting"],
    "readwrite": ["~*", "+@read", "+@write", "+@connection", "-@dangerous", "-@scripting"],
}
RIGHTS = (
    "acl setuser x",
    "acl getuser x",
    "acl deluser x",
    "acl users",
    "acl save",
    "client list",
    "client kill x",
    "info",
)
MARK = re.compile(r"~dbaccess:ledger=([a-z0-9]+):request=([0-9]+):until=([0-9]+)")
SERVER = "dbaccess_id_"


class Valkey:
    """Implements ``adapters.base.Adapter``. It holds no connection between calls, and may be called from several threads."""

    label: ClassVar[str] = "Valkey"
    enforces: ClassVar[Enforced] = Enforced.NOTHING

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self._url = secrets.admin_url
        parts = urlsplit(self._url)
        if parts.scheme not in ("redis", "rediss") or not parts.username or not parts.password or not parts.hostname:
            # The reference is named, never the URL.
            raise Rejected(
                f"the admin URL behind {target.admin_url} cannot be read", remedy="redis://user:password@host:port"
            )
        self._host, self._port = parts.hostname, parts.port or 6379
        self._user, self._password = parts.username, parts.password

    # The one place where the driver's errors become ours, without a secret in them.

    @contextmanager
    def _session(self, *hidden: str) -> Iterator[Callable[..., Any]]:
        """``call("ACL", "USERS")`` on the server the grant was made on."""
        trouble: Exception
        try:
            with self._client(self._user, self._password) as client:
                call = client.execute_command
                expected = self.target.identity
                if expected is not None and (found := _identity(call)) != expected:
                    raise WrongServer(expected=expected, found=found or "a server without our mark")
                yield call
                return
        except NoPermissionError as error:
            trouble = Rejected(f"the bot lacks a right: {self._words(error, hidden)}", remedy="run dbaccess doctor")
        except AuthenticationError as error:
            remedy = "put the right user and password into the admin URL"
            trouble = Rejected(f"the server refused the bot's own login: {self._words(error, hidden)}", remedy=remedy)
        except ResponseError as error:
            trouble = Rejected(f"the server refused: {self._words(error, hidden)}")
        except (RedisError, OSError) as error:
            trouble = ServerDown(f"no answer: {self._words(error, hidden)}", is_ambiguous=True)
        raise trouble from None

    def _words(self, error: Exception, hidden: tuple[str, ...]) -> str:
        words = scrub(str(error), self._url, self._password, *hidden)
        error.args = (words,)  # whoever logs ours may log what is chained behind it
        return words

    def _client(self, user: str, password: str) -> redis.Redis:
        return redis.Redis(
            host=self._host, port=self._port, username=user, password=password, protocol=2, decode_responses=True,
            socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=Retry(NoBackoff(), 0), driver_info=None,
        )  # fmt: skip

    # The verbs.

    def identity(self) -> str:
        """A powerless user with a random name, made once: Valkey itself has nothing that stays the same over a restart."""
        with self._session() as call:
            if not (found := _identity(call)):
                call("ACL", "SETUSER", f"{SERVER}{token_hex(8)}", "reset")
                call("ACL", "SAVE")
                found = _identity(call)
            return found

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Changes nothing: a server that has no identity yet has an empty one."""
        with self._session() as call:
            findings = [self._right(call, words) for words in RIGHTS]
            for level in levels:
                try:
                    _rules(level)
                except Rejected as no:
                    findings.append(Finding(is_ok=False, is_fatal=True, what=no.what, remedy=no.remedy))
            return Health(
                version=f"Valkey {call('INFO', 'server').get('valkey_version', 'of another kind')}",
                identity=_identity(call), enforced=Enforced.NOTHING, findings=tuple(findings),
            )  # fmt: skip

    def _right(self, call: Callable[..., Any], words: str) -> Finding:
        name = "|".join(words.split()[:2]) if words != "info" else words
        if call("ACL", "DRYRUN", self._user, *words.split()) == "OK":
            return Finding(is_ok=True, is_fatal=False, what=f"{self._user} may run {name}")
        remedy = f"ACL SETUSER {self._user} +{name}"
        return Finding(is_ok=False, is_fatal=True, what=f"{self._user} may not run {name}", remedy=remedy)

    def create_user(self, spec: UserSpec) -> None:
        """SETUSER does all of it or nothing; ``reset`` makes a half-made user whole."""
        with self._session(spec.password) as call:
            self._find(call, spec.username)
            mark = self._mark(call, spec.request_id, spec.remaining)
            call("ACL", "SETUSER", spec.username, "reset", "on", _hashed(spec.password), *_rules(spec.level), mark)
            call("ACL", "SAVE")

    def set_password(self, username: str, password: str) -> None:
        """Looked for first: SETUSER would make who is absent."""
        with self._session(password) as call:
            self._existing(call, username)
            call("ACL", "SETUSER", username, "resetpass", _hashed(password))
            call("ACL", "SAVE")

    def set_expiry(self, username: str, remaining: float) -> None:
        """In the mark, for those who look."""
        with self._session() as call:
            found = self._existing(call, username)
            call("ACL", "SETUSER", username, "clearselectors", self._mark(call, found.request_id or 0, remaining))
            call("ACL", "SAVE")

    def drop_user(self, username: str, level: Level) -> Removal:
        """DELUSER takes login and sessions at once; what counts is what is read back."""
        del level
        with self._session() as call:
            found = self._find(call, username, to_end=True)
            ours = _sessions(call, username)
            call("ACL", "DELUSER", username)
            call("ACL", "SAVE")
            left = {row["id"] for row in _clients(call)} & {row["id"] for row in ours}
            if left or _sessions(call, username) or call("ACL", "GETUSER", username) is not None:
                raise ServerDown(f"{username} was there again when it was read back", is_ambiguous=True)
            return Removal(
                was_absent=found is None,
                sessions_ended=len(ours),
                left_behind=(),
                left_with=None,
                read_back_at=_now(call),
            )

    def list_users(self) -> list[ManagedUser]:
        """Whose they are is for the caller to judge by ``ledger``."""
        pattern = username_pattern(self.target.prefix)
        with self._session() as call:
            names = [name for name in call("ACL", "USERS") if pattern.fullmatch(name)]
            return [_managed(name, call("ACL", "GETUSER", name)) for name in names]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Sessions of now; Valkey counts no statements per user."""
        with self._session() as call:
            rows = {name: _sessions(call, name) for name in usernames}
        return [
            Activity(
                username=name, sessions=len(found), clients=tuple({row["addr"].rpartition(":")[0] for row in found})
            )
            for name, found in rows.items()
        ]

    def endpoint(self, level: Level) -> Endpoint:
        """The command asks for the password: in the command it would show in the list of processes."""
        told = self.target.connect
        host, port = told.host or self._host, told.port or self._port
        command = f"valkey-cli --user {{username}} -h {host} -p {port} --askpass"
        return Endpoint(
            host=host, port=port, database=level.database or told.database or "0", tls=told.tls or self.target.tls.mode,
            note=told.note, engine=self.label, command=command,
        )  # fmt: skip

    def login(self, username: str, password: str, level: Level) -> Login:
        """For ``doctor --try``."""
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

    # Whose a user is. What another ledger made is never touched; what lost its mark is only ever ended.

    def _find(self, call: Callable[..., Any], username: str, *, to_end: bool = False) -> ManagedUser | None:
        if not username_pattern(self.target.prefix).fullmatch(username):
            raise Rejected(f"{username!r} is no name dbaccess makes")
        user = call("ACL", "GETUSER", username)
        if user is None:
            return None
        found = _managed(username, user)
        is_lost = found.ledger is None and to_end
        if found.ledger != self.target.ledger and not is_lost:
            raise ForeignUser(username, "its mark names another ledger" if found.ledger else "it carries no mark")
        return found

    def _existing(self, call: Callable[..., Any], username: str) -> ManagedUser:
        found = self._find(call, username)
        if found is None:
            raise Rejected(f"there is no user {username}")
        return found

    def _mark(self, call: Callable[..., Any], request_id: int, remaining: float) -> str:
        """A selector without commands opens nothing. The end is by the server's clock."""
        until = int(_now(call).timestamp() + remaining)
        return f"(~dbaccess:ledger={self.target.ledger}:request={request_id}:until={until})"


class Login:
    """One login of a temporary user. Its number is the server's, as the driver may connect again by itself."""

    def __init__(self, client: redis.Redis) -> None:
        self.close = client.close
        driver: Any = client
        self._call = driver.execute_command
        self._number = self._call("CLIENT ID")

    def is_alive(self) -> bool:
        try:
            return bool(self._call("CLIENT ID") == self._number)
        except (RedisError, OSError):
            return False


def _rules(level: Level) -> list[str]:
    if level.grants or level.settings or len(level.roles) != 1 or level.roles[0] not in LEVELS:
        raise Rejected(f"the level {level.name} is no preset of Valkey", remedy="roles: [readonly] or [readwrite]")
    return ["resetchannels", *LEVELS[level.roles[0]]]


def _hashed(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _identity(call: Callable[..., Any]) -> str:
    return next(iter(sorted(name for name in call("ACL", "USERS") if name.startswith(SERVER))), "")


def _managed(username: str, user: Any) -> ManagedUser:
    parts = user if isinstance(user, dict) else dict(zip(user[::2], user[1::2], strict=True))
    selectors = [s if isinstance(s, dict) else dict(zip(s[::2], s[1::2], strict=True)) for s in parts["selectors"]]
    mark = next((found for s in selectors if (found := MARK.fullmatch(str(s["keys"])))), None)
    if mark is None:
        return ManagedUser(username=username, ledger=None, request_id=None, expires_at=None)
    until = datetime.fromtimestamp(int(mark[3]), UTC)
    return ManagedUser(username=username, ledger=mark[1], request_id=int(mark[2]), expires_at=until)


def _clients(call: Callable[..., Any]) -> list[dict[str, Any]]:
    return list(call("CLIENT LIST"))  # by this spelling the driver parses the answer


def _sessions(call: Callable[..., Any], username: str) -> list[dict[str, Any]]:
    return [row for row in _clients(call) if row["user"] == username]


def _now(call: Callable[..., Any]) -> datetime:
    """INFO has the server's clock, and needs no right beside it."""
    return datetime.fromtimestamp(int(call("INFO", "server")["server_time_usec"]) / 1e6, UTC)
