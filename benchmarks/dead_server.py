"""A server that is reached, and then answers nothing more: it accepts each connection and closes it after some seconds."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tests.servers.postgresql import free_port

HANGS_SECONDS = 5.0
CHUNK = 65_536


class FailingServer:
    """A port in front of a real server. After ``fail`` it accepts connections and never answers."""

    def __init__(self, behind: int) -> None:
        self.port = free_port()
        self.first_hang_at: float | None = None
        self.hangs = 0
        self._behind = behind
        self._has_failed = False
        self._stopped = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Close the port and all connections."""
        self._stopped.set()
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*self._open, return_exceptions=True)

    def fail(self) -> None:
        self._has_failed = True

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._hang() if self._has_failed else self._forward(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _done: writer.close())

    async def _hang(self) -> None:
        self.hangs += 1
        self.first_hang_at = self.first_hang_at or time.monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), HANGS_SECONDS)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind)
            await asyncio.gather(_copy(reader, behind_writer), _copy(behind_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
