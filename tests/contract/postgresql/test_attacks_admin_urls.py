"""Admin URLs with an encoded password of special characters work. No output shows a part of a password."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest
from psycopg import sql

from adapters.base import AdapterError, Secrets
from adapters.contract import everything_on
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.harness import EngineHarness, readonly
from tests.open_faults import open_fault

FANCY = "Sup3r@Secr3t/W0rd#42?x%zz:&+ é"
SHOWN = open_fault(
    "U4", "the URL of a standby is not checked: the part of the password after an @ is taken for the host and shown"
)


@pytest.fixture
def fancy(own_harness: EngineHarness) -> EngineHarness:
    """The same bot with another login, whose password has special characters."""
    name = f"fancy_{own_harness.bot}"
    with own_harness.superuser() as c:
        c.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        c.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(FANCY)))
        c.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(str(own_harness.owner)), sql.Identifier(name)))
    return replace(own_harness, bot=name)


def test_an_admin_url_with_an_encoded_password_works(fancy: EngineHarness) -> None:
    url = fancy.server.url(fancy.bot, quote(FANCY, safe=""), fancy.database)
    adapter, spec = PostgreSQL(fancy.target(), Secrets(admin_url=url)), fancy.spec(readonly())
    assert adapter.check([readonly()]).problems == ()
    adapter.create_user(spec)
    assert FANCY not in repr(adapter.endpoint(spec.level))
    assert not adapter.drop_user(spec.username, spec.level).was_absent


@pytest.mark.parametrize(
    "password", [pytest.param("Sup3r@Secr3tW0rd", marks=SHOWN), "31337/Secr3tW0rd", "Sup3r/Secr3tW0rd"]
)
def test_no_part_of_a_standbys_password_is_shown(
    own_harness: EngineHarness, looked_up_hosts: list[str], password: str
) -> None:
    """The findings of ``check`` and the error of ``drop_user`` show no part of the password of an unreachable standby."""
    url = f"postgresql://{own_harness.bot}:{password}@127.0.0.1:1/{own_harness.database}"
    secrets = Secrets(admin_url=own_harness.secrets().admin_url, replicas=(url,))
    adapter, spec = PostgreSQL(own_harness.target(replicas=("env:STANDBY",)), secrets), own_harness.spec(readonly())
    own_harness.adapter().create_user(spec)
    said = [repr(adapter.check([readonly()]))]
    try:
        said.append(repr(adapter.drop_user(spec.username, spec.level)))
    except AdapterError as error:
        said.append(everything_on(error))
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert not [part for part in ("Sup3r", "31337", "Secr3t") if part in " ".join([*said, *looked_up_hosts])]
