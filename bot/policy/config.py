"""The configuration that the policy is evaluated on: both files, checked and compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.databases import DatabaseEntry
from bot.policy.model import GROUP, PolicyFile
from bot.policy.rules import Rule, group_by_database, groups_in, names_in
from bot.policy.source import Problem


@dataclass(frozen=True, kw_only=True)
class Config:
    """One version of both files. ``rules`` are the policy's rules with their defaults filled in and their databases looked up.

    ``rules_by_database``: the rules that name a database, in their order.
    ``directory_names``: every group and e-mail address in the policy. Only the directory knows who they are.
    ``group_names``: the groups among them.
    """

    policy: PolicyFile
    databases: Mapping[str, DatabaseEntry]
    rules: tuple[Rule, ...]
    digest: str
    warnings: tuple[Problem, ...]
    rules_by_database: Mapping[str, tuple[Rule, ...]] = field(init=False, repr=False, compare=False)
    directory_names: frozenset[str] = field(init=False, repr=False, compare=False)
    group_names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = names_in(self.policy)
        derived = {
            "rules_by_database": group_by_database(self.rules),
            "directory_names": frozenset(name for name in names if "@" in name or GROUP.fullmatch(name)),
            "group_names": groups_in(names),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
