"""``dbaccess doctor``: print the result of every check; with ``--try`` also run trials on the databases."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from bot.access.descriptions import shorten
from bot.cli import common
from bot.doctor import Section, examine, run_trials
from bot.settings import Settings
from bot.trial import Step

STEP_MAX = 2000
"""Characters of one step of a trial."""


def doctor(
    databases: Annotated[
        list[str] | None, typer.Argument(metavar="[DATABASE]...", help="Only these databases.")
    ] = None,
    try_it: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Create a user on each level, log in, end it with the session open, verify the end. Leaves nothing behind.",
        ),
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Check settings, Slack, ledger and each database, and print what fixes each problem. Status 1 when something is wrong."""
    settings = common.quiet_settings()
    sections = asyncio.run(examine(settings, databases or []))
    report = [_finding_json(s, number) for s in sections for number in range(len(s.findings))]
    if not as_json:
        for section in sections:
            _print_section(section)
    is_healthy = not any(f.is_fatal and not f.is_ok for s in sections for f in s.findings)
    if try_it:
        is_healthy = _run_trials(settings, databases or [], report, as_json=as_json) and is_healthy
    if as_json:
        common.print_json(report)
    if not is_healthy:
        raise typer.Exit(1)


def _run_trials(settings: Settings, databases: list[str], report: list[dict[str, Any]], *, as_json: bool) -> bool:
    """Run the trials; print each step as it ends."""
    printed: set[str] = set()

    def on_step(database: str, step: Step) -> None:
        where = f"Trial {database}, level {step.level}"
        report.append(
            {"section": where, "ok": step.ok, "fatal": not step.ok, "what": _step_text(step), "mend": None,
             "database": database, "level": step.level, "step": step.name, "ms": step.ms}
        )  # fmt: skip
        if not as_json:
            if where not in printed:
                printed.add(where)
                typer.echo(where)
            typer.echo(f"  {'✓' if step.ok else '✗'} {step.ms:8.1f} ms  {_step_text(step)}")

    return asyncio.run(run_trials(settings, databases, on_step))


def _step_text(step: Step) -> str:
    return shorten(f"{step.name}: {step.what}" if step.what else step.name, STEP_MAX)


def _finding_json(section: Section, number: int) -> dict[str, Any]:
    found = section.findings[number]
    fatal = found.is_fatal and not found.is_ok
    return {"section": section.name, "ok": found.is_ok, "fatal": fatal, "what": found.what, "mend": found.remedy}


def _print_section(section: Section) -> None:
    typer.echo(section.name)
    for finding in section.findings:
        sign = "✓" if finding.is_ok else "✗" if finding.is_fatal else "!"
        typer.echo(f"  {sign} {finding.what}")
        if finding.remedy and not finding.is_ok:
            for line in finding.remedy.splitlines():
                typer.echo(f"      {line}")
