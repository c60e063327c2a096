"""``dbaccess doctor``: everything that must be well, looked at one by one, and proven with ``--try``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from bot.cli import common
from bot.doctor import Section, examine, try_out
from bot.settings import Settings
from bot.trial import Step


def doctor(
    databases: Annotated[
        list[str] | None, typer.Argument(metavar="[DATABASE]...", help="Only these databases.")
    ] = None,
    try_it: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Prove it: make a user on each level, log in, end it with a session open, read back; leaves nothing.",
        ),
    ] = False,
    as_json: common.Json = False,
) -> None:
    """Settings, Slack, ledger, each database: what is well, what is not, and the statement that mends it. Status 1 when something is wrong."""
    settings = common.quiet_settings()
    sections = asyncio.run(examine(settings, databases or []))
    report = [_finding_json(s, number) for s in sections for number in range(len(s.findings))]
    if not as_json:
        for section in sections:
            _print(section)
    is_well = not any(f.is_fatal and not f.is_ok for s in sections for f in s.findings)
    if try_it:
        is_well = _try(settings, databases or [], report, as_json=as_json) and is_well
    if as_json:
        common.print_json(report)
    if not is_well:
        raise typer.Exit(1)


def _try(settings: Settings, databases: list[str], report: list[dict[str, Any]], *, as_json: bool) -> bool:
    """Each step is printed as it ends."""
    named: set[str] = set()

    def tell(database: str, step: Step) -> None:
        where = f"Trial {database}, level {step.level}"
        report.append(
            {"section": where, "ok": step.ok, "fatal": not step.ok, "what": _words(step), "mend": None,
             "database": database, "level": step.level, "step": step.name, "ms": step.ms}
        )  # fmt: skip
        if not as_json:
            if where not in named:
                named.add(where)
                typer.echo(where)
            typer.echo(f"  {'✓' if step.ok else '✗'} {step.ms:8.1f} ms  {_words(step)}")

    return asyncio.run(try_out(settings, databases, tell))


def _words(step: Step) -> str:
    return f"{step.name}: {step.what}" if step.what else step.name


def _finding_json(section: Section, number: int) -> dict[str, Any]:
    found = section.findings[number]
    fatal = found.is_fatal and not found.is_ok
    return {"section": section.name, "ok": found.is_ok, "fatal": fatal, "what": found.what, "mend": found.remedy}


def _print(section: Section) -> None:
    typer.echo(section.name)
    for finding in section.findings:
        sign = "✓" if finding.is_ok else "✗" if finding.is_fatal else "!"
        typer.echo(f"  {sign} {finding.what}")
        if finding.remedy and not finding.is_ok:
            for line in finding.remedy.splitlines():
                typer.echo(f"      {line}")
