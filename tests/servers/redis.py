"""Private Redis and Valkey servers, unpacked from Debian packages.

Each server has a temporary folder of its own, listens on loopback only, never runs as root, and is stopped by its process id.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import redis

from tests.servers import debian
from tests.servers.postgresql import NoServer, free_port, unprivileged

TESTER, PASSWORD = "tester", "SuperSecret0Admin"
START_SECONDS = 180
STOP_SECONDS = 60
PORTS_TRIED = 5
ACCOUNTS = ("user default off resetpass -@all", f"user {TESTER} on >{PASSWORD} ~* &* +@all")
CONFIG = """
bind 127.0.0.1
daemonize no
save ""
slowlog-log-slower-than 0
slowlog-max-len 20000
maxclients 500
busy-reply-threshold 300
repl-diskless-sync-delay 0
"""
"""Every command goes to the slow log, which is the only record of commands that Redis has."""


@dataclass(frozen=True)
class Flavour:
    """A product and version, and the Debian suite and packages that contain it.

    ``program`` is packaged as the tool that checks data files. Under the name ``runs_as`` the same program is the server.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    program: str
    client: str

    @property
    def runs_as(self) -> str:
        return f"{self.name.split('-')[0]}-server"


REDIS = Flavour("redis-7.0", "bookworm", ("redis-server", "redis-tools"), "redis-check-rdb", "redis-cli")
REDIS8 = Flavour("redis-8.0", "trixie", ("redis-server", "redis-tools"), "redis-check-rdb", "redis-cli")
VALKEY = Flavour("valkey-8.1", "trixie", ("valkey-server", "valkey-tools"), "valkey-check-rdb", "valkey-cli")


@cache
def programs(flavour: Flavour) -> Path:
    """A folder with the programs, their libraries and their loader, which the unprivileged account can read. Raises NoServer."""
    try:
        root = debian.unpacked(flavour.name, *flavour.packages, suite=flavour.suite)
        own = debian.loader(root)
    except debian.PackagesUnavailable as missing:
        raise NoServer(f"{flavour.name} cannot be unpacked: {missing}") from None
    folder = Path(tempfile.mkdtemp(prefix=f"dbaccess-{flavour.name}-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    shutil.copy(own[0], folder / "loader")
    for name in (flavour.program, flavour.client):
        program = root / "usr/bin" / name
        shutil.copy(program, folder / (flavour.runs_as if name == flavour.program else name))
        listed = subprocess.run([*own, "--list", program], capture_output=True, text=True, check=True).stdout
        for path in (line.split()[2] for line in listed.splitlines() if "=> /" in line):
            shutil.copy(path, folder / Path(path).name)
    return folder


def command(flavour: Flavour, name: str) -> list[str]:
    """The command line that runs one of the programs, without its arguments."""
    folder = programs(flavour)
    program = folder / (flavour.runs_as if name == flavour.program else name)
    return [str(folder / "loader"), "--library-path", str(folder), str(program)]


@dataclass
class RedisServer:
    """A running server. ``saves_in`` is where it saves its users: ``aclfile``, ``config`` (its configuration file) or ``nothing``."""

    flavour: Flavour
    folder: Path
    port: int
    saves_in: str
    extra: str = ""
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"

    def url(self, user: str, password: str) -> str:
        return f"redis://{user}:{password}@{self.host}:{self.port}"

    def connect(self, user: str = TESTER, password: str = PASSWORD, **options: Any) -> redis.Redis:
        """A client that never connects again: its session ends with it."""
        known = {"decode_responses": True, "protocol": 2, "driver_info": None, "socket_timeout": 30, "retry": None}
        return redis.Redis(host=self.host, port=self.port, username=user, password=password, **{**known, **options})

    def run(self, *arguments: str | int) -> Any:
        """Run one command as the administrator."""
        with self.connect() as client:
            return client.execute_command(*arguments)

    def run_unparsed(self, *arguments: str) -> list[str]:
        """Run one command as the administrator and return the answer as the server sent it, unparsed by the driver."""
        with self.connect() as client:
            connection = client.connection_pool.get_connection()
            connection.send_command(*arguments)
            found: list[str] = connection.read_response()
            client.connection_pool.release(connection)
        return found

    def log_text(self) -> str:
        """The server's log file, and every command as the slow log shows it."""
        slow = self.run("SLOWLOG", "GET", "-1")
        return (self.folder / "log").read_text(errors="replace") + "\n".join(" ".join(entry[3]) for entry in slow)

    def _arguments(self) -> list[str]:
        folder = self.folder
        given = ["--port", str(self.port), "--dir", str(folder), "--logfile", str(folder / "log"), *self.arguments]
        if self.saves_in != "nothing":
            return [str(folder / "conf"), *given]
        lines = [line.split(" ", 1) for line in (CONFIG + self.extra).strip().splitlines()]
        return [*given, *(word for key, value in lines for word in (f"--{key}", value.strip('"')))]

    def start(self) -> None:
        arguments = [*command(self.flavour, self.flavour.program), *self._arguments()]
        environment = {**os.environ, "TZ": "America/New_York"}
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                arguments, stdout=out, stderr=out, cwd=self.folder, env=environment, **unprivileged()
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise NoServer(f"{self.flavour.name} does not start: {self._last_words()}")
            time.sleep(0.01)

    def _last_words(self) -> str:
        files = (self.folder / "log", self.folder / "out")
        return "".join(path.read_text(errors="replace") for path in files if path.exists())[-2000:]

    def _answers(self) -> bool:
        """Whether the server answers. A server that saves nothing also gets its accounts here, as its administrator would create them at each start."""
        first = {"user": "default", "password": ""} if self.saves_in == "nothing" else {}
        try:
            with self.connect(**first) as client:
                client.ping()
                if self.saves_in == "nothing":
                    for line in reversed(ACCOUNTS):
                        client.execute_command("ACL", "SETUSER", *line.split()[1:])
        except (redis.RedisError, OSError):
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def start(
    flavour: Flavour = REDIS, *, saves_in: str = "aclfile", extra: str = "", arguments: tuple[str, ...] = ()
) -> RedisServer:
    """Write the server's files and start it. Raises NoServer where it cannot be unpacked or started."""
    programs(flavour)
    folder = Path(tempfile.mkdtemp(prefix=f"dbaccess-{flavour.name}-"))
    server = RedisServer(
        flavour=flavour, folder=folder, port=free_port(), saves_in=saves_in, extra=extra, arguments=arguments
    )
    try:
        _write_files(server)
        _start_on_a_free_port(server)
    except BaseException:
        server.remove()
        raise
    return server


def _write_files(server: RedisServer) -> None:
    folder, account = server.folder, unprivileged()
    config, accounts = CONFIG + server.extra, "\n".join(ACCOUNTS) + "\n"
    if server.saves_in == "aclfile":
        (folder / "users.acl").write_text(accounts)
        config += f"\naclfile {folder / 'users.acl'}\n"
    else:
        config += f"\n{accounts}"
    if server.saves_in != "nothing":
        (folder / "conf").write_text(config)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
        if account:
            os.chown(path, int(str(account["user"])), int(str(account["group"])))


def _start_on_a_free_port(server: RedisServer) -> None:
    """Try other ports, because another process may have taken the port since it was found free."""
    for attempt in range(PORTS_TRIED):
        try:
            server.start()
        except NoServer as error:
            server.stop(signal.SIGKILL)
            if "in use" not in str(error) or attempt == PORTS_TRIED - 1:
                raise
            server.port = free_port()
        else:
            return
