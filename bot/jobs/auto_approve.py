"""Approve a request for which the policy names no approvers."""

from __future__ import annotations

from contextlib import suppress

from bot.access.context import Context
from bot.access.decide import approve_by_policy
from bot.access.errors import AccessError
from bot.jobs.job import JobContext


async def auto_approve(context: Context, job: JobContext) -> None:
    """Job of ``auto_approve``. The use case approves such a request at once; this task does it where the process died in between."""
    with suppress(AccessError):
        await approve_by_policy(context, await job.request())
