"""Reads and writes OP_MSG messages."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON

OP_MSG = 2013
MAX_BYTES = 48_000_000
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    uuid_representation=bson.binary.UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


class NotAMessage(Exception):
    """The bytes are no message. The connection is closed, as by the real server."""


@dataclass(frozen=True)
class Request:
    """``streamed`` names the fields that came as document sequences: the real server leaves them out of its error texts."""

    id: int
    body: dict[str, Any]
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
        if not 16 < length <= MAX_BYTES:
            raise NotAMessage(f"a message of {length} bytes")
        data = await reader.readexactly(length - 16)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if code != OP_MSG or data[:4] != bytes(4):
        raise NotAMessage(f"operation code {code}, flags {data[:4].hex()}")
    return _request(request_id, data)


def _request(request_id: int, data: bytes) -> Request:
    body: dict[str, Any] | None = None
    sequences: dict[str, list[dict[str, Any]]] = {}
    at = 4
    while at < len(data):
        kind = data[at]
        (size,) = struct.unpack_from("<i", data, at + 1)
        section = data[at + 1 : at + 1 + size]
        if kind == 0 and body is None:
            body = decode(section)
        elif kind == 1:
            name, _, documents = section[4:].partition(b"\0")
            sequences[name.decode()] = bson.decode_all(documents, CODEC)
        else:
            raise NotAMessage(f"a section of kind {kind}")
        at += 1 + size
    if body is None:
        raise NotAMessage("no body")
    return Request(id=request_id, body=body | sequences, streamed=frozenset(sequences))


def reply(request: Request, document: dict[str, Any]) -> bytes:
    data = struct.pack("<IB", 0, 0) + encode(document)
    return struct.pack("<iiii", len(data) + 16, 0, request.id, OP_MSG) + data
