"""``check`` names each right of a level that outlives its users or reaches beyond its database, with a remedy that works."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from adapters.base import Level, PrivilegeGrant
from tests.contract.postgresql.attacks import Attack
from tests.contract.postgresql.harness import readonly, writer

SETS_FALSE = 16


@dataclass(frozen=True, kw_only=True)
class Right:
    """``given`` by a superuser, and the text of the finding. ``{role}`` is the level's role, and ``{team}`` another role."""

    given: str
    found: str
    since: int = 15


RIGHTS = {
    "triggers": Right(
        given="GRANT TRIGGER ON shop.orders TO {role}", found="leave triggers on shop.orders behind (TRIGGER)"
    ),
    "foreign keys": Right(given="GRANT REFERENCES ON shop.orders TO {role}", found="leave foreign keys to shop.orders"),
    "triggers on all tables": Right(
        given="GRANT TRIGGER ON ALL TABLES IN SCHEMA shop TO {role}; SET ROLE shop_owner; CREATE TABLE shop.a(); CREATE TABLE shop.b();"
        " CREATE TABLE shop.c(); CREATE TABLE shop.d(); RESET ROLE; GRANT TRIGGER ON ALL TABLES IN SCHEMA shop TO {role}",
        found="and 2 more behind (TRIGGER)",
    ),
    "triggers for everybody": Right(
        given="GRANT TRIGGER ON shop.orders TO PUBLIC", found="leave triggers on shop.orders"
    ),
    "tables": Right(
        given="GRANT CREATE ON SCHEMA shop TO {role}",
        found="leave tables and functions in the schema shop behind (CREATE)",
    ),
    "schemas": Right(
        given='GRANT CREATE ON DATABASE "{db}" TO {role}', found="leave schemas and publications in the database"
    ),
    "temporary tables": Right(given='GRANT TEMPORARY ON DATABASE "{db}" TO {role}', found="create temporary tables"),
    "other databases": Right(
        given='GRANT CONNECT ON DATABASE "{other}" TO {role}', found="reach other databases of the server: {other}"
    ),
    "an owner": Right(given="GRANT {team} TO {role}", found="leave things behind as {team}"),
    "verifiers": Right(
        given="GRANT SELECT ON pg_authid TO {role}", found="read password verifiers or passwords (pg_authid)"
    ),
    "verifiers by a role": Right(
        given="GRANT pg_read_all_data TO {role}", found="read password verifiers or passwords (pg_authid"
    ),
    "files": Right(
        given="GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}",
        found="reach beyond the database by pg_read_file(text)",
    ),
    "imports": Right(
        given="GRANT EXECUTE ON FUNCTION lo_import(text) TO {role}",
        found="reach beyond the database by lo_import(text)",
    ),
    "jobs": Right(
        given="CREATE SCHEMA cron; GRANT USAGE ON SCHEMA cron TO {role}; CREATE FUNCTION cron.schedule(text, text) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        found="leave jobs behind that run on (cron.schedule(text,text))",
    ),
    "other servers": Right(
        given="CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN SERVER far TO {role}",
        found="use the foreign servers far",
    ),
    "settings of the server": Right(
        given="GRANT ALTER SYSTEM ON PARAMETER archive_command TO {role}",
        found="settings of the whole server behind (archive_command)",
    ),
    "statements of others": Right(given="GRANT pg_monitor TO {role}", found="read the statements of other users"),
}


def team_of(attack: Attack) -> dict[str, str]:
    """A role for the level, and one that owns a table."""
    role, team = f"role_{attack.harness.bot}", f"team_{attack.harness.bot}"
    holder, database = attack.harness.owner or attack.harness.bot, attack.harness.database
    attack.as_superuser(
        f"CREATE ROLE {role}; CREATE ROLE {team}; GRANT {role} TO {holder} WITH ADMIN OPTION; CREATE TABLE shop.of_team (id int)"
    )
    attack.as_superuser(
        f'ALTER TABLE shop.of_team OWNER TO {team}; GRANT CONNECT ON DATABASE "{database}" TO {role}; GRANT USAGE ON SCHEMA shop TO {role}'
    )
    return {"role": role, "team": team, "db": database, "other": attack.harness.other}


