"""Things that a user does with the rights of its level's role, and that outlive it: the receipt names each, or undoes it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from adapters.base import Level
from tests.contract.postgresql.attacks import Attack, run_setup

EVIL = (
    "CREATE FUNCTION shop.evil(x int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$",
    "CREATE FUNCTION shop.wicked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$",
)
"""Functions of the user itself. With these it attaches its code to the owner's tables."""

TEAM = """
SET ROLE shop_owner;
CREATE FUNCTION shop.price(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER audited BEFORE UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.audit();
CREATE VIEW shop.cheap AS SELECT id FROM shop.customers;
CREATE DOMAIN shop.amount AS int;
CREATE TYPE shop.size AS ENUM ('s');
CREATE SEQUENCE shop.numbers;
CREATE TABLE shop.secrets (id int, owner text);
ALTER TABLE shop.secrets ENABLE ROW LEVEL SECURITY;
CREATE TABLE shop.parts (id int) PARTITION BY LIST (id);
RESET ROLE;
"""


@dataclass(frozen=True, kw_only=True)
class Try:
    """What the user runs, and the text that the receipt must contain. ``acts``: only a user that may SET ROLE can do it."""

    named: str
    runs: tuple[str, ...]
    acts: bool = False


TRIES = {
    "a function of the team, replaced": Try(
        named="shop.price", runs=("CREATE OR REPLACE FUNCTION shop.price(int) RETURNS int LANGUAGE sql AS 'SELECT 2'",)
    ),
    "a function of the team that runs as its owner now": Try(
        named="run as their owner", runs=("ALTER FUNCTION shop.price(int) SECURITY DEFINER",)
    ),
    "a setting of a function": Try(
        named="shop.price", runs=("ALTER FUNCTION shop.price(int) SET search_path = public",)
    ),
    "a column default": Try(
        named="shop.orders.customer",
        runs=(
            "ALTER TABLE shop.orders ALTER customer SET DEFAULT length(query_to_xml('SELECT 1', true, true, '')::text)",
        ),
    ),
    "a check constraint": Try(
        named="checked", runs=("ALTER TABLE shop.orders ADD CONSTRAINT checked CHECK (shop.evil(id)) NOT VALID",)
    ),
    "a check of a domain": Try(
        named="checked", runs=("ALTER DOMAIN shop.amount ADD CONSTRAINT checked CHECK (shop.evil(value))",)
    ),
    "the default of a domain": Try(named="shop.amount", runs=("ALTER DOMAIN shop.amount SET DEFAULT 13",)),
    "an index that computes": Try(named="computed", runs=("CREATE INDEX computed ON shop.orders (shop.evil(id))",)),
    "statistics that compute": Try(
        named="counted", runs=("CREATE STATISTICS shop.counted ON (shop.evil(id)) FROM shop.orders",)
    ),
    "a rule": Try(named="copied", runs=("CREATE RULE copied AS ON UPDATE TO shop.orders DO ALSO SELECT shop.evil(1)",)),
    "a view of the team, replaced": Try(
        named="shop.cheap", runs=("CREATE OR REPLACE VIEW shop.cheap AS SELECT id FROM shop.orders",)
    ),
    "an option of a view": Try(named="shop.cheap", runs=("ALTER VIEW shop.cheap SET (security_barrier = true)",)),
    "a trigger that was disabled": Try(named="audited", runs=("ALTER TABLE shop.customers DISABLE TRIGGER audited",)),
    "a trigger with a function of the server": Try(
        named="lossy",
        runs=(
            "CREATE TRIGGER lossy BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ),
    ),
    "a constraint trigger of its own": Try(
        named="wicked",
        runs=(
            "CREATE CONSTRAINT TRIGGER wicked AFTER INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.wicked()",
        ),
    ),
    "a trigger on a partitioned table": Try(
        named="wicked",
        runs=("CREATE TRIGGER wicked AFTER INSERT ON shop.parts FOR EACH ROW EXECUTE FUNCTION shop.wicked()",),
    ),
    "row security that was disabled": Try(
        named="shop.secrets", runs=("ALTER TABLE shop.secrets DISABLE ROW LEVEL SECURITY",)
    ),
    "a row policy": Try(named="everything", runs=("CREATE POLICY everything ON shop.secrets USING (true)",)),
    "a child table of its own": Try(
        named="shop.child",
        runs=(
            "CREATE TABLE shop.child (id int PRIMARY KEY, customer int)",
            "ALTER TABLE shop.child ALTER id SET NOT NULL",
            "ALTER TABLE shop.child INHERIT shop.orders",
        ),
    ),
    "a partition of its own": Try(
        named="shop.part_1",
        runs=(
            "CREATE TABLE shop.part_1 (id int)",
            "ALTER TABLE shop.parts ATTACH PARTITION shop.part_1 FOR VALUES IN (1)",
        ),
    ),
    "a foreign key of its own": Try(
        named="held", runs=("CREATE TABLE shop.mine (id int CONSTRAINT held REFERENCES shop.orders)",)
    ),
    "a right on a schema": Try(named="{friend}", runs=("GRANT CREATE ON SCHEMA shop TO {friend}",)),
    "a right on a sequence": Try(named="{friend}", runs=("GRANT UPDATE ON SEQUENCE shop.numbers TO {friend}",)),
    "a right on a function": Try(named="{friend}", runs=("GRANT EXECUTE ON FUNCTION shop.price(int) TO {friend}",)),
    "a right on a type": Try(named="{friend}", runs=("GRANT USAGE ON TYPE shop.size TO {friend}",)),
    "a right for everybody": Try(named="PUBLIC", runs=("GRANT SELECT ON shop.orders TO PUBLIC",)),
    "a right that was taken": Try(named="shop_reader", runs=("REVOKE SELECT ON shop.orders FROM shop_reader",)),
    "default privileges": Try(
        named="default privileges",
        runs=("ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT SELECT ON TABLES TO {friend}",),
    ),
    "a table that was renamed": Try(named="shop.past", runs=("ALTER TABLE shop.orders RENAME TO past",)),
    "a publication with the team's table": Try(
        named="shop.orders", runs=("CREATE PUBLICATION told FOR TABLE shop.orders",)
    ),
    "a setting of the role": Try(
        named="search_path", runs=("SET ROLE shop_owner", "ALTER ROLE shop_owner SET search_path = public"), acts=True
    ),
    "a large object of the role": Try(
        named="large object", runs=("SET ROLE shop_owner", "SELECT lo_create(0)"), acts=True
    ),
    "a schema of the role": Try(
        named="annex", runs=("SET ROLE shop_owner", "CREATE SCHEMA annex CREATE TABLE t (id int)"), acts=True
    ),
    "a prepared transaction of the role": Try(
        named="later",
        runs=(
            "SET ROLE shop_owner",
            "BEGIN",
            "SELECT 1 FROM shop.orders",
            "UPDATE shop.orders SET id = id",
            "PREPARE TRANSACTION 'later'",
        ),
        acts=True,
    ),
}


def team(attack: Attack, *, set_role: bool = False) -> Level:
    """A level of the tables' owner, with the team's functions and tables."""
    holder, database = attack.harness.owner or attack.harness.bot, attack.harness.database
    attack.make_friend()
    attack.as_superuser(
        f'GRANT shop_owner TO {holder} WITH ADMIN OPTION; GRANT CONNECT, CREATE ON DATABASE "{database}" TO shop_owner'
    )
    attack.as_superuser(TEAM)
    return Level(name="team", roles=("shop_owner",), set_role=set_role)


@pytest.mark.parametrize("what", TRIES)
def test_what_outlives_the_user_is_named(attack: Attack, what: str) -> None:
    attempt = TRIES[what]
    spec = attack.user(team(attack, set_role=attempt.acts))
    session = attack.session(spec)
    for statement in (*EVIL, *attempt.runs):
        run_setup(session, statement.replace("{friend}", attack.friend))
    try:
        end = attack.end(spec)
        attack.assert_ended(spec, end, session)
        removal = end.removal
        assert removal is not None
        assert attempt.named.replace("{friend}", attack.friend) in "\n".join(removal.notes), removal.notes
    finally:
        attack.as_superuser("ALTER ROLE shop_owner RESET ALL")
        if attempt.named == "later":
            attack.as_superuser("ROLLBACK PREPARED 'later'")
