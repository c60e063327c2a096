"""Unpacks Debian packages into ``.cache/``, without installing anything. Raises PackagesUnavailable where they cannot be downloaded."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import fasteners

from tests import clock_ahead

CACHE = Path(__file__).resolve().parents[2] / ".cache"
APT_SECONDS = 300

MACHINE_SOURCES = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

CONF = """
Dir::State::lists "{apt}/lists"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}"; Dir::Cache::archives "{apt}/archives";
Dir::Etc::preferencesparts "/dev/null"; Dir::Etc::preferences "/dev/null"; APT::Sandbox::User "";
"""


OTHER_SUITE = """Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "/dev/null"; Dir::Etc::preferences "/dev/null";
"""


class PackagesUnavailable(Exception):
    """There is no apt, no network, or no such package in that suite."""


def unpacked(name: str, *packages: str, suite: str | None = None) -> Path:
    """The root folder of these packages and their dependencies. They are downloaded once, from the suites of this machine or from ``suite``.

    Programs of another suite need their own loader: see ``loader``.
    """
    root = CACHE / name
    if shutil.which("apt-get") is None:
        raise PackagesUnavailable("there is no apt-get")
    CACHE.mkdir(exist_ok=True)
    with fasteners.InterProcessLock(CACHE / f"{name}.lock"):
        if not (root / "complete").exists():
            shutil.rmtree(root, ignore_errors=True)
            _unpack(root, packages, suite)
            (root / "complete").touch()
    return root


def _unpack(root: Path, packages: tuple[str, ...], suite: str | None) -> None:
    apt = root / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()  # an empty status file: apt then downloads all dependencies
    conf = CONF
    if suite is not None:
        (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
        conf += OTHER_SUITE
    (apt / "conf").write_text(conf.format(apt=apt))
    _run(apt, "apt-get", "-qq", "update")
    _run(apt, "apt-get", "-qq", "-y", "--download-only", "--no-install-recommends", "install", *packages)
    for package in sorted((apt / "archives").glob("*.deb")):
        _run(apt, "dpkg", "-x", str(package), str(root))
    shutil.rmtree(apt)


def _mirror() -> str:
    """The Debian mirror of this machine."""
    for path in MACHINE_SOURCES:
        if path.exists() and (
            found := re.search(r"^(?:URIs:|deb\s+(?:\[.*?\]\s+)?)\s*(\S+)", path.read_text(), re.MULTILINE)
        ):
            return found[1]
    raise PackagesUnavailable("this machine names no Debian mirror")


def loader(root: Path) -> list[str]:
    """The words before a program of ``root`` that run it with the libraries it was built for, not with this machine's.

    Debian 12 has half of the libraries outside usr.
    """
    folders = [root / part / f"{platform.machine()}-linux-gnu" for part in ("lib", "usr/lib")]
    for folder in folders:
        for found in sorted(folder.glob("ld-linux-*.so.*")):
            return [str(found), "--library-path", ":".join(map(str, folders))]
    raise PackagesUnavailable(f"there is no loader in {root}")


def copied(program: Path, root: Path, folder: Path) -> list[str]:
    """Copy a program of ``root`` with its loader and libraries to ``folder``, where any account can read it. Returns the command that runs it."""
    own = loader(root)
    shutil.copy(own[0], folder / "loader")
    shutil.copy(program, folder / program.name)
    listed = subprocess.run([*own, "--list", program], capture_output=True, text=True, check=True).stdout
    for path in (line.split()[2] for line in listed.splitlines() if "=> /" in line):
        shutil.copy(path, folder / Path(path).name)
    return [str(folder / "loader"), "--library-path", str(folder), str(folder / program.name)]


def _run(apt: Path, *command: str) -> None:
    environment = {**clock_ahead.without_offset(os.environ), "APT_CONFIG": str(apt / "conf")}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=APT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackagesUnavailable(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise PackagesUnavailable(f"{' '.join(command[:3])}: {done.stderr[-300:]}")


def missing_libraries(program: Path, root: Path) -> Path:
    """A folder with the libraries of ``root`` that this machine lacks, for LD_LIBRARY_PATH."""
    folder = root / "missing"
    folder.mkdir(exist_ok=True)
    with fasteners.InterProcessLock(CACHE / f"{root.name}.lock"):
        _link_missing(program, root, folder)
    return folder


def _link_missing(program: Path, root: Path, folder: Path) -> None:
    while True:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        out = subprocess.run(["ldd", program], env=environment, capture_output=True, text=True, check=False).stdout
        missing = [line.split()[0] for line in out.splitlines() if "not found" in line]
        found = [path for name in missing for path in sorted(root.glob(f"usr/lib/*/{name}"))[:1]]
        if not found:
            return
        for path in found:
            (folder / path.name).symlink_to(path.resolve())
