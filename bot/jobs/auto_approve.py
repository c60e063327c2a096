"""Approve a request for which the policy names no approvers."""

from __future__ import annotations

from bot.access.context import Context
from bot.access.decide import approve_by_policy
from bot.access.errors import AccessError, Refused
from bot.jobs.job import JobContext, Retry


async def auto_approve(context: Context, job: JobContext) -> None:
    """Job of ``auto_approve``. The use case approves such a request at once; this task does it where that was not possible yet.

    A refusal is temporary: a lockdown, or a failed lookup. It is tried again until the request lapses.
    """
    try:
        await approve_by_policy(context, await job.request())
    except Refused as error:
        raise Retry(str(error)) from None
    except AccessError:
        return  # the request was closed meanwhile, and its requester is notified
