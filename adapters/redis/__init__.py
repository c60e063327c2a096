"""Redis 7 and later, and Valkey, as target: ACL users that end, on every node that is named.

Users, sessions and files are each node's own, nothing is replicated: ``admin_url`` and ``replicas`` are the nodes, and nothing is done
before each has answered. ``ACL DELUSER`` alone takes the login, the rights and every session at once. Redis ends nothing by itself, so the end is by dbaccess
alone; ``until=`` in the mark says when. A session that logs in again as another account whose password it has is not ours to end.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple

from adapters.base import (
    Activity,
    AdapterError,
    Endpoint,
    Enforced,
    Finding,
    ForeignUser,
    Health,
    Level,
    ManagedUser,
    Rejected,
    Removal,
    Secrets,
    Target,
    UserSpec,
    WrongServer,
    username_pattern,
)
from adapters.redis.levels import rules_of
from adapters.redis.nodes import Login, Node, Session
from adapters.redis.rights import fatal, level_findings, rights, server_findings
from adapters.redis.users import (
    OPEN_DEFAULT,
    SERVER_USER,
    UNKEPT,
    activity_of,
    get_user,
    hashed,
    is_open,
    managed,
    mark_server,
    marks,
    server_mark,
    take_away,
)


class Seen(NamedTuple):
    """What a check found on one node."""

    version: str
    mark: str | None
    findings: tuple[Finding, ...]


class Redis:
    """Implements ``adapters.base.Adapter``."""

    label: ClassVar[str] = "Redis"
    enforces: ClassVar[Enforced] = Enforced.NOTHING

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        named = zip((target.admin_url, *target.replicas), (secrets.admin_url, *secrets.replicas), strict=True)
        self.nodes = tuple(
            Node.parse(url, reference, target.tls) if number == 0 else Node.later(url, reference, target.tls)
            for number, (reference, url) in enumerate(named)
        )

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Of every node; changes nothing. A node of ``replicas`` that does not answer is a finding."""
        seen = list[Seen]()
        for number, node in enumerate(self.nodes):
            try:
                with node.session() as session:
                    seen.append(self._seen(session, number, levels if number == 0 else ()))
            except AdapterError as trouble:
                if number == 0:
                    raise
                remedy = trouble.remedy if isinstance(trouble, Rejected) else None
                seen.append(Seen("", None, (fatal(str(trouble), remedy),)))
        return Health(
            version=seen[0].version,
            identity=",".join(one.mark or "" for one in seen) if all(one.mark for one in seen) else "",
            enforced=Enforced.NOTHING,
            findings=tuple(dict.fromkeys(finding for one in seen for finding in one.findings)),
        )

    def _seen(self, session: Session, number: int, levels: Sequence[Level]) -> Seen:
        """What the bot may do comes first: without that nothing else can be asked."""
        found = list(rights(session))
        if any(f.is_fatal for f in found):
            return Seen(self.label, None, tuple(found))
        self._same_server(session, number)
        found += server_findings(session, self.nodes)
        found += [finding for level in levels for finding in level_findings(session, level, self._database)]
        return Seen(session.version(), server_mark(session), tuple(found))

    def identity(self) -> str:
        """A random word per node, on a user ``dbaccess_server`` that cannot log in and may do nothing; made here where there is none.

        Redis has no identity that outlives a restart, so this proves that the node has the list of users the grant was made in: it stays over restarts,
        failovers and changes of address, and differs on another server. A copy of the whole ACL file carries it along. A node that saves nothing forgets it
        with all its users, and is then taken for the same by its address.
        """
        with self._all() as sessions:
            return ",".join(server_mark(session) or mark_server(session) for session in sessions)

    def create_user(self, spec: UserSpec) -> None:
        """On every node or, after an error, on some; one statement makes all of the user on a node."""
        rules = rules_of(spec.level)
        with self._all() as sessions:
            for session in sessions:
                self._find(session, spec.username)
                if is_open(session):
                    raise Rejected(OPEN_DEFAULT[0], remedy=OPEN_DEFAULT[1])
                session.call(
                    "CLIENT", "LIST", "ID", "1"
                )  # without it the end of a user could not be proven, so nobody is made
            for session in sessions:
                words = (
                    "reset",
                    "on",
                    hashed(spec.password),
                    *rules,
                    self._mark(session, spec.request_id, spec.remaining),
                )
                session.call("ACL", "SETUSER", spec.username, *words)
            for session in sessions:
                session.save()

    def set_password(self, username: str, password: str) -> None:
        """The server is sent a hash. Saved, so that no restart revives the old one."""
        self._change(username, lambda *_: ("resetpass", hashed(password)))

    def set_expiry(self, username: str, remaining: float) -> None:
        """A further mark; the last one holds."""
        self._change(username, lambda session, found: (self._mark(session, found.request_id or 0, remaining),))

    def drop_user(self, username: str, level: Level) -> Removal:  # noqa: ARG002 - a Redis user leaves nothing that depends on its level
        """On every node that answers, also when another does not; raises the trouble of that one at the end."""
        was_absent, ended, troubles, read_back = True, 0, list[AdapterError](), datetime.now(UTC)
        for number, node in enumerate(self.nodes):
            try:
                with node.session(ends_scripts=True) as session:
                    self._same_server(session, number)
                    is_there = self._find(session, username, to_end=True) is not None
                    ended += len(take_away(session, username))
                    session.save()
                    read_back = datetime.fromtimestamp(session.now(), UTC)
                    was_absent = was_absent and not is_there
            except AdapterError as trouble:
                troubles.append(trouble)
        if troubles:
            raise max(troubles, key=lambda t: (isinstance(t, ForeignUser), isinstance(t, Rejected)))
        return Removal(
            was_absent=was_absent, sessions_ended=ended, left_behind=(), left_with=None, read_back_at=read_back
        )

    def list_users(self) -> list[ManagedUser]:
        """Of all nodes; one that is on several is named once, as ours where it is ours on any."""
        pattern, found = username_pattern(self.target.prefix), dict[str, ManagedUser]()
        with self._all() as sessions:
            for session in sessions:
                for name in filter(pattern.fullmatch, session.call("ACL", "USERS")):
                    user = get_user(session, name)
                    if user is not None and (name not in found or found[name].ledger != self.target.ledger):
                        found[name] = managed(name, user)
        return [found[name] for name in sorted(found)]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Connections of now, on all nodes. Redis counts no commands per user."""
        with self._all() as sessions:
            rows = [row for session in sessions for row in session.clients()]
        return [activity_of(name, [row["addr"] for row in rows if row.get("user") == name]) for name in usernames]

    def endpoint(self, level: Level) -> Endpoint:
        """The command asks for the password: in the process list everybody could read it."""
        told, node = self.target.connect, self.nodes[0]
        host, port, database = told.host or node.host, told.port or node.port, self._database(level)
        tls = told.tls or self.target.tls.mode
        words = ["redis-cli", "--user", "{username}", "-h", shlex.quote(host), "-p", str(port)]
        words += ["-n", database] if database != "0" else []
        if tls not in ("disable", "prefer") or (told.tls is None and node.is_tls):
            words += ["--tls", *self._authority(tls)]
        command = " ".join([*words, "--askpass"])
        return Endpoint(
            host=host, port=port, database=database, tls=tls, note=told.note, engine=self.label, command=command
        )

    def login(self, username: str, password: str, level: Level) -> Login:
        """On the node of the admin URL."""
        return Login(self.nodes[0], username, password, database=int(self._database(level)))

    def _authority(self, tls: str) -> tuple[str, ...]:
        """redis-cli checks who signed the certificate, and never for which host."""
        if self.target.tls.ca:
            return "--cacert", shlex.quote(self.target.tls.ca)
        return () if tls.startswith("verify") else ("--insecure",)

    def _database(self, level: Level) -> str:
        database = level.database or self.target.connect.database or self.nodes[0].database
        if not re.fullmatch(r"[0-9]{1,5}", database):
            raise Rejected(f"{database!r} is no database of Redis", remedy="they are numbers; leave it out for 0")
        return database

    @contextmanager
    def _all(self) -> Iterator[list[Session]]:
        """Every node, each the one the grant was made on."""
        with ExitStack() as stack:
            sessions = [stack.enter_context(node.session()) for node in self.nodes]
            for number, session in enumerate(sessions):
                self._same_server(session, number)
            yield sessions

    def _same_server(self, session: Session, number: int) -> None:
        if self.target.identity is None:
            return
        words = self.target.identity.split(",")
        expected = words[number] if len(words) == len(self.nodes) else self.target.identity
        found = server_mark(session)
        if found is None and expected.startswith(UNKEPT):
            mark_server(session, expected)
        elif found is None:
            again = f"ACL SETUSER {SERVER_USER} off (~dbaccess:server={expected})"
            raise WrongServer(expected=expected, found=f"without a mark (where it is the same for all that: {again})")
        elif found != expected:
            raise WrongServer(expected=expected, found=found)

    def _find(self, session: Session, username: str, *, to_end: bool = False) -> ManagedUser | None:
        """Absent is None. Raises NotOurs for a user of another ledger, and for one without a mark unless it is ``to_end``."""
        if not username_pattern(self.target.prefix).fullmatch(username):
            remedy = f"{self.target.prefix}<request>_<who>_<4 of the key>, at most 32 of a-z, 0-9 and _"
            raise Rejected("that is no name of a temporary user", remedy=remedy)
        user = get_user(session, username)
        found = managed(username, user) if user is not None else None
        is_lost = found is not None and found.ledger is None and to_end
        if found is not None and found.ledger != self.target.ledger and not is_lost:
            raise ForeignUser(username, f"marked by ledger {found.ledger}" if found.ledger else "it has no mark")
        return found

    def _mark(self, session: Session, request_id: int, remaining: float) -> str:
        until = max(0, int(session.now() + remaining))
        return f"(~dbaccess:ledger={self.target.ledger}:request={request_id}:until={until})"

    def _change(self, username: str, words: Callable[[Session, ManagedUser], tuple[str, ...]]) -> None:
        """SETUSER makes what is absent: where the user went away meanwhile, what that made is a stub and is taken away again."""
        with self._all() as sessions:
            found = [(session, self._present(session, username)) for session in sessions]
            for session, user in found:
                session.call("ACL", "SETUSER", username, *words(session, user))
                after = get_user(session, username)
                if after is None or not after["passwords"] or "on" not in after["flags"] or not marks(after):
                    session.call("ACL", "DELUSER", username)
                    session.save()
                    raise Rejected(f"the user {username} went away meanwhile")
                session.save()

    def _present(self, session: Session, username: str) -> ManagedUser:
        found = self._find(session, username)
        if found is None:
            raise Rejected(f"there is no user {username} on {session.node}")
        return found
