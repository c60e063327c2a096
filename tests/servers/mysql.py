"""Private MySQL and MariaDB servers for tests: unpacked from Debian packages, in a temporary folder, on loopback, never as root, stopped by process id."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from tests.servers import debian
from tests.servers.postgresql import NoServer, free_port, unprivileged

ROOT, PASSWORD = "tester", "SuperSecret0Admin"
START_SECONDS = 240
STOP_SECONDS = 120
PORTS_TRIED = 5
MARIADB_PACKAGES = ("mariadb-server-core", "mariadb-client-core", "mariadb-server")
MYSQL_PACKAGES = ("mysql-server-core", "mysql-client-core")


@dataclass(frozen=True)
class Flavour:
    """One of the two servers: its files, its options, and how its data folder is created."""

    name: str
    folder: str
    root: Callable[[], Path]
    program: str
    client: str
    options: tuple[str, ...]
    init_command: Callable[[MySQLServer], list[str]]

    def command(self, program: str) -> list[str]:
        """The command with the libraries that the program was built for: packages of another Debian suite do not run with this machine's libraries."""
        root = self.root()
        return [*(debian.loader(root) if self.name == "mysql" else ()), str(root / program)]


@dataclass
class MySQLServer:
    """A running server. ``log_text`` is its error log and its general log, which has every statement."""

    flavour: Flavour
    folder: Path
    port: int
    extra: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    host: str = "127.0.0.1"
    _count: int = field(default=0)

    @property
    def environment(self) -> dict[str, str]:
        found = {**os.environ, "TZ": "America/New_York"}
        if self.flavour.name == "mariadb":
            root = self.flavour.root()
            found["LD_LIBRARY_PATH"] = str(debian.missing_libraries(root / self.flavour.program, root))
        return found

    @property
    def base(self) -> list[str]:
        usr = self.flavour.root() / "usr"
        return [f"--{k}" if v is None else f"--{k}={v}" for k, v in (("no-defaults", None), ("basedir", usr))]

    @property
    def options(self) -> list[str]:
        folder = self.folder
        own = {
            "datadir": folder / "data",
            "tmpdir": folder / "tmp",
            "port": self.port,
            "bind-address": self.host,
            "socket": folder / "s",
            "pid-file": folder / "pid",
            "log-error": folder / "log",
            "general-log": 1,
            "general-log-file": folder / "general",
            "max-connections": 200,
        }
        usr = self.flavour.root() / "usr"
        given = [option.format(usr=usr) for option in self.flavour.options]
        return [*self.base, *(f"--{key}={value}" for key, value in own.items()), *given, *self.extra]

    def url(self, user: str, password: str, database: str = "") -> str:
        return f"mysql://{user}:{password}@{self.host}:{self.port}/{database}"

    def admin(self, database: str | None = None) -> pymysql.Connection[Any]:
        return self.connect(ROOT, PASSWORD, database)

    def connect(self, user: str, password: str, database: str | None = None) -> pymysql.Connection[Any]:
        return pymysql.connect(
            host=self.host, port=self.port, user=user, password=password, database=database, autocommit=True
        )

    def run(self, *statements: str, database: str | None = None) -> None:
        """Run the statements as the server's own administrator."""
        with self.admin(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def query(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self.admin() as connection, connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return list(cursor.fetchall())

    def new_database(self, stem: str = "db") -> str:
        self._count += 1
        name = f"{stem}_{os.getpid()}_{self._count}"
        self.run(f"CREATE DATABASE `{name}`")
        return name

    def log_text(self) -> str:
        files = (self.folder / "log", self.folder / "general")
        return "".join(path.read_text(errors="replace") for path in files if path.exists())

    def start(self) -> None:
        command = [*self.flavour.command(self.flavour.program), *self.options]
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                command, stdout=out, stderr=out, cwd=self.folder, env=self.environment, **unprivileged()
            )
        self._await(lambda: self.admin().close())

    def _await(self, connect: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                connect()
            except pymysql.MySQLError:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise NoServer(f"{self.flavour.name} does not start: {self.log_text()[-2000:]}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def start(flavour: Flavour, *extra: str) -> MySQLServer:
    """Create the data folder and start the server. Raises NoServer where its packages are not available."""
    try:
        flavour.root()
    except debian.PackagesUnavailable as missing:
        raise NoServer(f"{flavour.name} cannot be unpacked: {missing}") from None
    folder = Path(tempfile.mkdtemp(prefix=f"dbaccess-{flavour.name}-"))
    server = MySQLServer(flavour=flavour, folder=folder, port=free_port(), extra=extra)
    try:
        _create_data_folder(server)
        _start_on_a_free_port(server)
    except BaseException:
        server.remove()
        raise
    return server


def _create_data_folder(server: MySQLServer) -> None:
    folder, account = server.folder, unprivileged()
    for path in (folder, folder / "tmp"):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
        if account:
            os.chown(path, int(str(account["user"])), int(str(account["group"])))
    init = folder / "init.sql"
    init.write_text("".join(f"{statement};\n" for host in ("%", "localhost") for statement in _account(host)))
    init.chmod(0o644)
    done = subprocess.run(  # type: ignore[call-overload]
        server.flavour.init_command(server),
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=server.environment,
        **account,
    )
    if done.returncode != 0:
        raise NoServer(
            f"{server.flavour.name} cannot be set up: {(done.stderr + done.stdout + server.log_text())[-2000:]}"
        )
    server.extra = (*server.extra, f"--init-file={init}")


def _account(host: str) -> tuple[str, str]:
    """For localhost too: there MariaDB's anonymous account takes precedence over an account with the host ``%``."""
    who = f"'{ROOT}'@'{host}'"
    return f"CREATE USER {who} IDENTIFIED BY '{PASSWORD}'", f"GRANT ALL ON *.* TO {who} WITH GRANT OPTION"


def _start_on_a_free_port(server: MySQLServer) -> None:
    """Try another port where a process has taken the one that was free. Only the first start creates the administrator."""
    for attempt in range(PORTS_TRIED):
        try:
            server.start()
        except NoServer:
            server.stop(signal.SIGKILL)
            if "in use" not in server.log_text() or attempt == PORTS_TRIED - 1:
                raise
            server.port = free_port()
        else:
            break
    server.extra = server.extra[:-1]
    with suppress(OSError):
        (server.folder / "init.sql").unlink()


def _mysql_init_command(server: MySQLServer) -> list[str]:
    command = server.flavour.command(server.flavour.program)
    return [*command, *server.options, "--general-log=0", "--initialize-insecure"]


def _mariadb_init_command(server: MySQLServer) -> list[str]:
    """The default set-up, which creates anonymous accounts."""
    usr = server.flavour.root() / "usr"
    return [
        str(usr / "bin" / "mariadb-install-db"),
        *server.base,
        f"--datadir={server.folder / 'data'}",
        f"--tmpdir={server.folder / 'tmp'}",
        f"--lc-messages-dir={usr / 'share' / 'mysql'}",
        "--auth-root-authentication-method=normal",
        "--skip-name-resolve",
        "--skip-test-db",
    ]


MARIADB = Flavour(
    name="mariadb",
    folder="mariadb-10.11",
    root=lambda: debian.unpacked("mariadb-10.11", *MARIADB_PACKAGES),
    program="usr/sbin/mariadbd",
    client="usr/bin/mariadb",
    options=("--lc-messages-dir={usr}/share/mysql", "--plugin-dir={usr}/lib/mysql/plugin", "--event-scheduler=ON"),
    init_command=_mariadb_init_command,
)
MYSQL = Flavour(
    name="mysql",
    folder="mysql-sid",
    root=lambda: debian.unpacked("mysql-sid", *MYSQL_PACKAGES, suite="sid"),
    program="usr/sbin/mysqld",
    client="usr/bin/mysql",
    options=(
        "--lc-messages-dir={usr}/share/mysql",
        "--character-sets-dir={usr}/share/mysql/charsets",
        "--plugin-dir={usr}/lib/mysql/plugin",
        "--secure-file-priv=NULL",
        "--mysqlx=OFF",
        "--innodb-redo-log-capacity=8M",
        "--innodb-buffer-pool-size=32M",
    ),
    init_command=_mysql_init_command,
)


def version(flavour: Flavour) -> str:
    """The version that the server prints."""
    unused = MySQLServer(flavour=flavour, folder=Path(tempfile.gettempdir()), port=0)
    command = [*flavour.command(flavour.program), "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=unused.environment).stdout
    return output.replace(f"{flavour.root()}/usr/sbin/", "").strip()


def unique_name(stem: str) -> str:
    """A name that is unique on a shared server."""
    return f"{stem}{secrets.token_hex(3)}"
