"""``dbaccess policy``: check, explain and test the two files, without Slack and token. ``replay`` also reads the ledger."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bot.access.membership import remembered_groups
from bot.app import command_line_context
from bot.cli import common
from bot.cli.listing import PIPED_WIDTH
from bot.durations import parse_duration, parse_moment
from bot.policy import evaluation
from bot.policy.config import Config
from bot.policy.explain import explain_evaluation
from bot.policy.facts import Facts
from bot.policy.loader import ConfigError, load
from bot.policy.questions import Allowed, PolicyQuestion
from bot.policy.replay import PastRequest, ReplayOutcome, ReplayResult
from bot.policy.replay import replay as replay_requests
from bot.policy.schema import schema as schema_of
from bot.policy.source import Problem
from bot.policy.testing import PolicyTestResult, junit_xml, offline_facts, run_tests
from storage.records import RequestKind

MAX_DAYS = 36_500
"""A hundred years, in days."""

app = typer.Typer(no_args_is_help=True, help="The policy: check it, test it, replay it, explain which rule answers.")


def _folder() -> Path:
    return Path(os.environ.get("DBACCESS_CONFIG") or "./config")


@app.command()
def check(
    folder: Annotated[Path | None, typer.Argument(help="The folder with databases.yml and policy.yml.")] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Print errors and warnings, one per line. Status 1 when there is an error."""
    try:
        problems: tuple[Problem, ...] = load(folder or _folder()).warnings
    except ConfigError as error:
        problems = error.problems
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
    person: Annotated[str, typer.Argument(help="A Slack id (U…) or an e-mail address.")],
    database: str,
    level: Annotated[str | None, typer.Argument()] = None,
    duration: Annotated[str | None, typer.Argument(help="30m, 2h, 1h30m.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As if requested at that time: 2026-11-23T10:00:00+01:00.")
    ] = None,
    break_glass: Annotated[bool, typer.Option("--break-glass", help="As a break-glass request.")] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Explain which rule answers, and why. Status 1 when the answer is no. Groups are those of groups_in_tests, not of Slack."""
    config, kind = load(_folder()), RequestKind.BREAK_GLASS if break_glass else RequestKind.ACCESS
    length, when = _parse_duration_option(duration), _parse_time_option(at)
    question = PolicyQuestion(
        person_id=person, database=database, level=level, duration=length, at=when, needs_reason=False, kind=kind
    )
    facts = offline_facts(config.policy, config.directory_names)
    answer = evaluation.evaluate(config, question, facts)
    lines = (*explain_evaluation(answer), *_unknown_group_lines(config, facts))
    is_yes = isinstance(answer, Allowed)
    if as_json:
        rule = answer.terms.rule if isinstance(answer, Allowed) else None
        common.print_json([{"allowed": is_yes, "rule": rule, "why": list(lines)}])
    else:
        typer.echo("\n".join(lines))
    if not is_yes:
        raise typer.Exit(1)


def _parse_duration_option(duration: str | None) -> timedelta | None:
    try:
        return parse_duration(duration) if duration else None
    except ValueError as wrong:
        raise common.usage_error(str(wrong)) from None


def _parse_time_option(at: str | None) -> datetime | None:
    """Parse ``--at``. Without a zone it is this machine's zone."""
    try:
        return parse_moment(at, needs_zone=False) if at is not None else None
    except ValueError as wrong:
        raise common.usage_error(f"--at: {wrong}") from None


def _unknown_group_lines(config: Config, facts: Facts) -> tuple[str, ...]:
    unknown = sorted(facts.unknown(config.group_names))
    return (
        (f"Not known without Slack: who is in {', '.join(unknown)}; list them under groups_in_tests.",)
        if unknown
        else ()
    )


