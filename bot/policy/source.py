"""YAML with line numbers: plain data, and the line on which each part of it stands.

Stricter than YAML: no anchors or aliases (they can hide a bomb, and what is allowed), no key twice, keys are
always text (``on`` is no boolean here), only the scalars of YAML 1.2's core schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Place: TypeAlias = tuple[str | int, ...]
LARGEST = 1_000_000
DEEPEST = 20
DIGITS_MAX = 18
QUOTED = ("'", '"', "|", ">")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NUMBER = re.compile(r"[-+]?[0-9]+", re.ASCII)
FRACTION = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


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
        raw = path.read_bytes()
    except OSError as error:
        source.error(1, f"cannot be read ({error.strerror or type(error).__name__}); it belongs into this folder")
        return source
    if len(raw) > LARGEST:
        source.error(1, f"{len(raw)} bytes are too many; at most {LARGEST}")
        return source
    try:
        _load(source, raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        source.error(raw[: error.start].count(b"\n") + 1, "is not UTF-8; save it as UTF-8")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        source.error(line, f"is no valid YAML ({error.problem}); indent with spaces, one key to a line")
    except yaml.YAMLError as error:
        source.error(1, f"is no valid YAML ({type(error).__name__}); only printable text is allowed")
    return source


def _load(source: Source, text: str) -> None:
    if not _is_plain(source, text):
        return
    node = yaml.compose(text, Loader=LOADER)
    if node is None:
        source.error(1, "is empty; see README for what belongs into it")
        return
    source.data = _data(source, node, ())


def _is_plain(source: Source, text: str) -> bool:
    """One pass over the events before anything is built: no aliases, no depth, one document."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            source.error(line, "anchors and aliases are not used here; write it out")
            return False
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or documents > 1:
            source.error(line, "is nested too deeply" if depth > DEEPEST else "has several documents; one to a file")
            return False
    return True


def _data(source: Source, node: yaml.Node, place: Place) -> Any:
    source.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(source, node, place)
    if isinstance(node, yaml.SequenceNode):
        return [_data(source, item, (*place, number)) for number, item in enumerate(node.value)]
    return _scalar(source, node)


def _mapping(source: Source, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            source.error(line, "a key is plain text")
            continue
        if key.value in found:
            source.error(line, f"the key {key.value} stands here twice; keep one")
            continue
        source.lines[*place, key.value] = line
        found[key.value] = _data(source, value, (*place, key.value))
    return found


def _scalar(source: Source, node: yaml.Node) -> Any:
    if node.tag.startswith("!"):
        source.error(node.start_mark.line + 1, "tags (!…) are not used here; write plain text")
        return None
    text = str(node.value)
    if getattr(node, "style", None) in QUOTED:
        return text
    if text in WORDS:
        return WORDS[text]
    if NUMBER.fullmatch(text) and len(text) <= DIGITS_MAX:
        return int(text)
    return float(text) if FRACTION.fullmatch(text) else text
