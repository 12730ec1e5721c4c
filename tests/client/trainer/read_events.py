"""Reads an event file with nothing but the format's description: an independent
check of framing, checksums and messages. Prints one JSON object per record:
{"step", "wall_time", "file_version", "values": {tag: number or text}}.

Usage: read_events.py FILE
"""
import json
import struct
import sys


def crc32c(data):
    """Bit by bit: the polynomial 0x1EDC6F41, least significant bit first."""
    register = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            flip = (register ^ (byte >> bit)) & 1
            register >>= 1
            if flip:
                register ^= int(f"{0x1EDC6F41:032b}"[::-1], 2)
    return register ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        length, = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
        body, data = data[12:12 + length], data[12 + length:]
        assert struct.unpack("<I", data[:4])[0] == masked(body)
        data = data[4:]
        yield body


def varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def fields(data):
    """(number, value) of a message: integers, or bytes of any width."""
    position = 0
    while position < len(data):
        key, position = varint(data, position)
        if key & 7 == 0:
            value, position = varint(data, position)
        else:
            if key & 7 == 2:
                size, position = varint(data, position)
            else:
                size = {1: 8, 5: 4}[key & 7]
            value, position = data[position:position + size], position + size
        yield key >> 3, value


def point(data):
    tag, content = None, None
    for number, value in fields(data):
        if number == 1:
            tag = value.decode()
        elif number == 2:
            content, = struct.unpack("<f", value)
        elif number == 8:
            content = dict(fields(value))[8].decode()
    return tag, content


def event(data):
    known = dict(fields(data))
    return {
        "wall_time": struct.unpack("<d", known.get(1, bytes(8)))[0],
        "step": known.get(2, 0),
        "file_version": known.get(3, b"").decode(),
        "values": dict(point(v) for n, v in fields(known.get(5, b""))),
    }


with open(sys.argv[1], "rb") as file:
    for record in records(file.read()):
        print(json.dumps(event(record)))
