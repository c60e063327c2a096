"""A connection of the bot to one node while a verb uses it: single commands, packets of commands, and what the server reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError, ResponseError

from adapters.base import ServerDown
from adapters.redis.links import Link

if TYPE_CHECKING:
    from adapters.redis.nodes import Node

SCRIPT_PAUSE_SECONDS = 0.02


class Session:
    """An open connection of the bot to one node. ``patience`` is the time limit for one answer, in seconds."""

    def __init__(self, node: Node, link: Link, *, patience: float, to_end: bool) -> None:
        self.node = node
        self.link = link
        self.patience = patience
        self._to_end = to_end

    def call(self, *arguments: str) -> Any:
        """Send one command and return the answer. Raises ResponseError for the server's refusal."""
        (answer,) = self.packet(arguments)
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def packet(self, *commands: Sequence[str]) -> list[Any]:
        """Send commands in one packet, which the server runs at once. Returns their answers; an error is returned as ResponseError.

        A server that runs a script does nothing else meanwhile. An end kills the script and sends again what was answered with ``BUSY``.
        """
        answers, left, deadline = dict[int, Any](), list(range(len(commands))), time.monotonic() + self.patience
        while True:
            self.link.send([commands[number] for number in left])
            answers.update(zip(left, self.link.read(len(left), self.patience), strict=True))
            left = [number for number in left if is_busy(answers[number])]
            if not (left and self._to_end and time.monotonic() < deadline):
                return [answers[number] for number in range(len(commands))]
            self._kill_script()

    def _send(self, *arguments: str) -> None:
        self.link.send([arguments])
        (answer,) = self.link.read(1, self.patience)
        if isinstance(answer, ResponseError):
            raise answer

    def _kill_script(self) -> None:
        for kind in ("SCRIPT", "FUNCTION"):
            try:
                self._send(kind, "KILL")
            except NoPermissionError:
                remedy = f"ACL SETUSER {self.node.user} +script|kill +function|kill"
                raise ServerDown(f"{self.node} is busy with a script that the bot may not end; {remedy}") from None
            except ResponseError as error:
                if str(error).startswith("UNKILLABLE"):
                    what = (
                        "is busy with a script that has written; until the script is over, only SHUTDOWN NOSAVE ends it"
                    )
                    raise ServerDown(f"{self.node} {what}") from None
            else:
                return
        time.sleep(SCRIPT_PAUSE_SECONDS)

    def clients(self) -> list[dict[str, str]]:
        """The connections of this node, a row of ``CLIENT LIST`` each."""
        return to_clients(self.call("CLIENT", "LIST"))

    def info(self, section: str) -> dict[str, str]:
        """One section of ``INFO``."""
        lines = str(self.call("INFO", section)).splitlines()
        return dict(line.partition(":")[::2] for line in lines if ":" in line)

    def now(self) -> float | None:
        """The server's clock in seconds since 1970, or None where the server does not report it (Redis 6)."""
        microseconds = self.info("server").get("server_time_usec")
        return None if microseconds is None else int(microseconds) / 1e6

    def save(self, saved: Any = None) -> bool:
        """Save the users to the server's ACL file or configuration file. A user that is still in the file returns at a restart.

        ``saved`` is the answer to an ``ACL SAVE`` that was already sent. Returns False where the server has neither file. Raises ServerDown
        where the file could not be written.
        """
        answer = saved if saved is not None else self.packet(("ACL", "SAVE"))[0]
        if not isinstance(answer, ResponseError):
            return True
        if "not configured to use an ACL file" not in str(answer):
            raise self._save_error(answer)
        try:
            self.call("CONFIG", "REWRITE")
        except ResponseError as error:
            if "without a config file" not in str(error):
                raise self._save_error(error) from None
            return False
        return True

    def _save_error(self, error: ResponseError) -> Exception:
        if isinstance(error, NoPermissionError) or str(error).startswith(("BUSY", "LOADING")):
            return error
        what = f"{self.node} could not save its users, and a restart would bring back those in its file"
        return ServerDown(f"{what}: {error}", is_ambiguous=True)


def is_busy(answer: Any) -> bool:
    """Whether the server refused a command because it runs a script."""
    return isinstance(answer, ResponseError) and str(answer).startswith("BUSY ")


def to_clients(answer: Any) -> list[dict[str, str]]:
    """The rows of ``CLIENT LIST``. Only a line feed ends a row: names of clients and users may contain other separators of lines."""
    rows = (dict(part.partition("=")[::2] for part in line.split(" ")) for line in str(answer).split("\n") if line)
    return [row for row in rows if "id" in row]
