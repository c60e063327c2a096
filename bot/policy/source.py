"""Read YAML into plain data, with the line number of each part.

Stricter than YAML: no anchors or aliases (they can hide a bomb, or what is allowed), no duplicate keys, keys are always
text (``on`` is not a boolean), only the scalars of YAML 1.2's core schema, no tags.

A value in a file may be a secret in the wrong place, so messages show a value only through ``safe_name``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

KeyPath: TypeAlias = tuple[str | int, ...]
MAX_BYTES = 4_000_000
MAX_DEPTH = 20
MAX_DIGITS = 18
QUOTED = ("'", '"', "|", ">")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NUMBER = re.compile(r"[-+]?[0-9]+", re.ASCII)
FRACTION = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
UNPRINTABLE_TEXT = "has a character that cannot be printed; take it out"
NAME_LIKE = re.compile(r"[\w.*?\[\]@!-]{1,60}")
NEEDS_QUOTES = "*&@`%!"
CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}


def safe_name(text: object) -> str:
    """The text, where it can only be a name. Anything that may be a URL, and so contain a password, is not shown."""
    return str(text) if NAME_LIKE.fullmatch(str(text)) else "(not shown)"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error or warning: ``FILE:LINE: error: what is wrong; what would be right``."""

    file: str
    line: int
    what: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {'error' if self.is_error else 'warning'}: {self.what}"


@dataclass
class Source:
    """One file as data, with its problems. ``line_of`` finds the line of a part."""

    file: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, place: KeyPath) -> int:
        """The line of ``place``, or of the closest part around it that has a line."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, line: int, what: str) -> None:
        self.problems.append(Problem(file=self.file, line=line, what=what))

    def at(self, place: KeyPath, what: str, *, is_error: bool = True) -> Problem:
        """A problem with the part at ``place``; it is not added to ``problems``."""
        return Problem(file=self.file, line=self.line_of(place), what=what, is_error=is_error)


def read_source(path: Path) -> Source:
    """Read a file. Never raises: errors are in ``problems``."""
    source = Source(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        source.error(1, f"cannot be read ({error.strerror or type(error).__name__}); it belongs into this folder")
        return source
    if len(raw) > MAX_BYTES:
        source.error(1, f"is too large; at most {MAX_BYTES} bytes are read")
        return source
    try:
        _load(source, raw.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        source.error(raw[: error.start].count(b"\n") + 1, "is not UTF-8; save it as UTF-8")
    return source


def _load(source: Source, text: str) -> None:
    if (found := UNPRINTABLE.search(text)) is not None:
        source.error(text.count("\n", 0, found.start()) + 1, UNPRINTABLE_TEXT)
        return
    try:
        node = yaml.compose(text, Loader=LOADER) if _is_plain(source, text) else None
    except yaml.MarkedYAMLError as error:
        source.error(*_syntax_error(text, error))
        return
    if node is not None:
        source.data = _data(source, node, ())
    if source.data is None and not source.problems:
        source.error(1, "is empty; see README for what belongs into it")


def _syntax_error(text: str, error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """The line of the syntax error, and a fix. The usual mistakes are tabs, and a star without quotes."""
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
    """Check all events before any data is built: no aliases, no tags, no deep nesting, one document."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if (wrong := _forbidden(event, depth, documents)) is not None:
            source.error(event.start_mark.line + 1 if event.start_mark else 1, wrong)
            return False
    return True


def _forbidden(event: yaml.Event, depth: int, documents: int) -> str | None:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return 'anchors and aliases are not used here; write it out, and a pattern in quotes: "*-prod"'
    if isinstance(event, yaml.ScalarEvent) and UNPRINTABLE.search(event.value):
        return UNPRINTABLE_TEXT  # an escape such as "\0", which PostgreSQL cannot store
    if getattr(event, "tag", None):
        return "tags (!…) are not used here; write plain text, in quotes where it begins with !"
    if depth > MAX_DEPTH:
        return f"is nested too deeply; at most {MAX_DEPTH} levels"
    return "has several documents; one to a file" if documents > 1 else None


def _data(source: Source, node: yaml.Node, place: KeyPath) -> Any:
    source.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, place)
    if isinstance(node, yaml.SequenceNode):
        return [_data(source, item, (*place, number)) for number, item in enumerate(node.value)]
    return _scalar(node)


def _mapping(source: Source, node: yaml.MappingNode, place: KeyPath) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            source.error(line, "a key is plain text; write KEY: VALUE")
            continue
        if key.value in found:
            source.error(line, f"the key {safe_name(key.value)} appears twice; keep one")
            continue
        source.lines[*place, key.value] = line
        found[key.value] = _data(source, value, (*place, key.value))
    return found


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    if getattr(node, "style", None) in QUOTED:
        return text
    if text in CONSTANTS:
        return CONSTANTS[text]
    if NUMBER.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text)
    return float(text) if FRACTION.fullmatch(text) else text
