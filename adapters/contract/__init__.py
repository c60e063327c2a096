"""The tests that every adapter must pass. They check by logging in as the temporary user on a real server.

A package that brings an engine subclasses ``AdapterContract`` in its own tests and gives it a fixture ``harness``, an
``adapters.harness.EngineHarness``. The suite needs pytest and a server, and nothing of the application::

    from adapters.contract import AdapterContract, EngineHarness

    class TestMine(AdapterContract):
        @pytest.fixture
        def harness(self) -> EngineHarness: ...
"""

# ruff: noqa: E402 - the modules are imported after pytest has been instructed to rewrite their assertions

from __future__ import annotations

import pytest

# By default pytest explains failed assertions only in test modules. This must come before the modules are imported.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "blocking",
            "changing",
            "comparing",
            "creating",
            "dropping",
            "hostile",
            "marking",
            "server",
        )
    )
)

from adapters.base import Adapter, LoginRefused
from adapters.contract.blocking import BlockingContract
from adapters.contract.changing import ChangingContract
from adapters.contract.comparing import ComparingContract
from adapters.contract.creating import CreatingContract
from adapters.contract.dropping import DroppingContract
from adapters.contract.hostile import HostileContract
from adapters.contract.marking import MarkingContract
from adapters.contract.scene import HostileAct, Probe, Scene
from adapters.contract.server import ServerContract
from adapters.harness import Denied, Died, EngineHarness, Session, UserSpecs, everything_on, expect_within, wait_until

__all__ = [
    "AdapterContract",
    "Denied",
    "Died",
    "EngineHarness",
    "HostileAct",
    "HostileContract",
    "LoginRefused",
    "Probe",
    "Scene",
    "Session",
    "UserSpecs",
    "everything_on",
    "expect_within",
    "wait_until",
]


class AdapterContract(
    CreatingContract,
    ChangingContract,
    BlockingContract,
    DroppingContract,
    HostileContract,
    ComparingContract,
    MarkingContract,
    ServerContract,
):
    """The whole contract. A subclass has a fixture ``harness``; it may set a test to None where its engine cannot have the feature."""

    @pytest.fixture
    def user_specs(self, harness: EngineHarness) -> UserSpecs:
        return UserSpecs(harness)

    @pytest.fixture
    def adapter(self, harness: EngineHarness) -> Adapter:
        return harness.adapter()
