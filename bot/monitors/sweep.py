"""The sweep of the running bot: compare the servers with the ledger, end what nobody answers for, and raise alerts about the rest.

It runs at the start and every five minutes, once per ledger. No end waits for it. Each problem that lasts has one alert, which is resolved at the
first look that does not find it any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import chain

import structlog

from adapters.base import AdapterError, Removal, Target
from bot.access.alerts import draft_alert, raise_alert
from bot.access.context import Context
from bot.access.descriptions import count
from bot.access.recovery import enter_by_users
from bot.access.server_errors import describe_server_error, remedies
from bot.monitors.servers import drop_leftovers, on_server
from bot.monitors.stray_ends import end_stray, is_to_end, plan_set_back
from bot.monitors.strays import Stray, StrayKind, SweepResult, sweep_servers
from bot.trial import FIRST_NUMBER
from storage.alerts import SHOWN, Alert, AlertDraft
from storage.errors import LedgerError

SWEEP_SECONDS = 300
TURN = timedelta(seconds=SWEEP_SECONDS - 30)
"""A replica sweeps only where none has within this time."""
CAUSE = "sweep:"
"""The causes of all alerts of this module start with it."""
LINGERING_CAUSE = f"{CAUSE}{StrayKind.LINGERING}:"
OF_GRANTS = frozenset({StrayKind.MISSING.value, StrayKind.CHANGED.value, StrayKind.MOVED.value})
REPORTED = frozenset({StrayKind.FOREIGN, StrayKind.MISSING, StrayKind.CHANGED})
NAMED_AT_MOST = 20
"""Users of one server that get an alert of their own; one more alert counts the others."""
SHOWN_AT_MOST = 5
SILENT_SWEEPS = 3
"""A server that did not answer for this many sweeps raises an alert. Where an end waits for it, the probe has raised one long before."""
SKEW_MAX = timedelta(minutes=2)
"""A difference between the clocks of bot and server that is not taken for an end that somebody moved."""
SKEW_ERROR = timedelta(seconds=2)

log = structlog.get_logger(__name__)


class Sweep:
    """The sweep of one bot. It remembers what the last sweep saw, so that what passes by itself is not reported."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._silent = Counter[str]()
        self._trials = frozenset[str]()
        self._moved: Mapping[str, timedelta] = {}
        self._skew = dict[Target, timedelta]()
        self._refreshed: Mapping[str, tuple[str, ...]] = {}
        self._in_recovery = False

    async def run(self, *, is_start: bool = False) -> None:
        """Sweep once, where no replica has done it just now. ``is_start``: in any case. Raises nothing."""
        try:
            turn = timedelta(0) if is_start else TURN
            if await self._context.ledger.observations.take_turn("sweep", turn):
                await self._plan_missing_ends()
                await self._sweep()
        except LedgerError:
            log.exception("ledger_unavailable")
        except Exception:
            log.exception("sweep_failed")

    async def _plan_missing_ends(self) -> None:
        planned = await self._context.ledger.tasks.plan_missing_ends()
        if planned:
            named = ", ".join(f"#{one}" for one in planned[:SHOWN_AT_MOST])
            more = f" and {len(planned) - SHOWN_AT_MOST} more" if len(planned) > SHOWN_AT_MOST else ""
            what = f"The ledger had no task to end {named}{more}. It was planned again, due now."
            await raise_alert(self._context, None, what, cause=f"{CAUSE}ends:{planned[0]}", is_event=True)

    async def _sweep(self) -> None:
        ledger = self._context.ledger
        before = {alert.cause: alert for alert in await ledger.alerts.open(prefix=CAUSE)}
        lingering = [_number(cause) for cause in before if cause.startswith(LINGERING_CAUSE)]
        parts = list[SweepResult]()
        drafts = dict[str, AlertDraft]()
        await self._see_recovery()
        async for part in sweep_servers(self._context, refreshes=not self._in_recovery, request_ids=lingering):
            parts.append(part)
            for server, unknown in part.unexplained.items():
                await enter_by_users(self._context, server, unknown)
            await self._see_recovery()
            drafts |= await self._act(part)
            for sentence in () if self._in_recovery else await drop_leftovers(self._context, part.answered):
                log.info("leftover_dropped", what=sentence)
        drafts |= self._about_silent({name: why for part in parts for name, why in part.unanswered.items()})
        await self._alert(drafts, before)
        await self._resolve(drafts, before, parts)
        self._remember(parts)
        found = sum(len(part.strays) for part in parts)
        log.info("servers_swept", servers=sum(part.servers for part in parts), differences=found)

    async def _see_recovery(self) -> None:
        self._in_recovery = await self._context.ledger.recovery.current() is not None

    async def _act(self, part: SweepResult) -> dict[str, AlertDraft]:
        """End what is to be ended on the servers of this part, and set moved ends back. Returns the alerts about what lasts, by cause."""
        by_server = defaultdict[Target, list[Stray]](list)
        to_end = [one for one in part.strays if is_to_end(one, in_recovery=self._in_recovery)]
        for stray in [one for one in to_end if not self._may_be_trial(one)]:
            by_server[stray.target].append(stray)
        drafts = [await self._set_back(stray) for stray in part.strays if stray.kind is StrayKind.MOVED]
        failed = await asyncio.gather(*(self._end_all(server, found) for server, found in by_server.items()))
        unknown = [one for one in part.strays if one.kind is StrayKind.ORPHAN and one not in to_end]
        drafts += _drafts([*(one for one in part.strays if one.kind in REPORTED), *unknown])
        drafts += [self._about_levels(name, sentences) for name, sentences in part.refreshed.items()]
        return {one.cause: one for one in chain(drafts, *failed) if one is not None}

    # Ends.

    def _may_be_trial(self, stray: Stray) -> bool:
        """Whether ``doctor --try`` may be using this user now: it was not there at the last sweep."""
        return stray.is_trial and stray.username not in self._trials

    async def _end_all(self, server: Target, strays: Sequence[Stray]) -> list[AlertDraft]:
        """End these users of one server, one after the other. Returns the alerts about those that could not be ended."""
        ended, failed = list[tuple[Stray, Removal]](), list[tuple[Stray, str, tuple[str, ...]]]()
        for stray in strays:
            reasons = dict[str, str]()
            removal = await on_server(server, self._end(stray, failed), reasons)
            if removal is not None:
                ended.append((stray, removal))
            elif reasons:
                failed.append((stray, reasons[server.name], ()))
        if ended:
            await self._report_ended(server, ended)
        return _bounded([self._about_failed(*one) for one in failed], server, "users that could not be ended")

    async def _end(self, stray: Stray, failed: list[tuple[Stray, str, tuple[str, ...]]]) -> Removal | None:
        try:
            removal = await end_stray(self._context, stray, actor="bot")
        except AdapterError as error:
            failed.append((stray, describe_server_error(stray.target.name, error), remedies(error)))
            return None
        log.warning("stray_ended", database=stray.target.name, username=stray.username, kind=stray.kind.value)
        return removal

    async def _report_ended(self, server: Target, ended: Sequence[tuple[Stray, Removal]]) -> None:
        names = ", ".join(
            f"{stray.username} ({count(removal.sessions_ended, 'session')})" for stray, removal in ended[:SHOWN_AT_MOST]
        )
        more = f" and {len(ended) - SHOWN_AT_MOST} more" if len(ended) > SHOWN_AT_MOST else ""
        what = f"No live grant has these users on the server of {server.name}. They were ended: {names}{more}."
        await raise_alert(self._context, None, what, cause=f"{CAUSE}ended:{_key(server)}", is_event=True)

    def _about_failed(self, stray: Stray, reason: str, steps: tuple[str, ...]) -> AlertDraft:
        what = f"{stray.what}, and it could not be ended: {reason}."
        return draft_alert(what, cause=_cause(stray), steps=(*steps, *self._by_hand(stray)))

    def _by_hand(self, stray: Stray) -> tuple[str, ...]:
        try:
            return self._context.engines.open(stray.target).end_by_hand(stray.username)
        except AdapterError:
            return (f"block the login of {stray.username}, end its sessions, drop it.",)

    # Moved ends, managed roles, servers without an answer.

    async def _set_back(self, stray: Stray) -> AlertDraft | None:
        """An end that is later on the server than in the ledger is set back. One that is earlier is reported where the next sweep sees it too."""
        skew = self._skew.get(stray.target, timedelta(0))
        last = self._moved.get(stray.username)
        is_same = last is not None and abs(stray.moved_by - last) <= SKEW_ERROR
        if abs(stray.moved_by - skew) <= SKEW_ERROR * 2:
            return None
        if is_same and abs(stray.moved_by) <= SKEW_MAX:
            log.warning("clocks_differ", database=stray.target.name, seconds=stray.moved_by.total_seconds())
            self._skew[stray.target] = stray.moved_by
            return None
        if stray.moved_by < timedelta(0):
            return draft_alert(f"{stray.what}.", cause=_cause(stray)) if is_same else None
        if self._in_recovery:
            return draft_alert(f"{stray.what}.", cause=_cause(stray))
        await plan_set_back(self._context, stray)
        return draft_alert(f"{stray.what}. It is set back.", cause=_cause(stray))

    def _about_levels(self, database: str, sentences: Sequence[str]) -> AlertDraft | None:
        """What was changed is logged. A sentence that comes at two sweeps is a level that cannot be made equal, or that somebody keeps changing."""
        for sentence in sentences:
            log.info("level_refreshed", database=database, what=sentence)
        again = [one for one in sentences if one in self._refreshed.get(database, ())]
        if not again:
            return None
        what = f"Access levels of {database} are not as their live grants have them."
        return draft_alert(what, cause=f"{CAUSE}levels:{database}", steps=tuple(again[:SHOWN_AT_MOST]))

    def _about_silent(self, unanswered: Mapping[str, str]) -> dict[str, AlertDraft]:
        for name, why in unanswered.items():
            log.warning("server_not_swept", database=name, error=why)
        self._silent = Counter({name: self._silent[name] + 1 for name in unanswered})
        return {
            f"{CAUSE}silent:{name}": draft_alert(
                f"{why}: its users were not compared with the ledger.", cause=f"{CAUSE}silent:{name}"
            )
            for name, why in unanswered.items()
            if self._silent[name] >= SILENT_SWEEPS
        }

    def _remember(self, parts: Sequence[SweepResult]) -> None:
        strays = [stray for part in parts for stray in part.strays]
        self._trials = frozenset(one.username for one in strays if (one.request_id or 0) >= FIRST_NUMBER)
        self._moved = {one.username: one.moved_by for one in strays if one.kind is StrayKind.MOVED}
        self._refreshed = {name: found for part in parts for name, found in part.refreshed.items()}

    # Alerts.

    async def _alert(self, drafts: Mapping[str, AlertDraft], before: Mapping[str, Alert]) -> None:
        for cause, draft in drafts.items():
            shown = before.get(cause)
            if shown is None or any(getattr(shown, name) != getattr(draft, name) for name in SHOWN):
                await self._context.ledger.alerts.raise_alert(draft)

    async def _resolve(
        self, drafts: Mapping[str, AlertDraft], before: Mapping[str, Alert], parts: Sequence[SweepResult]
    ) -> None:
        """Resolve the alerts about what was not seen any more. Those about a server or a grant that could not be looked at stay open."""
        if not (gone := before.keys() - drafts.keys()):
            return
        checked = frozenset[int]().union(*(part.checked for part in parts))
        unseen = [_key(server) for part in parts for server in part.unseen]
        live = {one.id for one in (await self._context.ledger.figures.grants(ended_within=timedelta(0))).live}
        for cause in gone:
            kind, _, about = cause.removeprefix(CAUSE).partition(":")
            if kind == StrayKind.LINGERING:
                was_checked = _number(cause) in checked
            elif kind in OF_GRANTS:
                was_checked = _number(cause) in checked or _number(cause) not in live
            else:
                was_checked = not any(about.startswith(key) for key in unseen)
            if was_checked:
                await self._context.ledger.alerts.resolve(cause, "The sweep does not find it any more.")


