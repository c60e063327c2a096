"""Private MongoDB servers in processes of their own: the stand-in, or a real mongod (see ``mongod``), with one interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.parse import quote_plus

import pymongo
from pymongo.errors import PyMongoError

from tests.servers.mongodb.member import READY
from tests.servers.postgresql import NoServer, free_port, unprivileged

ROOT, PASSWORD = "tester", "SuperSecret0Admin"
HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[3]
START_SECONDS = 180
STOP_SECONDS = 60
PORTS_TRIED = 5
SLOW = "sleep(200) || true"
"""A ``$where`` that waits 0.2 s at each document, where it can be killed; the real server and the stand-in both know it."""


@dataclass
class MongoServer:
    """A running server. The first of ``members`` (ports) is the primary. Written data survives ``stop`` and ``kill``."""

    folder: Path
    members: list[int]
    is_auth_on: bool = True
    mutant: str | None = None
    variant: str | None = None
    routers: bool = False
    certificate: Path | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    host: str = HOST
    root: tuple[str, str] = (ROOT, PASSWORD)

    kind = "stand-in"

    @property
    def port(self) -> int:
        return self.members[0]

    @property
    def is_set(self) -> bool:
        return len(self.members) > 1 and not self.routers

    def url(self, user: str, password: str, database: str = "admin", *, port: int | None = None) -> str:
        """``database`` is where the user lives (authSource)."""
        return f"mongodb://{quote_plus(user)}:{quote_plus(password)}@{self.host}:{port or self.port}/?authSource={database}"

    def root_url(self) -> str:
        return self.url(*self.root)

    def client(
        self, user: str, password: str, database: str = "admin", *, port: int | None = None, **options: Any
    ) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of one member. It sends nothing before its first use."""
        return self.open(self.url(user, password, database, port=port), **options)

    def stranger(self, *, port: int | None = None, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        """A client that does not log in."""
        return self.open(f"mongodb://{self.host}:{port or self.port}/", **options)

    def admin(self, *, port: int | None = None, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of the server's own administrator."""
        if not self.is_auth_on:
            return self.stranger(port=port, **options)
        return self.client(*self.root, port=port, **options)

    def open(self, url: str, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        tls = {} if self.certificate is None else {"tls": True, "tlsCAFile": str(self.certificate)}
        defaults = {
            "directConnection": True,
            "serverSelectionTimeoutMS": 10_000,
            "connectTimeoutMS": 10_000,
            "uuidRepresentation": "standard",
            "tz_aware": True,
        }
        return pymongo.MongoClient(url, **{**defaults, **tls, **options})

    def commands(self) -> list[list[str]]:
        """One process for each command; the stand-in runs all members in one process."""
        ports = [part for port in self.members for part in ("--port", str(port))]
        command = [sys.executable, "-m", "tests.servers.mongodb", "--folder", str(self.folder), *ports]
        command += [] if self.is_auth_on else ["--noauth"]
        command += ["--routers"] if self.routers else []
        for option, value in (("mutant", self.mutant), ("variant", self.variant), ("certificate", self.certificate)):
            command += [] if value is None else [f"--{option}", str(value)]
        return [command]

    def account(self) -> dict[str, Any]:
        """The stand-in drops root by itself after it has loaded its files, which the other account may not read."""
        return {}

    def log_text(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log*")))

    def output(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("out*")))

    def start(self) -> None:
        """On the ports it had before. That a port answers is not enough: another process may have taken it meanwhile."""
        before = self._times_ready()
        self.processes = [self._spawn(index, command) for index, command in enumerate(self.commands())]
        deadline = time.monotonic() + START_SECONDS
        while self._times_ready() < before + len(self.processes) or not all(map(self._is_listening, self.members)):
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > deadline:
                self.kill()
                raise NoServer(
                    f"the {self.kind} of MongoDB does not start: {(self.output() + self.log_text())[-2000:]}"
                )
            time.sleep(0.02)

    def _times_ready(self) -> int:
        """How often processes of this server have said that they listen."""
        return self.output().count(READY)

    def _spawn(self, index: int, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TZ": "America/New_York"}
        with (self.folder / f"out{index}").open("ab") as out:
            return subprocess.Popen(
                command, stdin=PIPE, stdout=out, stderr=out, cwd=REPOSITORY, env=environment, **self.account()
            )

    def _is_listening(self, port: int) -> bool:
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex((self.host, port)) == 0

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Like the loss of the process: clients get no message."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        for process in self.processes:
            process.send_signal(how)
        for process in self.processes:
            ended(process)
        self.processes.clear()

    def close_member(self, port: int) -> None:
        """Takes one member down; the others continue."""
        self._control("close", port)
        self._await(lambda: not self._is_listening(port))

    def open_member(self, port: int) -> None:
        """Starts the member again, without operations."""
        self._control("open", port)
        self._await(lambda: self._is_listening(port))

    def _control(self, order: str, port: int) -> None:
        pipe = self.processes[0].stdin
        assert pipe is not None
        pipe.write(f"{order} {port}\n".encode())
        pipe.flush()

    def _await(self, question: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not question():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def set_up(self) -> None:
        """Creates the administrator, under the localhost exception."""
        if not self.is_auth_on:
            return
        name, password = self.root
        with self.stranger() as client:
            client.admin.command("createUser", name, pwd=password, roles=["root"])


def start(
    *,
    auth: bool = True,
    members: int = 1,
    routers: bool = False,
    certificate: Path | None = None,
    variant: str | None = None,
    mutant: str | None = None,
) -> MongoServer:
    """The stand-in: standalone, or a replica set; with ``routers`` a cluster with as many mongos.

    ``certificate`` is a PEM file with certificate and key: the server then accepts TLS only. ``variant`` names another server
    (see ``variants``), ``mutant`` a deviation (see ``mutants``).
    """
    server = MongoServer(
        folder=new_folder("mongo"),
        members=[],
        is_auth_on=auth,
        routers=routers,
        certificate=certificate,
        variant=variant,
        mutant=mutant,
    )
    return started(server, members)


def ended(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that was told to end."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def new_folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"dbaccess-{name}-"))
    folder.chmod(0o755)
    account = unprivileged()
    if account:
        os.chown(folder, int(str(account["user"])), int(str(account["group"])))
    return folder


def started(server: MongoServer, members: int) -> MongoServer:
    """Starts it and creates the administrator. Another process may take a port after it was found free: then other ports are tried."""
    try:
        for attempt in range(PORTS_TRIED):
            server.members = [free_port() for _ in range(members)]
            try:
                server.start()
            except NoServer:
                if "in use" not in server.output() + server.log_text() or attempt == PORTS_TRIED - 1:
                    raise
            else:
                break
        server.set_up()
    except PyMongoError as error:
        said = (server.output() + server.log_text())[-2000:]
        server.remove()
        raise NoServer(f"the {server.kind} of MongoDB cannot be set up: {error}; {said}") from None
    except BaseException:
        server.remove()
        raise
    return server