@pytest.mark.parametrize("what", RIGHTS)
def test_check_names_a_right_and_its_remedy_works(attack: Attack, what: str) -> None:
    names, right = team_of(attack), RIGHTS[what]
    level, text = Level(name="x", roles=(names["role"],)), right.found.format(**names)
    assert [finding.what for finding in attack.bad_findings(level) if "level x: its users can" in finding.what] == []
    attack.as_superuser(right.given.format(**names))
    try:
        findings = [finding for finding in attack.bad_findings(level) if text in finding.what]
        assert findings, attack.bad_findings(level)
        assert all(finding.what.startswith("level x: its users ") for finding in findings)
        for finding in findings:
            if finding.remedy:
                attack.as_superuser(finding.remedy)
                assert not [f for f in attack.bad_findings(level) if text in f.what]
    finally:
        attack.as_superuser(f"DROP OWNED BY {names['role']}")


def test_check_names_rights_of_grants(attack: Attack) -> None:
    privileges = ("TRIGGER", "REFERENCES", "SELECT")
    level = Level(name="x", grants=(PrivilegeGrant(on=("shop.orders",), privileges=privileges),))
    whats = [finding.what for finding in attack.bad_findings(level)]
    assert "level x: its users can leave triggers on shop.orders behind (TRIGGER)" in whats
    assert (
        "level x: its users can leave foreign keys to shop.orders behind that hold up its owner (REFERENCES)" in whats
    )


def test_a_setting_that_acts_as_a_role_needs_set_role(attack: Attack) -> None:
    level = replace(writer(), settings={"role": "shop_writer"})
    found = [f for f in attack.bad_findings(level) if "may not act as the role shop_writer" in f.what]
    assert bool(found) == (attack.harness.server.version >= SETS_FALSE)
    assert not [f for f in attack.bad_findings(replace(level, set_role=True)) if "may not act" in f.what]


def on_card(attack: Attack, level: Level) -> list[str]:
    """The sentences for the approval card of this level. Each belongs to the level."""
    found = [finding for finding in attack.harness.adapter().check([level]).findings if finding.on_card]
    assert {finding.level for finding in found} <= {level.name}
    return [str(finding.on_card) for finding in found]


def test_check_says_on_the_approval_card_what_is_left_behind(attack: Attack) -> None:
    """A member that does not inherit and may not SET ROLE does not have the rights of the owner."""
    names = team_of(attack)
    level = Level(name="x", roles=(names["role"],))
    sentence = f"Members of {names['team']} can leave functions and tables behind that outlive this access."
    assert on_card(attack, level) == []
    assert on_card(attack, readonly()) == []
    attack.as_superuser(f"GRANT {names['team']} TO {names['role']}")
    assert on_card(attack, level) == [sentence]
    if attack.harness.server.version >= SETS_FALSE:
        attack.as_superuser(f"GRANT {names['team']} TO {names['role']} WITH INHERIT FALSE")
        assert on_card(attack, level) == []
        assert on_card(attack, replace(level, set_role=True)) == [sentence]
    attack.as_superuser(f"GRANT TRIGGER ON shop.orders TO {names['role']}")
    assert "Users of this level can leave triggers on shop.orders behind (TRIGGER)." in on_card(attack, level)


def test_findings_of_a_level_name_it_and_those_of_the_server_do_not(attack: Attack) -> None:
    names = team_of(attack)
    levels = [Level(name="x", roles=(names["role"], "no_such_role")), Level(name="y", roles=(names["role"],))]
    findings = attack.harness.adapter().check(levels).findings
    assert {finding.level for finding in findings} == {"x", "y", None}
    assert all(finding.what.startswith(f"level {finding.level}:") for finding in findings if finding.level)
    assert not [finding for finding in findings if finding.level is None and finding.what.startswith("level ")]
    assert len({finding.what for finding in findings}) == len(findings), "what is true of the server is said once"
