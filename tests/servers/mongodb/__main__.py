"""The stand-in as a process: ``python -m tests.servers.mongodb --folder F --port P [--port P2]``.

One port makes a standalone server, more ports make a replica set whose first member is the primary. With ``--routers`` each port is a mongos
of a sharded cluster. A process started by root becomes nobody once it is loaded. It reads ``close PORT`` and ``open PORT`` from its standard
input, and ends with it.
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

from tests.servers.mongodb import commands, mutants, variants
from tests.servers.mongodb.member import READY, Deployment, Member, Shape


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.mongodb", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds accounts, documents and the log")
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--routers", action="store_true", help="every port is a mongos")
    parser.add_argument("--noauth", action="store_true", help="without access control")
    parser.add_argument("--certificate", type=Path, help="certificate and key in one PEM file: TLS only")
    parser.add_argument(
        "--mutant", choices=mutants.MUTANTS, metavar="MUTANT", help="deviate in this way (see mutants/)"
    )
    parser.add_argument("--variant", choices=variants.VARIANTS, help="behave like this other server")
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


async def read_control(members: dict[int, Member], certificate: ssl.SSLContext | None, over: asyncio.Event) -> None:
    """Follows standard input line by line, until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        order, port = line.split()
        member = members[int(port)]
        await (member.close() if order == "close" else member.open(certificate))
    over.set()


async def main(given: argparse.Namespace) -> None:
    assert commands.__all__
    if given.mutant is not None:
        mutants.MUTANTS[given.mutant].apply()
    if given.variant is not None:
        variants.VARIANTS[given.variant]()
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
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        control = asyncio.create_task(read_control(members, certificate, over))
        await over.wait()
        control.cancel()
        for member in members.values():
            await member.close()


if __name__ == "__main__":
    asyncio.run(main(options()))
