#!/usr/bin/env python3
"""Makes the small images in image/, from which fuzz_image.c starts; the same files each time. Written from the
formats' descriptions, not with the code under test."""
import hashlib
import pathlib
import struct
import zlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HERE = pathlib.Path(__file__).resolve().parent
KEYS = bytes(range(64))  # those that fuzz_image.c tries


def crc(data):
    return struct.pack("<I", zlib.crc32(data, 0xFFFFFFFF))


def entry(space, kind, span, chunk, key, data):
    first, rest = bytes([space, kind, span, chunk]), key.ljust(16, b"\0") + data.ljust(8, b"\xff")
    return first + crc(first + rest) + rest


def sized(space, kind, chunk, key, data):
    """A string or a chunk: the header, then the data."""
    head = struct.pack("<HH", len(data), 0xFFFF) + crc(data)
    return entry(space, kind, 1 + -(-len(data) // 32), chunk, key, head) + data + b"\xff" * (-len(data) % 32)


def page(entries, sequence=0, state=0xFFFFFFFE, keys=None):
    head = struct.pack("<IB", sequence, 0xFE) + b"\xff" * 19
    bits = 0
    for i in range(128):
        bits |= (2 if i * 32 < len(entries) else 3) << 2 * i
    if keys:
        entries = b"".join(xts(keys, sequence * 4096 + 64 + at, entries[at:at + 32])
                           for at in range(0, len(entries), 32))
    return (struct.pack("<I", state) + head + crc(head) + bits.to_bytes(32, "little") + entries).ljust(4096, b"\xff")


def xts(keys, offset, data):
    encryptor = Cipher(algorithms.AES(keys), modes.XTS(offset.to_bytes(16, "little"))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def tlv(kind, subtype, data):
    body = struct.pack("<IB3xBBH", 0xBA5EBA11, 0, kind, subtype, len(data)) + data + b"\0" * (-len(data) % 16)
    return body + crc(body)


def partition_table():
    rows = ((1, 2, 0x9000, 0x6000, b"nvs", 0), (1, 4, 0xF000, 0x1000, b"nvs_keys", 1),
            (0x3F, 6, 0x10000, 0x2000, b"esp_secure_cert", 1))
    table = b"".join(struct.pack("<2sBBLL16sL", b"\xaaP", *row) for row in rows)
    return table + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()


def seeds():
    space = entry(0, 1, 1, 0xFF, b"ns", b"\1")
    text = space + sized(1, 0x21, 0xFF, b"key", b"text\0") + entry(1, 0x14, 1, 0xFF, b"number", struct.pack("<i", -2))
    blob = sized(1, 0x42, 0, b"blob", b"b" * 40) + sized(1, 0x42, 1, b"blob", b"c") + \
        entry(1, 0x48, 1, 0xFF, b"blob", struct.pack("<IBB", 41, 2, 0))
    yield "nvs", page(text + blob)
    yield "nvs-encrypted", page(space + sized(1, 0x21, 0xFF, b"key", b"text\0"), keys=KEYS)
    entries = tlv(2, 0, b"KEY\0") + tlv(1, 0, b"x" * 16)
    yield "secure-cert", entries + tlv(9, 0, hashlib.sha256(entries).digest()) + b"\xff\xff\0\0"
    yield "secure-cert-cut", entries[:7]
    yield "partition-table", partition_table()
    yield "keys", KEYS + crc(KEYS)


for name, data in seeds():
    (HERE / "image" / name).write_bytes(data)
