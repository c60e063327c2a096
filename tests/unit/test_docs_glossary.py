"""docs/glossary.md and the code use the same words: each code name exists, and no identifier uses a word that was given up."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "glossary.md").read_text()
TERMS_PART, _, WORDS_PART = PAGE.partition("\n## Words that are not used\n")
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([a-z][\w.]+)` \|$", TERMS_PART, re.MULTILINE)
PACKAGES = ("storage", "adapters", "bot")

TERMS = [
    "request",
    "decision",
    "grant",
    "access level",
    "rule",
    "stage",
    "approver",
    "approval card",
    "receipt",
    "task",
    "lock key",
    "priority",
    "lease",
    "claim",
    "retry",
    "job",
    "transition",
    "guard",
    "task plan",
    "command",
    "commit listener",
    "serialization",
    "schema",
    "notification",
    "query",
    "membership",
    "message",
    "interaction",
    "rendered message",
    "evaluation",
    "authorization",
    "validation",
    "catalog",
    "managed role",
    "left-behind objects",
    "quarantine role",
    "member",
    "foreign user",
    "repair",
    "remedy",
    "break-glass access",
    "test environment",
    "recording messenger",
    "engine harness",
    "removal",
]
"""The vocabulary: each of these concepts has a name in the code."""

ANYWHERE = frozenset(
    [
        "lane",
        "lanes",
        "effect",
        "effects",
        "waker",
        "waking",
        "heard",
        "drawn",
        "judge",
        "judges",
        "judged",
        "judging",
        "bench",
        "house",
        "wall",
        "office",
        "graveyard",
        "handover",
        "mend",
        "mends",
        "mended",
        "mending",
        "ours",
        "tell",
        "tells",
        "told",
        "kept",
    ]
)
"""Parts of names that no module, class, function or parameter has."""
PAIRS = frozenset({("hand", "over"), ("handed", "over"), ("not", "ours")})
ORDINARY = frozenset({("wall", "clock")})
"""Pairs of parts in which a word of ``ANYWHERE`` means something else."""

MODULES = frozenset(
    [
        "rows",
        "tables",
        "tell",
        "look",
        "people",
        "words",
        "clicks",
        "mistakes",
        "offers",
        "asking",
        "typed",
        "moves",
        "effects",
        "lanes",
        "kept",
        "judge",
        "handover",
    ]
)
NOUNS = frozenset({"ask", "asks", "asker", "askers"})
"""Parts of the names of modules, classes and parameters. As the verb of a function, ``ask`` is ordinary English."""
CLASSES = frozenset({"Store", "Plan", "Why", "Move", "Ask", "Unreachable", "NotOurs", "Again", "Effect", "Work"})
FUNCTIONS = frozenset({"again", "offers", "asking", "look", "people", "words"})

TYPED = {
    "Transition": "move",
    "TransitionInput": "change",
    "Obstacle": "why",
    "JobContext": "work",
    "Interaction": "heard",
    "RenderedMessage": "drawn",
    "PolicyQuestion": "ask",
    "Removal": "receipt",
    "Retry": "again",
    "Guard": "condition",
    "TaskPlanner": "follow",
}
"""By the type of a parameter, the name that it does not have."""


@dataclass(frozen=True, order=True)
class Name:
    """An identifier where it is introduced."""

    file: str
    line: int
    kind: str
    name: str
    annotation: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind} {self.name}{': ' + self.annotation if self.annotation else ''}"


def parts(name: str) -> list[str]:
    """``HandOverPlan`` and ``hand_over_plan`` → hand, over, plan."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def names_in(path: Path) -> Iterator[Name]:
    """The module and its packages' last name, and every class, function and parameter in it."""
    file = str(path.relative_to(ROOT))
    yield Name(file, 1, "module", path.parent.name if path.stem == "__init__" else path.stem)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield Name(file, node.lineno, "class", node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Name(file, node.lineno, "function", node.name)
        elif isinstance(node, ast.arg):
            yield Name(
                file, node.lineno, "parameter", node.arg, ast.unparse(node.annotation) if node.annotation else ""
            )


def is_given_up(one: Name) -> bool:
    """Whether the name uses a word that the glossary replaced."""
    found = parts(one.name)
    pairs = set(itertools.pairwise(found))
    ordinary = {part for pair in pairs & ORDINARY for part in pair}
    if pairs & PAIRS or (set(found) - ordinary) & ANYWHERE:
        return True
    if one.kind == "module":
        return bool(set(found) & NOUNS) or one.name.strip("_") in MODULES
    if one.kind == "class":
        return bool(set(found) & NOUNS) or one.name.strip("_") in CLASSES
    if one.kind == "function":
        return one.name.strip("_") in FUNCTIONS
    types = re.findall(r"\w+", one.annotation)
    return bool(set(found) & NOUNS) or any(TYPED.get(known) == one.name for known in types)


def every_name() -> Iterator[Name]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from names_in(path)


def resolve(dotted: str) -> Any:
    """The object, or the field of a record, that a code name means. Raises LookupError."""
    steps = dotted.split(".")
    for length in range(len(steps), 0, -1):
        try:
            found = importlib.import_module(".".join(steps[:length]))
        except ModuleNotFoundError:
            continue
        return _attribute(found, steps[length:], dotted)
    raise LookupError(dotted)


def _attribute(found: Any, steps: list[str], dotted: str) -> Any:
    for step in steps:
        fields = getattr(found, "__dataclass_fields__", {})
        if not hasattr(found, step) and step not in fields:
            raise LookupError(f"{dotted}: {found!r} has no {step}")
        found = fields[step] if step in fields else getattr(found, step)
    return found


def test_glossary_has_rows() -> None:
    assert len(ROWS) >= len(TERMS)
    assert len(ROWS) == len(re.findall(r"^\| [^|]+ \| [^|]+ \| `", TERMS_PART, re.MULTILINE)), "a row has another form"


@pytest.mark.parametrize(("term", "dotted"), ROWS, ids=[dotted for _, dotted in ROWS])
def test_code_name_exists(term: str, dotted: str) -> None:
    assert resolve(dotted) is not None, term


def test_every_concept_of_the_vocabulary_is_there() -> None:
    there = {term.lower() for term, _ in ROWS}
    assert [term for term in TERMS if term not in there] == []


def test_each_term_is_defined_once() -> None:
    terms = [term.lower() for term, _ in ROWS]
    assert sorted({term for term in terms if terms.count(term) > 1}) == []


def test_glossary_lists_the_words_that_are_not_used() -> None:
    listed = WORDS_PART.lower()
    stems = {"lane", "effect", "waker", "waking", "heard", "drawn", "judge", "bench", "house", "wall", "office"}
    stems |= {"graveyard", "handover", "mend", "ours", "tell", "told", "kept"} | MODULES - {"moves", "effects", "lanes"}
    assert sorted(word for word in stems if not re.search(rf"\b{word}\b", listed)) == []
    unlisted = {word for word in ANYWHERE if not any(word.startswith(stem.removesuffix("e")) for stem in stems)}
    assert unlisted == set()


def test_no_name_uses_a_word_that_was_given_up() -> None:
    offenders = sorted(one for one in every_name() if is_given_up(one))
    assert not offenders, "\n" + "\n".join(map(str, offenders))


@pytest.mark.parametrize(
    ("kind", "name", "annotation"),
    [
        ("module", "handover", ""),
        ("module", "tell", ""),
        ("class", "_HandOver", ""),
        ("class", "AskForm", ""),
        ("function", "_judged_by", ""),
        ("function", "again", ""),
        ("parameter", "kept_role", ""),
        ("parameter", "ask", "PolicyQuestion"),
        ("parameter", "change", "TransitionInput | None"),
        ("parameter", "work", "JobContext"),
    ],
)
def test_a_word_that_was_given_up_is_found(kind: str, name: str, annotation: str) -> None:
    assert is_given_up(Name("x.py", 1, kind, name, annotation))


@pytest.mark.parametrize(
    ("kind", "name", "annotation"),
    [
        ("function", "move_expiry", ""),
        ("function", "ask", ""),
        ("function", "wall_clock_seconds", ""),
        ("function", "recommend", ""),
        ("class", "Effective", ""),
        ("module", "move_expiry", ""),
        ("parameter", "work", "Callable[[], object]"),
        ("parameter", "change", "dict[str, Any]"),
        ("parameter", "people", "Collection[str]"),
    ],
)
def test_ordinary_english_is_free(kind: str, name: str, annotation: str) -> None:
    assert not is_given_up(Name("x.py", 1, kind, name, annotation))
