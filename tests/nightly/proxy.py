"""A TCP proxy with faults that are switched on and off while it runs. It also shows the bytes that pass, so that a test can act between two messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

CHUNK = 65536
DRIP_SECONDS = 0.002
"""The pause after each byte of a dripping connection."""


class Toxic(StrEnum):
    """The faults of a network."""

    DELAY = "delay"
    CUT = "cut"
    DRIP = "drip"
    SILENT = "silent"
    REFUSE = "refuse"


Watch = Callable[[int, bool, bytes], bool]
"""Gets the peer's port, whether the bytes go to the server, and the bytes. False: the bytes do not pass, and the connection is closed."""


@dataclass(eq=False)
class _Pipe:
    """One connection: the client's side, the server's side, and the bytes that passed since the fault began."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    passed: int = 0

    def close(self) -> None:
        for writer in (self.client, self.server):
            if writer.transport is not None:
                writer.transport.abort()


@dataclass
class Proxy:
    """Listens on ``port`` of loopback and connects to ``to_port`` of loopback. ``amount``: seconds of DELAY, bytes before CUT."""

    to_port: int
    port: int = 0
    watch: Watch | None = None
    toxic: Toxic | None = None
    amount: float = 0.0
    accepted: int = 0
    """Connections that were made through the proxy."""
    clients: dict[int, int] = field(default_factory=dict)
    """The port of the client for each port that the server sees."""
    _pipes: set[_Pipe] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _listener: asyncio.Server | None = None

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._on_connection, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None
        self.cut()
        self._changed.set()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Break every open connection."""
        for pipe in list(self._pipes):
            pipe.close()

    async def infect(self, toxic: Toxic, amount: float = 0.0) -> None:
        """Switch on a fault for open and new connections."""
        await self.lift()
        self.toxic, self.amount = toxic, amount
        for pipe in self._pipes:
            pipe.passed = 0
        if toxic is Toxic.REFUSE:
            await self.stop()

    async def lift(self) -> None:
        """Switch off the fault. Connections that were silent go on."""
        self.toxic = None
        self._changed.set()
        self._changed = asyncio.Event()
        if self._listener is None:
            await self.start()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await self._while_silent()
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()
            return
        pipe = _Pipe(writer, server_writer)
        self._pipes.add(pipe)
        port = writer.get_extra_info("peername")[1]
        self.clients[server_writer.get_extra_info("sockname")[1]] = port
        ways = (
            asyncio.ensure_future(self._pump(pipe, port, reader, server_writer, to_server=True)),
            asyncio.ensure_future(self._pump(pipe, port, server_reader, writer, to_server=False)),
        )
        try:
            with suppress(asyncio.CancelledError):  # the whole test is being ended
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self._pipes.discard(pipe)
            pipe.close()

    async def _pump(
        self, pipe: _Pipe, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        """Pass bytes on until one side closes, or a fault breaks the connection."""
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.watch is not None and not self.watch(port, to_server, data):
                    return
                if not await self._pass_on(pipe, data, writer):
                    return
            if writer.can_write_eof():
                writer.write_eof()
                await asyncio.sleep(0.05)

    async def _pass_on(self, pipe: _Pipe, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """Pass these bytes on as the fault has it. False where the connection breaks."""
        await self._while_silent()
        if self.toxic is Toxic.DELAY:
            await asyncio.sleep(self.amount)
        if self.toxic is Toxic.CUT and pipe.passed + len(data) > self.amount:
            writer.write(data[: max(0, int(self.amount) - pipe.passed)])
            await writer.drain()
            return False
        pipe.passed += len(data)
        if self.toxic is Toxic.DRIP:
            await self._drip(data, writer)
            return True
        writer.write(data)
        await writer.drain()
        return True

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        for position in range(len(data)):
            if self.toxic is not Toxic.DRIP:
                writer.write(data[position:])
                break
            writer.write(data[position : position + 1])
            await asyncio.sleep(DRIP_SECONDS)
        await writer.drain()

    async def _while_silent(self) -> None:
        while self.toxic is Toxic.SILENT:
            await self._changed.wait()


@asynccontextmanager
async def running_proxy(to_port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(to_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
