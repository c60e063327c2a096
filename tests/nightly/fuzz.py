"""Random input of every kind: payloads of Slack, command texts, configuration files, answers of database servers.

``python -m tests.nightly.fuzz [--inputs 100000] [--seed N]``
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from adapters.harness import UserSpecs
from bot.access.errors import NotUnderstood
from bot.policy.loader import ConfigError, load
from bot.slack import parse
from tests.contract.mongodb.harness import MongoDBHarness
from tests.contract.mysql.harness import build as mysql_harness
from tests.contract.postgresql.harness import ContractHarness
from tests.contract.postgresql.harness import build as postgresql_harness
from tests.contract.redis.harness import EngineHarness as RedisHarness
from tests.nightly import fuzz_answers, fuzz_slack
from tests.nightly.mutations import KEYS, ODD, mutated
from tests.servers import mysql, postgresql, redis
from tests.servers.mongodb import server as mongodb
from tests.servers.postgresql import NoServer
from tests.unit import test_load_fuzz

SHARES = {"slack": 0.35, "commands": 0.25, "files": 0.15, "answers": 0.25}
"""The part of all inputs that each kind gets."""
LEVELS = {"shop": ("readonly", "write")}


def fuzz_slack_payloads(inputs: int, seed: int) -> tuple[Sequence[str], Counter[str]]:
    findings = asyncio.run(fuzz_slack.Fuzz(random.Random(seed)).run(inputs))
    return findings.faults, findings.counts


def fuzz_commands(inputs: int, seed: int) -> tuple[Sequence[str], Counter[str]]:
    """Texts after ``/dbaccess``: each is parsed, or not understood in words that name it."""
    faults, counts = list[str](), Counter[str]()
    for number in range(inputs):
        text = fuzz_slack.random_text(random.Random(seed * 1_000_003 + number))
        for name, reads in _parsers(text).items():
            try:
                reads()
            except NotUnderstood as error:
                counts[f"{name}: not understood"] += 1
                if not str(error).startswith("I did not understand “"):
                    faults.append(f"{text!r}: {error}")
            except Exception as error:  # noqa: BLE001 - that there is none is what is tested
                faults.append(f"{name} {text!r}: {error!r}")
            else:
                counts[f"{name}: parsed"] += 1
    return faults, counts


def _parsers(text: str) -> Mapping[str, Callable[[], object]]:
    arguments = parse.split_command(text).arguments
    return {
        "request": lambda: parse.parse_request(arguments, lambda database: LEVELS.get(database, ())),
        "extend": lambda: parse.parse_extension(arguments),
        "lockdown": lambda: parse.parse_lockdown(arguments, "lockdown"),
        "explain": lambda: parse.parse_explain(arguments),
        "status": lambda: parse.parse_request_id(arguments, "status"),
    }


def fuzz_files(inputs: int, seed: int) -> tuple[Sequence[str], Counter[str]]:
    """Configuration files: each is loaded, or its errors are listed."""
    faults, counts = list[str](), Counter[str]()
    with TemporaryDirectory(prefix="dbaccess-fuzz-") as folder:
        for number in range(inputs):
            chance = random.Random(seed * 1_000_003 + number)
            if number % 2:
                test_load_fuzz.write(Path(folder), chance)
            else:
                _write(Path(folder), chance)
            try:
                load(Path(folder))
            except ConfigError as error:
                counts["refused"] += 1
                if not str(error).strip():
                    faults.append(f"seed {seed}, file {number}: no words")
            except Exception as error:  # noqa: BLE001 - that there is none is what is tested
                faults.append(f"seed {seed}, file {number}: {error!r}"[:500])
            else:
                counts["loaded"] += 1
    return faults, counts


def _write(folder: Path, chance: random.Random) -> None:
    """Files with the odd values of payloads, and with damaged bytes."""
    odd = [one for one in ODD if not isinstance(one, str) or one.isprintable()]
    for name, whole in (("databases.yml", test_load_fuzz.DATABASES), ("policy.yml", test_load_fuzz.POLICY)):
        text = yaml.safe_dump(mutated(whole, chance, odd, KEYS), allow_unicode=True).encode("utf-8", "replace")
        if chance.random() < 0.2:
            at = chance.randrange(len(text))
            text = text[:at] + bytes(chance.randrange(256) for _ in range(3)) + text[at + 3 :]
        (folder / name).write_bytes(text)


def fuzz_answers_of_servers(inputs: int, seed: int) -> tuple[Sequence[str], Counter[str]]:
    """Answers of each server that is installed here."""
    faults, counts = list[str](), Counter[str]()
    for name, harness in _harnesses():
        spec = UserSpecs(harness).new(harness.narrow)
        harness.adapter().create_user(spec)
        found = fuzz_answers.fuzz(
            harness, [spec.username, "jit_9_no_abcd"], inputs // len(ENGINES), random.Random(seed)
        )
        harness.adapter().drop_user(spec.username, harness.narrow)
        faults += [f"{name} {what} ({times} times)" for what, times in found.faults.items()]
        counts.update({f"{name} {what}": times for what, times in found.counts.items()})
    return faults, counts


ENGINES: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "postgresql": (lambda: postgresql.start(18), lambda server: ContractHarness(postgresql_harness(server))),
    "mysql": (lambda: mysql.start(mysql.MYSQL), mysql_harness),
    "mariadb": (lambda: mysql.start(mysql.MARIADB), mysql_harness),
    "mongodb": (mongodb.start, MongoDBHarness),
    "redis": (lambda: redis.start(redis.REDIS), lambda server: RedisHarness((server,))),
}


def _harnesses() -> Iterator[tuple[str, Any]]:
    for name, (start, harness) in ENGINES.items():
        with _running(start) as server:
            if server is not None:
                yield name, harness(server)


@contextmanager
def _running(start: Callable[[], Any]) -> Iterator[Any]:
    """A server, or None where it is not installed."""
    try:
        server = start()
    except NoServer:
        yield None
        return
    try:
        yield server
    finally:
        server.remove()


KINDS: Mapping[str, Callable[[int, int], tuple[Sequence[str], Counter[str]]]] = {
    "slack": fuzz_slack_payloads,
    "commands": fuzz_commands,
    "files": fuzz_files,
    "answers": fuzz_answers_of_servers,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kind", choices=(*KINDS, "all"), default="all")
    chosen = parser.parse_args(argv)
    seed = chosen.seed if chosen.seed is not None else random.randrange(2**32)
    number_of_faults = 0
    for kind, run in KINDS.items():
        if chosen.kind in (kind, "all"):
            inputs, began = round(chosen.inputs * SHARES[kind]), time.monotonic()
            faults, counts = run(inputs, seed)
            seconds = round(time.monotonic() - began)
            figures = {
                "kind": kind,
                "inputs": inputs,
                "seed": seed,
                "faults": len(faults),
                "seconds": seconds,
                **counts,
            }
            sys.stdout.write("\n".join([str(figures), *faults[:20], ""]))
            sys.stdout.flush()
            number_of_faults += len(faults)
    return 1 if number_of_faults else 0


if __name__ == "__main__":
    sys.exit(main())