@app.command("test")
def run_tests_command(
    file: Annotated[Path | None, typer.Argument(help="Another policy.yml, tested with the same databases.yml.")] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write the results there as JUnit XML, for a build server.")
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Run the file's own tests. Status 1 when one fails."""
    config = load(_folder(), policy_path=file)
    tested = run_tests(config)
    if junit is not None:
        _write(junit, junit_xml(tested, name=str(file or _folder() / "policy.yml")))
    if as_json:
        common.print_json([_tested_json(one) for one in tested])
    else:
        _print_tested(tested)
        for line in _unknown_group_lines(config, offline_facts(config.policy, config.directory_names)):
            typer.echo(line)
    if not all(one.passed for one in tested):
        raise typer.Exit(1)


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        typer.echo(f"{out}: cannot be written ({error.strerror}); --junit needs a file in an existing folder", err=True)
        raise typer.Exit(1) from None


def _tested_json(one: PolicyTestResult) -> dict[str, object]:
    return {
        "ask": one.entry.ask,
        "expected": one.entry.expect,
        "outcome": one.outcome,
        "rule": one.rule,
        "passed": one.passed,
        "why": list(one.why),
    }


def _print_tested(tested: tuple[PolicyTestResult, ...]) -> None:
    for one in tested:
        typer.echo(f"{'ok  ' if one.passed else 'FAIL'}  {one.entry.ask} → {one.entry.expect}")
        if not one.passed:
            typer.echo(f"      {one.difference}")
            for line in one.why:
                typer.echo(f"      {line}")
    failed = sum(not one.passed for one in tested)
    typer.echo(f"{len(tested)} tests, {failed} failed." if tested else "The file has no tests.")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="The policy.yml to try, with the configured databases.yml.")],
    since: Annotated[int, typer.Option(metavar="DAYS", min=1, max=MAX_DAYS, help="Requests of this many days.")] = 90,
    as_json: common.JsonOption = False,
) -> None:
    """Show what another policy would have answered to past requests, and which live grants it would not give."""
    replayed = asyncio.run(_replayed(load(_folder(), policy_path=file), timedelta(days=since)))
    if as_json:
        common.print_json([_replayed_json(one) for one in replayed])
        return
    changed = [one for one in replayed if one.outcome is not ReplayOutcome.SAME]
    if changed:
        console = Console()
        Console(width=None if console.is_terminal else PIPED_WIDTH, markup=False, emoji=False).print(
            _replay_table(changed)
        )
    ids = " ".join(str(one.past.request.id) for one in replayed if one.would_end)
    typer.echo(f"{len(replayed)} requests of {since} days, {len(changed)} answered otherwise.")
    if ids:
        typer.echo(f"Live grants it would not give; to end them: dbaccess revoke {ids}")


async def _replayed(config: Config, since: timedelta) -> tuple[ReplayResult, ...]:
    async with command_line_context(common.quiet_settings()) as context:
        begin = await context.ledger.now() - since
        found = [r for r in await context.ledger.requests.find() if r.requested_at >= begin or r.is_live]
        past = [
            PastRequest(request=r, decisions=await context.ledger.requests.decisions(r.id))
            for r in sorted(found, key=lambda r: r.id)
        ]
        seen = await remembered_groups(context)
    written = offline_facts(config.policy, config.directory_names)
    return replay_requests(config, past, Facts(members={**written.members, **seen}, is_offline=True))


def _replayed_json(one: ReplayResult) -> dict[str, object]:
    request = common.request_json(one.past.request)
    return {**request, "now": one.outcome.value, "why": one.why, "would_end": one.would_end}


def _replay_table(changed: list[ReplayResult]) -> Table:
    table = Table("id", "was", "requester", "database", "level", "now", "why", box=None)
    for one in changed:
        r = one.past.request
        table.add_row(f"#{r.id}", r.state, r.requester_id, r.database, r.level, one.outcome.value, one.why)
    return table


class SchemaOf(StrEnum):
    """The configuration files."""

    DATABASES = "databases"
    POLICY = "policy"


@app.command()
def schema(
    of: Annotated[SchemaOf, typer.Argument(help="Of which file.")] = SchemaOf.POLICY,
) -> None:
    """Print the JSON Schema of a file, for editors."""
    typer.echo(json.dumps(schema_of(of.value), indent=2))
