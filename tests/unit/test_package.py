"""The built package contains the complete license and names it by its SPDX identifier."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return zipfile.ZipFile(found)


def text(wheel: zipfile.ZipFile, name: str) -> str:
    (found,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(found).decode()


def test_wheel_contains_the_license(wheel: zipfile.ZipFile) -> None:
    license_ = text(wheel, "licenses/LICENSE")
    assert license_ == (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in license_
    assert "END OF TERMS AND CONDITIONS" in license_


def test_wheel_metadata_names_the_license(wheel: zipfile.ZipFile) -> None:
    about = HeaderParser().parsestr(text(wheel, "METADATA"))
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]
