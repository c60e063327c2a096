"""Private PgBouncers in front of a private PostgreSQL, for tests.

Each is unpacked from Debian, runs on loopback, never as root, and is stopped by its process id.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.servers import debian
from tests.servers.postgresql import PASSWORD, SUPERUSER, NoServer, PostgresServer, free_port, new_folder, unprivileged

SUITE = "bookworm"
"""Every machine uses this version: later ones handle startup options differently."""
START_SECONDS = 30
PORTS_TRIED = 5
CONFIG = """[databases]
* = host={server.host} port={server.port} auth_user={superuser}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
auth_query = SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1
pool_mode = {mode}
max_client_conn = 500
default_pool_size = 20
query_wait_timeout = 5
logfile = {folder}/log
{extra}
"""
"""PgBouncer reads the password of a user that is not in its file from the server, so that temporary users can log in."""


@cache
def program() -> list[str]:
    """The command that runs PgBouncer. Raises NoServer where it is not available."""
    try:
        root = debian.unpacked(f"pgbouncer-{SUITE}", "pgbouncer", suite=SUITE)
        folder = Path(tempfile.mkdtemp(prefix="dbaccess-pgbouncer-programs-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        return debian.copied(root / "usr/sbin/pgbouncer", root, folder)
    except debian.PackagesUnavailable as missing:
        raise NoServer(f"PgBouncer cannot be unpacked: {missing}") from None


@dataclass
class PgBouncer:
    """A pooler. ``mode`` is its pool_mode: ``session``, ``transaction`` or ``statement``."""

    server: PostgresServer
    folder: Path
    mode: str
    extra: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"

    def url(self, user: str, password: str, database: str = "postgres") -> str:
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{database}"

    def log_text(self) -> str:
        files = (self.folder / "log", self.folder / "out")
        return "".join(path.read_text(errors="replace") for path in files if path.exists())

    def start(self) -> None:
        known = {"server": self.server, "superuser": SUPERUSER, "host": self.host, "port": self.port}
        text = CONFIG.format(**known, folder=self.folder, mode=self.mode, extra=self.extra)
        (self.folder / "ini").write_text(text)
        with (self.folder / "out").open("ab") as out:
            command = [*program(), str(self.folder / "ini")]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, cwd=self.folder, **unprivileged())  # type: ignore[call-overload]
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise NoServer(f"PgBouncer does not start: {self.log_text()[-2000:]}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Whether it listens. Its own log must say so, because another server may answer on the same port."""
        with socket.socket() as s:
            return (
                s.connect_ex((self.host, self.port)) == 0 and f"listening on {self.host}:{self.port}" in self.log_text()
            )

    def stop(self) -> None:
        """SIGTERM stops PgBouncer at once."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def start(server: PostgresServer, mode: str, *, users: Mapping[str, str], extra: str = "") -> PgBouncer:
    """Start a pooler in front of ``server``. ``users`` are the passwords in its file. Raises NoServer where it is not available."""
    program()
    folder = new_folder("dbaccess-pgbouncer-")
    listed = {SUPERUSER: PASSWORD, **users}
    (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in listed.items()))
    if account := unprivileged():
        os.chown(folder / "users", int(str(account["user"])), int(str(account["group"])))
    pooler = PgBouncer(server=server, folder=folder, mode=mode, extra=extra)
    try:
        _start_somewhere(pooler)
    except BaseException:
        pooler.remove()
        raise
    return pooler


def _start_somewhere(pooler: PgBouncer) -> None:
    """Start the pooler, on another port where another process has taken its port meanwhile."""
    for attempt in range(PORTS_TRIED):
        try:
            pooler.start()
        except NoServer as error:
            pooler.stop()
            if "in use" not in str(error) or attempt == PORTS_TRIED - 1:
                raise
            pooler.port = free_port()
        else:
            return
