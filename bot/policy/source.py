"""YAML with line numbers: plain data, and the line on which each part of it stands.

Stricter than YAML: no anchors or aliases (they can hide a bomb, and what is allowed), no key twice, keys are
always text (``on`` is no boolean here), only the scalars of YAML 1.2's core schema, no tags.

What stands in a file may be a secret in the wrong place: ``shown`` gives back only what looks like a name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Place: TypeAlias = tuple[str | int, ...]
LARGEST = 4_000_000
DEEPEST = 20
DIGITS_MAX = 18
QUOTED = ("'", '"', "|", ">")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NUMBER = re.compile(r"[-+]?[0-9]+", re.ASCII)
FRACTION = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
STRANGE = "has a character that cannot be printed; take it out"
NAME_LIKE = re.compile(r"[\w.*?\[\]@!-]{1,60}")
NEEDS_QUOTES = "*&@`%!"
WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


def shown(text: object) -> str:
    """``text`` where it can only be a name; what may be a URL, and so hold a password, is not repeated."""
    return str(text) if NAME_LIKE.fullmatch(str(text)) else "(not shown)"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake or warning: ``FILE:LINE: error: what is wrong; what would be right``."""

    file: str
    line: int
    what: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'error' if self.is_error else 'warning'}: {self.what}"


@dataclass
class Source:
    """One file as data; ``line_of`` finds where a part of it stands."""

    file: str
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, place: Place) -> int:
        """The line of ``place``, or of the nearest thing around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, line: int, what: str) -> None:
        self.problems.append(Problem(file=self.file, line=line, what=what))

    def at(self, place: Place, what: str, *, is_error: bool = True) -> Problem:
        """A problem with the part at ``place``."""
        return Problem(file=self.file, line=self.line_of(place), what=what, is_error=is_error)


def read(path: Path) -> Source:
    """Never raises: what is wrong is in ``problems``."""
    source = Source(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        source.error(1, f"cannot be read ({error.strerror or type(error).__name__}); it belongs into this folder")
        return source
    if len(raw) > LARGEST:
        source.error(1, f"is too large; at most {LARGEST} bytes are read")
        return source
    try:
        _load(source, raw.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        source.error(raw[: error.start].count(b"\n") + 1, "is not UTF-8; save it as UTF-8")
    return source


def _load(source: Source, text: str) -> None:
    if (strange := UNPRINTABLE.search(text)) is not None:
        source.error(text.count("\n", 0, strange.start()) + 1, STRANGE)
        return
    try:
        node = yaml.compose(text, Loader=LOADER) if _is_plain(source, text) else None
    except yaml.MarkedYAMLError as error:
        source.error(*_not_yaml(text, error))
        return
    if node is not None:
        source.data = _data(source, node, ())
    if source.data is None and not source.problems:
        source.error(1, "is empty; see README for what belongs into it")


def _not_yaml(text: str, error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """The line, and what may be meant: the usual mistakes are tabs, and a star without quotes."""
    mark = error.problem_mark
    if mark is None:
        return 1, f"is no valid YAML ({error.problem}); see README for an example"
    line = [*text.split("\n"), ""][min(mark.line, text.count("\n") + 1)]
    right = "indent with spaces, one key to a line"
    if "\t" in line:
        right = "indent with spaces, not with tabs"
    elif line[max(mark.column - 1, 0) : mark.column + 1].strip()[:1] in tuple(NEEDS_QUOTES):
        right = f'text that begins with one of {" ".join(NEEDS_QUOTES)} needs quotes: "*"'
    return mark.line + 1, f"is no valid YAML ({error.problem}); {right}"


def _is_plain(source: Source, text: str) -> bool:
    """One pass over the events before anything is built: no aliases, no tags, no depth, one document."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if (wrong := _not_plain(event, depth, documents)) is not None:
            source.error(event.start_mark.line + 1 if event.start_mark else 1, wrong)
            return False
    return True


def _not_plain(event: yaml.Event, depth: int, documents: int) -> str | None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return 'anchors and aliases are not used here; write it out, and a pattern in quotes: "*-prod"'
    if isinstance(event, yaml.ScalarEvent) and UNPRINTABLE.search(event.value):
        return STRANGE  # written as an escape, such as "\0", which no ledger on PostgreSQL can keep
    if getattr(event, "tag", None):
        return "tags (!…) are not used here; write plain text, in quotes where it begins with !"
    if depth > DEEPEST:
        return f"is nested too deeply; at most {DEEPEST} levels"
    return "has several documents; one to a file" if documents > 1 else None


def _data(source: Source, node: yaml.Node, place: Place) -> Any:
    source.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, place)
    if isinstance(node, yaml.SequenceNode):
        return [_data(source, item, (*place, number)) for number, item in enumerate(node.value)]
    return _scalar(node)


def _mapping(source: Source, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            source.error(line, "a key is plain text; write KEY: VALUE")
            continue
        if key.value in found:
            source.error(line, f"the key {shown(key.value)} stands here twice; keep one")
            continue
        source.lines[*place, key.value] = line
        found[key.value] = _data(source, value, (*place, key.value))
    return found


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    if getattr(node, "style", None) in QUOTED:
        return text
    if text in WORDS:
        return WORDS[text]
    if NUMBER.fullmatch(text) and len(text) <= DIGITS_MAX:
        return int(text)
    return float(text) if FRACTION.fullmatch(text) else text
