"""The engine ``redis``: temporary ACL users on Redis 7.0 and later and on Valkey 8 and later.

- Users, sessions and files belong to one node each, and nothing is replicated. ``admin_url`` and ``replicas`` name all nodes, and a verb
  is done only when every node has answered.
- ``ACL DELUSER`` alone ends the login, the rights and every session of a user in one step. Nothing is blocked beforehand, because ``off``
  and ``resetpass`` leave sessions running.
- The server ends nothing by itself, so only dbaccess ends a grant. ``until=`` in the user's mark says when it should end.
- A session that logs in again as another account, whose password its user knows, belongs to that account and is not ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import ClassVar

from adapters.base import (
    Activity,
    AdapterError,
    Endpoint,
    Enforced,
    Health,
    Level,
    ManagedUser,
    Rejected,
    Removal,
    Secrets,
    Target,
    UserSpec,
    UserToDrop,
    WrongServer,
)
from adapters.level_state import LevelState
from adapters.redis.blocking import PATIENCE_SECONDS, block_on
from adapters.redis.comparing import compare
from adapters.redis.end import Ended, Ending, end_user
from adapters.redis.findings import NodeReport, fatal, node_report, refuse_unsupported, several_servers
from adapters.redis.levels import rules_of
from adapters.redis.links import Sighting, sightings
from adapters.redis.login import Login, database_of, to_endpoint
from adapters.redis.nodes import Node, on_every_node
from adapters.redis.session import Session
from adapters.redis.state import changes, node_facts
from adapters.redis.users import (
    OPEN_DEFAULT,
    UNSAVED_PREFIX,
    find_marks,
    find_own,
    get_user,
    is_open,
    mark_rule,
    mark_server,
    password_rule,
    refuse_other_names,
    server_mark,
    to_activity,
    to_managed_user,
    unmarked,
)
from adapters.usernames import username_pattern


class Redis:
    """Implements ``adapters.base.Adapter``."""

    label: ClassVar[str] = "Redis"
    enforces: ClassVar[Enforced] = Enforced.NOTHING

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        named = zip((target.admin_url, *target.replicas), (secrets.admin_url, *secrets.replicas), strict=True)
        self.nodes = tuple(
            Node.parse(url, reference, target.tls) if number == 0 else Node.parse_replica(url, reference, target.tls)
            for number, (reference, url) in enumerate(named)
        )

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Checks every node. A node of ``replicas`` that does not answer is a fatal finding; the first node raises."""
        reports = list[NodeReport]()
        for number, node in enumerate(self.nodes):
            try:
                with node.session() as session:
                    reports.append(self._report(session, number, levels if number == 0 else ()))
            except AdapterError as error:
                if number == 0:
                    raise
                remedy = error.remedy if isinstance(error, Rejected) else None
                reports.append(NodeReport("", None, (fatal(str(error), remedy),)))
        return Health(
            version=reports[0].version,
            identity=",".join(one.mark or "" for one in reports) if all(one.mark for one in reports) else "",
            enforced=Enforced.NOTHING,
            findings=tuple(dict.fromkeys(finding for one in reports for finding in one.findings)),
        )

    def _report(self, session: Session, number: int, levels: Sequence[Level]) -> NodeReport:
        def confirm() -> None:
            self._check_identity(session, number)

        def database(level: Level) -> str:
            return database_of(self.target, self.nodes[0], level)

        return node_report(session, self.nodes, levels, database=database, confirm_identity=confirm)

    def identity(self) -> str:
        """One random string for each node, joined by commas. It is the mark of a user ``dbaccess_server``, which cannot log in and has no rights.

        A node without a mark is marked here. Redis itself has no identity that outlives a restart. The mark therefore shows that the node has the list of
        users in which the grant was made: it stays the same after a restart, a failover or a change of address, and differs on another server. A copy of the
        ACL file carries the mark along. A node that saves nothing loses the mark with all its users at a restart; it is then known by its address and marked
        again. Raises Rejected for a server that has no mark and is too old for new users.
        """
        with self._all_nodes() as sessions:
            return ",".join(server_mark(session) or self._mark_new_server(session) for session in sessions)

    def _mark_new_server(self, session: Session) -> str:
        refuse_unsupported(session)
        return mark_server(session)

    def level_state(self, level: Level) -> LevelState:
        """See ``state``: the same for every level, on all nodes."""
        del level
        pattern = username_pattern(self.target.prefix)
        with ExitStack() as stack:
            sessions = [stack.enter_context(node.session()) for node in self.nodes]
            return LevelState.of(fact for session in sessions for fact in node_facts(session, pattern))

    def create_user(self, spec: UserSpec) -> None:
        """Creates the user on every node, or after an error on some. On each node one atomic statement sets all of the user."""
        rules = rules_of(spec.level)
        with self._all_nodes() as sessions:
            for session in sessions:
                refuse_unsupported(session)
                self._find_user(session, spec.username)
                if is_open(session):
                    raise Rejected(OPEN_DEFAULT[0], remedy=OPEN_DEFAULT[1])
                if (finding := several_servers(session)) is not None:
                    raise Rejected(finding.what, remedy=finding.remedy)
                session.call("CLIENT", "LIST", "ID", "1")  # a user whose end could not be proven is not created
            for session in sessions:
                mark = self._mark_rule(session, spec.request_id, spec.remaining)
                rights = ("reset", "on", password_rule(spec.password), *rules, mark)
                session.call("ACL", "SETUSER", spec.username, *rights)
                self._note_seen(session, spec.username)
            for session in sessions:
                session.save()
                session.link.is_wanted = True

    def _note_seen(self, session: Session, username: str) -> None:
        """A later end of this user need not read its mark first, see ``end``."""
        if session.link.server is not None:
            sightings.add(Sighting(self.target.ledger, session.link.server, username))

    def set_password(self, username: str, password: str) -> None:
        """Sends a hash of the password. It is saved, so that a restart does not bring the old password back."""
        self._update_user(username, lambda *_: ("resetpass", password_rule(password)))

    def set_expiry(self, username: str, remaining: float) -> None:
        """Adds a mark with the new end. The last mark is the valid one."""
        self._update_user(username, lambda session, user: (self._mark_rule(session, user.request_id or 0, remaining),))

    def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
        """Drops the user on all nodes at once, and on every node that answers. Errors of the others are raised at the end. The server's version does not matter."""
        refuse_other_names(self.target.prefix, username)
        ends = on_every_node(self.nodes, lambda number: self._drop_on(number, username))
        return Removal(
            was_absent=not any(ended.was_there for ended, _ in ends),
            sessions_ended=sum(ended.sessions for ended, _ in ends),
            left_behind=(),
            left_with=None,
            read_back_at=min(at for _, at in ends),
            notes=changes(before, lambda: self.level_state(level)),
        )

    def _drop_on(self, number: int, username: str) -> tuple[Ended, datetime]:
        """The result on one node and the node's clock afterwards."""
        with self.nodes[number].session(to_end=True) as session:
            ended = end_user(session, Ending(username, self.target.ledger, self._expected_mark(number)))
            now = session.now()
            return ended, datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)

    def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
        """The users that are blocked on all nodes. See ``blocking``."""
        names = sorted(filter(username_pattern(self.target.prefix).fullmatch, set(usernames)))
        if not names:
            return frozenset()
        return frozenset.intersection(*on_every_node(self.nodes, lambda number: self._block_on(number, names)))

    def _block_on(self, number: int, names: Sequence[str]) -> frozenset[str]:
        with self.nodes[number].session(to_end=True, patience=PATIENCE_SECONDS) as session:
            return block_on(session, names, ledger=self.target.ledger, server=self._expected_mark(number))

    def drop_blocked_users(self, users: Sequence[UserToDrop]) -> Mapping[str, Removal]:
        """There is no quick way: ``drop_user`` drops each."""
        del users
        return {}

    def end_by_hand(self, username: str) -> tuple[str, ...]:
        """The statements for one node; with several nodes, ``CONNECT`` leads redis-cli to each."""
        refuse_other_names(self.target.prefix, username)
        words = f"ACL SETUSER {username} off", f"CLIENT KILL USER {username}", f"ACL DELUSER {username}", "ACL SAVE"
        if len(self.nodes) == 1:
            return words
        return tuple(word for node in self.nodes for word in (f"CONNECT {node.host} {node.port}", *words))

    def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
        """See ``comparing``. Sentences of a target with several nodes name the node."""
        with self._all_nodes() as sessions:
            return compare(sessions, levels) if levels else {}

    def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
        """Nothing: Redis has no roles, and each user has rules of its own."""
        del levels
        return []

    def drop_leftovers(self) -> list[str]:
        """Nothing: a Redis user leaves keys alone, which have no owners."""
        return []

    def list_users(self) -> list[ManagedUser]:
        """The users of all nodes. A user of several nodes is listed once, with the mark of this ledger if it has that mark on any node."""
        pattern, found = username_pattern(self.target.prefix), dict[str, ManagedUser]()
        with self._all_nodes() as sessions:
            for session in sessions:
                for name in filter(pattern.fullmatch, session.call("ACL", "USERS")):
                    user = get_user(session, name)
                    if user is not None and (name not in found or found[name].ledger != self.target.ledger):
                        found[name] = to_managed_user(name, user)
                        if found[name].ledger == self.target.ledger:
                            self._note_seen(session, name)
                session.link.is_wanted = True
        return [found[name] for name in sorted(found)]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """The connections on all nodes. Redis does not count commands per user."""
        with self._all_nodes() as sessions:
            rows = [row for session in sessions for row in session.clients()]
        return [
            to_activity(name, [row.get("addr", "") for row in rows if row.get("user") == name]) for name in usernames
        ]

    def endpoint(self, level: Level) -> Endpoint:
        """The command prompts for the password, because every user of the machine could read it in the process list."""
        return to_endpoint(self.target, self.nodes[0], level, label=self.label)

    def login(self, username: str, password: str, level: Level) -> Login:
        """A login on the node of the admin URL."""
        return Login(self.nodes[0], username, password, database=int(database_of(self.target, self.nodes[0], level)))

    @contextmanager
    def _all_nodes(self) -> Iterator[list[Session]]:
        """A session on every node, each checked to be the server on which the grant was made."""
        with ExitStack() as stack:
            sessions = [stack.enter_context(node.session()) for node in self.nodes]
            for number, session in enumerate(sessions):
                self._check_identity(session, number)
            yield sessions

    def _check_identity(self, session: Session, number: int) -> None:
        """Raise WrongServer unless the node has the mark that the grant has frozen. A node that saves nothing gets its lost mark back."""
        expected, found = self._expected_mark(number), server_mark(session)
        if expected is None:
            return
        if found is None and expected.startswith(UNSAVED_PREFIX):
            mark_server(session, expected)
        elif found != expected:
            raise WrongServer(expected=expected, found=found or unmarked(expected))

    def _expected_mark(self, number: int) -> str | None:
        """The mark of one node in the identity that the grant has frozen; None before START."""
        if self.target.identity is None:
            return None
        marks = self.target.identity.split(",")
        return marks[number] if len(marks) == len(self.nodes) else self.target.identity

    def _find_user(self, session: Session, username: str) -> ManagedUser | None:
        refuse_other_names(self.target.prefix, username)
        return find_own(session, username, self.target.ledger)

    def _mark_rule(self, session: Session, request_id: int, remaining: float) -> str:
        return mark_rule(session, self.target.ledger, request_id, remaining)

    def _update_user(self, username: str, rules: Callable[[Session, ManagedUser], tuple[str, ...]]) -> None:
        """Set ``rules`` on every node. ``SETUSER`` creates an absent user: if the user was dropped meanwhile, the new one is deleted and Rejected is raised."""
        with self._all_nodes() as sessions:
            found = [(session, self._require_user(session, username)) for session in sessions]
            for session, user in found:
                session.call("ACL", "SETUSER", username, *rules(session, user))
                after = get_user(session, username)
                if after is None or not after["passwords"] or "on" not in after["flags"] or not find_marks(after):
                    session.call("ACL", "DELUSER", username)
                    session.save()
                    raise Rejected(f"the user {username} was dropped meanwhile")
                session.save()

    def _require_user(self, session: Session, username: str) -> ManagedUser:
        found = self._find_user(session, username)
        if found is None:
            raise Rejected(f"there is no user {username} on {session.node}")
        return found
