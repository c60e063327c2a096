"""Deliberate deviations of the stand-in, each of which one conformance case must notice. ``--mutant NAME`` starts the stand-in with one."""

from tests.servers.mongodb.mutants import login, operations, rights, users
from tests.servers.mongodb.mutants.mutant import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant", "login", "operations", "rights", "users"]
