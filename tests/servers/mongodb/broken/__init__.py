"""The stand-in deliberately wrong: faults, each of which one conformance case has to notice. ``--broken <name>`` starts it so."""

from tests.servers.mongodb.broken import killing, login, rights, users
from tests.servers.mongodb.broken.fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "killing", "login", "rights", "users"]
