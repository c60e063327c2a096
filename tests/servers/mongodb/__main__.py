"""The stand-in as a process: ``python -m tests.servers.mongodb --folder F --port P [--port P2]``.

With one port it is a standalone server, with more a replica set whose first member is the primary, with ``--routers``
a sharded cluster of which each port is a mongos. Started by root it becomes nobody once it is loaded. With ``--control``
it reads from its standard input ``close PORT`` and ``open PORT``, and ends with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import signal
import ssl
import sys
from pathlib import Path

from tests.servers.mongodb import broken, commands, lookalikes
from tests.servers.mongodb.member import Deployment, Member, Shape


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.mongodb", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="accounts, documents and the log are kept here")
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--routers", action="store_true", help="every port is a mongos")
    parser.add_argument("--noauth", action="store_true", help="everything is allowed to everyone")
    parser.add_argument("--certificate", type=Path, help="certificate and key in one PEM file: TLS only")
    parser.add_argument("--broken", choices=broken.FAULTS, metavar="FAULT", help="be wrong in this (see broken/)")
    parser.add_argument("--like", choices=lookalikes.LOOKALIKES, help="behave as this other server does")
    parser.add_argument("--control", action="store_true", help="do what standard input says, end with it")
    return parser.parse_args()


def become_nobody() -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def shape(given: argparse.Namespace) -> Shape:
    if given.routers:
        return Shape.ROUTERS
    return Shape.SET if len(given.port) > 1 else Shape.STANDALONE


async def obey(members: dict[int, Member], certificate: ssl.SSLContext | None, over: asyncio.Event) -> None:
    """Line by line, until there are no more."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        word, port = line.split()
        member = members[int(port)]
        await (member.close() if word == "close" else member.open(certificate))
    over.set()


async def main(given: argparse.Namespace) -> None:
    assert commands.__all__
    if given.broken is not None:
        broken.FAULTS[given.broken].apply()
    if given.like is not None:
        lookalikes.LOOKALIKES[given.like]()
    certificate = None
    if given.certificate is not None:
        certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.load_cert_chain(given.certificate)
    become_nobody()
    with (given.folder / "log").open("a") as log:
        deployment = Deployment(given.folder, shape=shape(given), is_auth_on=not given.noauth, log=log)
        members = {port: Member(deployment, port) for port in given.port}
        for member in members.values():
            await member.open(certificate)
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        control = asyncio.create_task(obey(members, certificate, over)) if given.control else None
        await over.wait()
        if control is not None:
            control.cancel()
        for member in members.values():
            await member.close()


if __name__ == "__main__":
    asyncio.run(main(options()))
