"""``dbaccess doctor``: everything that must be well, looked at one by one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from bot.cli import common
from bot.doctor import Section, examine


def doctor(
    databases: Annotated[
        list[str] | None, typer.Argument(metavar="[DATABASE]...", help="Only these databases.")
    ] = None,
    as_json: common.Json = False,
) -> None:
    """Settings, Slack, ledger, each database: what is well, what is not, and the statement that mends it. Status 1 when something is wrong."""
    sections = asyncio.run(examine(common.quiet_settings(), databases or []))
    if as_json:
        common.print_json(
            [
                {"section": s.name, "ok": f.is_ok, "fatal": f.is_fatal and not f.is_ok, "what": f.what, "mend": f.mend}
                for s in sections
                for f in s.findings
            ]
        )
    else:
        for section in sections:
            _print(section)
    if any(f.is_fatal and not f.is_ok for s in sections for f in s.findings):
        raise typer.Exit(1)


def _print(section: Section) -> None:
    typer.echo(section.name)
    for finding in section.findings:
        sign = "✓" if finding.is_ok else "✗" if finding.is_fatal else "!"
        typer.echo(f"  {sign} {finding.what}")
        if finding.mend and not finding.is_ok:
            typer.echo(f"      {finding.mend}")