def _key(server: Target) -> str:
    """The server in causes. ``admin_url`` is a reference and no secret."""
    return f"{server.engine} {server.admin_url}:"


def _cause(stray: Stray) -> str:
    if stray.kind in (StrayKind.ORPHAN, StrayKind.FOREIGN):
        return f"{CAUSE}{stray.kind}:{_key(stray.target)}{stray.username}"
    return f"{CAUSE}{stray.kind}:{stray.request_id}"


def _number(cause: str) -> int:
    number = cause.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def _drafts(strays: Sequence[Stray]) -> list[AlertDraft | None]:
    """One alert for each difference; of one kind and server at most ``NAMED_AT_MOST``, and one that counts the others."""
    groups = defaultdict[tuple[Target, StrayKind], list[AlertDraft]](list)
    for stray in strays:
        groups[stray.target, stray.kind].append(draft_alert(f"{stray.what}.", cause=_cause(stray), steps=_steps(stray)))
    return [one for (server, kind), found in groups.items() for one in _bounded(found, server, f"{kind} users")]


def _bounded(drafts: list[AlertDraft], server: Target, what: str) -> list[AlertDraft]:
    further = len(drafts) - NAMED_AT_MOST
    if further <= 0:
        return drafts
    rest = f"{further} more {what} on the server of {server.name}: dbaccess sweep lists them."
    return [*drafts[:NAMED_AT_MOST], draft_alert(rest, cause=f"{CAUSE}more:{_key(server)}{what}")]


def _steps(stray: Stray) -> tuple[str, ...]:
    match stray.kind:
        case StrayKind.CHANGED | StrayKind.MISSING:
            return (f"End it if nobody knows why: dbaccess revoke {stray.request_id}",)
        case StrayKind.ORPHAN:
            return ("In recovery mode it is not ended. If it is not wanted: dbaccess sweep --adopt",)
        case StrayKind.FOREIGN:
            lost = f"If that ledger is lost: dbaccess sweep --adopt --ledger {stray.ledger}" if stray.ledger else ""
            return (
                "If another dbaccess uses this server, give each its own DBACCESS_USER_PREFIX. If nobody needs the user, drop it.",
                *([lost] if lost else []),
            )
        case _:
            return ()
