"""``configureFailPoint``: the real server's ``failCommand``, and ``loseReply``, which only the stand-in has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command


@dataclass
class FailPoint:
    """``times`` is how often it still acts."""

    commands: tuple[str, ...]
    times: int
    error_code: int | None
    write_concern_error: dict[str, Any] | None
    closes: bool
    loses_reply: bool

    def fails(self) -> bool:
        """Whether the connection closes before the command runs. Raises the configured error."""
        if self.error_code is not None:
            raise errors.Failure(self.error_code, "Failing command via 'failCommand' failpoint")
        return self.closes


class FailPoints:
    """The fail point of one member; a new one replaces the last."""

    def __init__(self) -> None:
        self._set: FailPoint | None = None

    def set(self, fail_point: FailPoint) -> None:
        self._set = fail_point

    def take(self, name: str) -> FailPoint | None:
        """The fail point that acts on this command now; it is counted."""
        found = self._set
        if found is None or name not in found.commands or found.times == 0:
            return None
        found.times -= 1
        return found


@command("configureFailPoint", "mode!:object data!:object", is_admin_only=True)
async def configure_fail_point(call: Call) -> Reply:
    """``loseReply`` runs the command and closes the connection: the client sees a server or a network that fails at that moment."""
    if call.value not in ("failCommand", "loseReply"):
        raise errors.NOT_MODELLED.failure(what=f"the fail point {call.value}")
    data = dict(call.body["data"])
    fail_point = FailPoint(
        commands=tuple(data.pop("failCommands")),
        times=int(call.body["mode"]["times"]),
        error_code=data.pop("errorCode", None),
        write_concern_error=data.pop("writeConcernError", None),
        closes=bool(data.pop("closeConnection", False)),
        loses_reply=call.value == "loseReply",
    )
    if data:
        raise errors.NOT_MODELLED.failure(what=f"failCommand's {', '.join(data)}")
    call.member.fail_points.set(fail_point)
    return {}
