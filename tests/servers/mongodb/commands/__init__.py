"""All commands; importing this makes them known."""

from tests.servers.mongodb import faults
from tests.servers.mongodb.commands import connecting, data, killing, reading, roles, server, users

__all__ = ["connecting", "data", "faults", "killing", "reading", "roles", "server", "users"]
