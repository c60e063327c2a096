"""A real mongod from $MONGOD or PATH, started privately, with the interface of the stand-in."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from tests.servers.mongodb.server import START_SECONDS, MongoServer, ended, new_folder, started
from tests.servers.postgresql import NoServer, unprivileged


def program() -> Path:
    found = os.environ.get("MONGOD") or shutil.which("mongod")
    if not found:
        raise NoServer("there is no mongod: neither $MONGOD nor PATH has one")
    return Path(found)


class RealMongoServer(MongoServer):
    """One process for each member."""

    kind = "mongod"

    def commands(self) -> list[list[str]]:
        return [self._command(index, port) for index, port in enumerate(self.members)]

    def _command(self, index: int, port: int) -> list[str]:
        data = self.folder / f"data{index}"
        self._own(data).mkdir(exist_ok=True)
        self._own(data)
        command = [str(program()), "--dbpath", str(data), "--port", str(port), "--bind_ip", self.host]
        command += ["--logpath", str(self.folder / f"log{index}"), "--logappend", "--slowms", "0", "-v"]
        command += ["--setParameter", "enableTestCommands=1", "--nounixsocket"]
        command += ["--auth"] if self.is_auth_on else []
        if self.is_set:
            command += ["--replSet", "rs0", *(["--keyFile", str(self._key())] if self.is_auth_on else [])]
        return command

    def _key(self) -> Path:
        """The key file by which members of a set recognise each other; only the server's account may read it."""
        key = self.folder / "key"
        if not key.exists():
            key.write_text(secrets.token_hex(64))
            self._own(key).chmod(0o400)
        return key

    def _own(self, path: Path) -> Path:
        account = self.account()
        if account and path.exists():
            os.chown(path, int(account["user"]), int(account["group"]))
        return path

    def account(self) -> dict[str, Any]:
        return unprivileged()

    def _times_ready(self) -> int:
        return self.log_text().count("Waiting for connections")

    def close_member(self, port: int) -> None:
        process = self.processes[self.members.index(port)]
        process.kill()
        ended(process)

    def open_member(self, port: int) -> None:
        index = self.members.index(port)
        self.processes[index] = self._spawn(index, self._command(index, port))
        self._await(lambda: self._is_listening(port))

    def set_up(self) -> None:
        if self.is_set:
            self._initiate()
        super().set_up()

    def _initiate(self) -> None:
        members = [{"_id": index, "host": f"{self.host}:{port}"} for index, port in enumerate(self.members)]
        members[0]["priority"] = 2
        deadline = time.monotonic() + START_SECONDS
        with self.stranger() as client:
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            while not self._is_ready():
                if time.monotonic() > deadline:
                    raise NoServer(f"the set elects no primary: {self.log_text()[-2000:]}")
                time.sleep(0.1)

    def _is_ready(self) -> bool:
        fields = ("isWritablePrimary", *["secondary"] * (len(self.members) - 1))
        for port, field in zip(self.members, fields, strict=True):
            try:
                with self.stranger(port=port) as client:
                    if not client.admin.command("hello").get(field):
                        return False
            except PyMongoError:
                return False
        return True


def start(*, auth: bool = True, members: int = 1) -> MongoServer:
    """Raises NoServer where the machine has none."""
    program()
    return started(RealMongoServer(folder=new_folder("mongod"), members=[], is_auth_on=auth), members)
