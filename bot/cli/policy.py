"""``dbaccess policy``: the two files, without Slack and without a token."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bot.cli import common
from bot.durations import parse_duration
from bot.policy import judge
from bot.policy.load import ConfigError, load
from bot.policy.source import Problem

app = typer.Typer(no_args_is_help=True, help="The policy: check it, and ask which rule answers.")


def _folder() -> Path:
    return Path(os.environ.get("DBACCESS_CONFIG") or "./config")


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="The folder with databases.yml and policy.yml.")] = None,
    as_json: common.Json = False,
) -> None:
    """Errors and warnings, one a line; status 1 when there is an error."""
    try:
        problems: tuple[Problem, ...] = load(folder or _folder()).warnings
    except ConfigError as mistakes:
        problems = mistakes.problems
    if as_json:
        common.print_json(
            [
                {"file": p.file, "line": p.line, "severity": "error" if p.is_error else "warning", "what": p.what}
                for p in problems
            ]
        )
    else:
        for problem in problems:
            typer.echo(str(problem))
        if not problems:
            typer.echo("No errors, no warnings.")
    if any(p.is_error for p in problems):
        raise typer.Exit(1)


@app.command()
def explain(
    person: Annotated[str, typer.Argument(help="A Slack id (U…).")],
    database: str,
    level: Annotated[str | None, typer.Argument()] = None,
    duration: Annotated[str | None, typer.Argument(help="30m, 2h, 1h30m.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="As if asked then: 2026-11-23T10:00:00+01:00.")] = None,
    as_json: common.Json = False,
) -> None:
    """Which rule answers and why; status 1 when the answer is no."""
    try:
        length = parse_duration(duration) if duration else None
        when = datetime.fromisoformat(at) if at else None
    except ValueError as wrong:
        raise common.wrong_use(str(wrong)) from None
    ask = judge.Ask(person_id=person, database=database, level=level, duration=length, at=when, needs_reason=False)
    answer = judge.may_ask(load(_folder()), ask)
    lines = judge.explained(answer)
    is_yes = isinstance(answer, judge.Allowed)
    if as_json:
        rule = answer.terms.rule if isinstance(answer, judge.Allowed) else None
        common.print_json([{"allowed": is_yes, "rule": rule, "why": list(lines)}])
    else:
        typer.echo("\n".join(lines))
    if not is_yes:
        raise typer.Exit(1)
