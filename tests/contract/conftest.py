"""Fixtures that the tests of several adapters use."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

NEEDS_NO_DNS = re.compile(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*|localhost")


@pytest.fixture
def looked_up_hosts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The host names that were looked up in DNS. Each lookup fails, and none leaves this machine."""
    names, original = list[str](), socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if NEEDS_NO_DNS.fullmatch(name):
            return original(host, *rest, **named)
        names.append(name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return names
