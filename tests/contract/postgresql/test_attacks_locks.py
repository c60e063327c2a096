"""Advisory locks, which anybody may take, delay no revocation and no grant of others."""

from __future__ import annotations

import re
import threading

import pytest

from adapters.base import Level
from tests.contract.postgresql.attacks import Attack, End, Session, refusal, run_setup
from tests.contract.postgresql.harness import readonly, support, writer
from tests.open_faults import require
from tests.soak import soak_only

CALL = re.compile(
    r"pg_(?:try_)?advisory_(?:xact_)?lock(?:_shared)?\(([^)]*)\)[^\n]*\n[^\n]*?DETAIL: +(?:P|p)arameters: ([^\n]*)"
)
TABLES, AT_ONCE = 15_000, 500


@pytest.fixture
def squatter(attack: Attack) -> Session:
    """The session of a reader that holds each advisory lock that the bot takes."""
    session = attack.session(attack.user(readonly()))
    for key in locks_of_the_bot(attack):
        run_setup(session, f"SELECT pg_advisory_lock({key})")
    return session


def locks_of_the_bot(attack: Attack) -> set[str]:
    """The bot's advisory locks, read from the server's log while it creates and ends users. A bot without any cannot be delayed by them."""
    server = attack.harness.server
    before = len(server.log_text())
    by_grants, by_role = attack.user(support()), attack.user(writer())
    run_setup(attack.session(by_role), "CREATE TABLE shop.seen (id int)")
    for spec in (by_grants, by_role):
        require(attack.end(spec).removal, "the users are ended undisturbed")
    calls = CALL.findall(server.log_text()[before:])
    return {filled(arguments, dict(re.findall(r"(\$\d+) = '([^']*)'", values))) for arguments, values in calls}


def filled(arguments: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\d+", lambda found: values[found[0]], arguments)


def test_a_readers_advisory_lock_does_not_delay_other_revocations(attack: Attack, squatter: Session) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    run_setup(session, "CREATE TABLE shop.mine (id int)")
    attack.assert_ended(spec, attack.end(spec), session)


def test_a_readers_advisory_lock_does_not_delay_grants(attack: Attack, squatter: Session) -> None:
    spec = attack.harness.spec(support())
    refused = refusal(lambda: attack.harness.adapter().create_user(spec))
    assert refused is None, refused
    assert attack.may_log_in(spec)


def test_a_user_without_objects_is_ended_despite_the_locks(attack: Attack, squatter: Session) -> None:
    spec = attack.user(readonly())
    session = attack.session(spec)
    attack.assert_ended(spec, attack.end(spec, tries=1), session)


def test_the_holder_of_the_locks_is_ended(attack: Attack) -> None:
    keys = locks_of_the_bot(attack)
    spec = attack.user(writer())
    session = attack.session(spec)
    run_setup(session, "CREATE TABLE shop.mine (id int)")
    for key in keys:
        run_setup(session, f"SELECT pg_advisory_lock({key})")
    attack.assert_ended(spec, attack.end(spec, tries=1), session)


def make_tables(session: Session) -> None:
    run_setup(session, "SET statement_timeout = 0")
    for first in range(0, TABLES, AT_ONCE):
        names = range(first, first + AT_ONCE)
        run_setup(session, "BEGIN;" + ";".join(f"CREATE TABLE shop.t_{n} (a int)" for n in names) + ";COMMIT")


@soak_only
@pytest.mark.timeout(900)
def test_a_revocation_does_not_wait_for_a_long_one(attack: Attack) -> None:
    rich, poor = attack.user(writer()), attack.user(writer())
    make_tables(attack.session(rich))
    session = attack.session(poor)
    run_setup(session, "CREATE TABLE shop.mine (id int)")
    ends: list[End] = []
    other = threading.Thread(target=lambda: ends.append(attack.end(rich)))
    other.start()
    end = attack.end(poor, tries=1)
    other.join()
    attack.assert_ended(poor, end, session)
    attack.assert_ended(rich, ends[0])


def test_a_grant_names_who_changes_the_same_privileges(attack: Attack) -> None:
    """An open transaction of an owner's level holds up grants on its tables, and no end. It may be a migration, so it is named and not ended."""
    attack.as_superuser(f"GRANT shop_owner TO {attack.harness.owner or attack.harness.bot} WITH ADMIN OPTION")
    spec = attack.user(Level(name="owner", roles=("shop_owner", "shop_reader")))
    session = attack.session(spec)
    for statement in ("BEGIN", "GRANT SELECT ON shop.customers TO PUBLIC"):
        run_setup(session, statement)
    refused = refusal(lambda: attack.harness.adapter().create_user(attack.harness.spec(support())))
    assert refused is not None
    assert f"session {session.info.backend_pid} of {spec.username}" in refused
    attack.assert_ended(spec, attack.end(spec, tries=1), session)
