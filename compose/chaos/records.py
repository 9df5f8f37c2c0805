"""Reads and writes Weir's records, from `schemas/records/proto/weir.proto`, without Weir's code."""
import dataclasses
import struct


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """{field number: last value}; embedded messages and strings as bytes."""
    found, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at:at + size], at + size
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
            if len(value) != size:
                raise ValueError("cut short")
        else:
            raise ValueError(f"wire type {kind}")
        found[tag >> 3] = value
    return found


def encode(pairs):
    out = bytearray()

    def number(value):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)

    for field, value in pairs:
        if isinstance(value, int):
            number(field << 3)
            number(value)
        else:
            number(field << 3 | 2)
            value = value.encode() if isinstance(value, str) else value
            number(len(value))
            out.extend(value)
    return bytes(out)


@dataclasses.dataclass(frozen=True)
class Message:
    tenant: str
    channel: str
    sender: str
    id: str
    text: str


def message(data):
    f = fields(data)
    text = lambda n: f.get(n, b"").decode()
    return Message(text(2), text(3), text(4), text(5), text(6))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict is told from another of the same message by when it was judged."""
    message: Message
    partition: int
    offset: int
    action: int
    judged_at: int


def verdict(data):
    f = fields(data)
    v = fields(f[3])
    return Verdict(message(f[2]), f[4], f[5], v.get(1, 0), v.get(8, 0))


def another_verdict(data, judged_at):
    """The same record of weir.verdicts, from the same place, with another action, scores and time."""
    f = fields(data)
    v = fields(f[3])
    scores = struct.unpack(f"<{len(v[3]) // 4}f", v[3])
    changed = {1: v[1] % 4 + 1, 3: struct.pack(f"<{len(scores)}f", *(1 - score for score in scores)), 8: judged_at}
    return encode((f | {3: encode((v | changed).items())}).items())


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    stage: str
    reason: str
    topic: str
    partition: int
    offset: int


def dead_letter(data):
    f = fields(data)
    return DeadLetter(f[2].decode(), f[3].decode(), f[4].decode(), f.get(5, 0), f.get(6, 0))


def new_message(tenant, channel, id, text, received_at, schema=1, more=()):
    """A record as an ingest would write it; `more`: fields of a later version."""
    return encode([(1, schema), (2, tenant), (3, channel), (5, id), (6, text), (7, received_at), (8, received_at), *more])
