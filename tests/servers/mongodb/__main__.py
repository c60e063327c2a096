"""The stand-in as a process: ``python -m tests.servers.mongodb --folder F --port P [--port P2]``.

With one port it is a standalone server, with more a replica set whose first member is the primary. Started by root it
becomes nobody once it is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pwd
import signal
from pathlib import Path

from tests.servers.mongodb import broken, commands
from tests.servers.mongodb.member import Deployment, Member


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.mongodb", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="accounts and documents are kept here; log is written here"
    )
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--noauth", action="store_true", help="everything is allowed to everyone")
    parser.add_argument("--broken", choices=broken.FAULTS, metavar="FAULT", help="be wrong in this (see broken/)")
    return parser.parse_args()


def become_nobody() -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


async def main(given: argparse.Namespace) -> None:
    assert commands.__all__
    if given.broken is not None:
        broken.FAULTS[given.broken].apply()
    become_nobody()
    with (given.folder / "log").open("a") as log:
        set_name = "rs0" if len(given.port) > 1 else None
        deployment = Deployment(given.folder, is_auth_on=not given.noauth, set_name=set_name, log=log)
        members = [Member(deployment, port) for port in given.port]
        for member in members:
            await member.open()
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        await over.wait()
        for member in members:
            await member.close()


if __name__ == "__main__":
    asyncio.run(main(options()))
