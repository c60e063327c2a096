"""The real server's own switch for tests, ``configureFailPoint`` with ``failCommand``; and one that it has not, ``loseReply``."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command


@dataclass
class Fault:
    """``times`` is how often it still acts; None without end."""

    commands: tuple[str, ...]
    times: int | None
    error_code: int | None
    write_concern_error: dict[str, Any] | None
    closes: bool
    block_seconds: float
    loses_reply: bool

    async def hangs_up(self) -> bool:
        """Wait where it blocks, fail where it fails."""
        if self.block_seconds:
            await asyncio.sleep(self.block_seconds)
        if self.error_code is not None:
            raise errors.Failure(self.error_code, "Failing command via 'failCommand' failpoint")
        return self.closes


class Faults:
    """Those of one member."""

    def __init__(self) -> None:
        self._fault: Fault | None = None

    def set(self, fault: Fault | None) -> None:
        self._fault = fault

    def of(self, name: str) -> Fault | None:
        """What is to happen to this command now; counts it."""
        fault = self._fault
        if fault is None or name not in fault.commands or fault.times == 0:
            return None
        if fault.times is not None:
            fault.times -= 1
        return fault


@command("configureFailPoint", "mode! data:object", is_admin_only=True)
async def configure_fail_point(call: Call) -> Reply:
    """``loseReply`` runs the command and hangs up: what a client sees when the server or the network dies just then."""
    if call.value not in ("failCommand", "loseReply"):
        raise errors.NOT_KNOWN_HERE.failure(what=f"the fail point {call.value}")
    mode, data = call.body["mode"], dict(call.get("data", {}))
    if mode == "off":
        call.member.faults.set(None)
        return {}
    fault = Fault(
        commands=tuple(data.pop("failCommands")),
        times=None if mode == "alwaysOn" else int(mode["times"]),
        error_code=data.pop("errorCode", None),
        write_concern_error=data.pop("writeConcernError", None),
        closes=bool(data.pop("closeConnection", False)),
        block_seconds=data.pop("blockTimeMS", 0) / 1000 if data.pop("blockConnection", False) else 0,
        loses_reply=call.value == "loseReply",
    )
    if data:
        raise errors.NOT_KNOWN_HERE.failure(what=f"failCommand's {', '.join(data)}")
    call.member.faults.set(fault)
    return {}
