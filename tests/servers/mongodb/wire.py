"""Messages: OP_MSG in both directions, OP_QUERY for the first hello of older drivers."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM, MORE_TO_COME = 1, 2
LONGEST = 48_000_000
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, tz_aware=True, uuid_representation=bson.binary.UuidRepresentation.STANDARD
)


class NotAMessage(Exception):
    """The bytes are none; the connection is closed, as the real server does."""


@dataclass(frozen=True)
class Request:
    """``streamed`` names the fields that came as document sequences: the real server leaves those out of its error texts."""

    id: int
    body: dict[str, Any]
    is_query: bool = False
    wants_reply: bool = True
    streamed: frozenset[str] = field(default_factory=frozenset)


def encode(document: dict[str, Any]) -> bytes:
    return bson.encode(document, codec_options=CODEC)


def decode(data: bytes) -> dict[str, Any]:
    try:
        return bson.decode(data, codec_options=CODEC)
    except InvalidBSON as error:
        raise NotAMessage(str(error)) from None


async def read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None when the client hung up."""
    try:
        length, request_id, _, code = struct.unpack("<iiii", await reader.readexactly(16))
        if not 16 < length <= LONGEST:
            raise NotAMessage(f"a message of {length} bytes")
        data = await reader.readexactly(length - 16)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if code == OP_MSG:
        return _message(request_id, data)
    if code == OP_QUERY:
        return _query(request_id, data)
    raise NotAMessage(f"operation code {code}")


def _message(request_id: int, data: bytes) -> Request:
    (flags,) = struct.unpack_from("<I", data)
    end = len(data) - (4 if flags & CHECKSUM else 0)
    body: dict[str, Any] | None = None
    sequences: dict[str, list[dict[str, Any]]] = {}
    at = 4
    while at < end:
        kind = data[at]
        (size,) = struct.unpack_from("<i", data, at + 1)
        section = data[at + 1 : at + 1 + size]
        if kind == 0 and body is None:
            body = decode(section)
        elif kind == 1:
            name, documents = _sequence(section)
            sequences[name] = documents
        else:
            raise NotAMessage(f"a section of kind {kind}")
        at += 1 + size
    if body is None:
        raise NotAMessage("no body")
    return Request(
        id=request_id,
        body=body | sequences,
        wants_reply=not flags & MORE_TO_COME,
        streamed=frozenset(sequences),
    )


def _sequence(section: bytes) -> tuple[str, list[dict[str, Any]]]:
    end = section.index(b"\0", 4)
    documents = bson.decode_all(section[end + 1 :], CODEC)
    return section[4:end].decode(), documents


def _query(request_id: int, data: bytes) -> Request:
    end = data.index(b"\0", 4)
    place = data[4:end].decode()
    if not place.endswith(".$cmd"):
        raise NotAMessage(f"a query of {place}: removed in 5.1")
    body = decode(data[end + 9 :])
    if "$query" in body:
        body = body["$query"]
    return Request(id=request_id, body=body, is_query=True)


def reply(request: Request, document: dict[str, Any]) -> bytes:
    if request.is_query:
        head, code = struct.pack("<iqii", 8, 0, 0, 1), OP_REPLY  # flag 8: can await
    else:
        head, code = struct.pack("<IB", 0, 0), OP_MSG
    data = head + encode(document)
    return struct.pack("<iiii", len(data) + 16, 0, request.id, code) + data
