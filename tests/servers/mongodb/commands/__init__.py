"""All commands; the import registers them."""

from tests.servers.mongodb import fail_points
from tests.servers.mongodb.commands import connecting, operations, reading, roles, users

__all__ = ["connecting", "fail_points", "operations", "reading", "roles", "users"]
