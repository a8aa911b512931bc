"""Reads flash images: NVS, esp_secure_cert, the partition table. Written from the formats' descriptions, with nothing
of src/image, so that it is a second opinion; it refuses whatever a board's firmware would not take."""

import hashlib
import struct
import zlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PAGE, ENTRY, FIRST = 4096, 32, 64
ACTIVE, FULL = 0xFFFFFFFE, 0xFFFFFFFC


def crc(data):
    return zlib.crc32(data, 0xFFFFFFFF)


def nvs_keys(page):
    assert len(page) == PAGE and set(page[68:]) == {0xFF}
    assert struct.unpack("<I", page[64:68])[0] == crc(page[:64])
    return page[:64]


def _decrypt(keys, offset, data):
    decryptor = Cipher(algorithms.AES(keys), modes.XTS(offset.to_bytes(16, "little"))).decryptor()
    return decryptor.update(data) + decryptor.finalize()


def _entries(image, number, keys):
    """The written entries of a page, in order; they stand at its beginning, and FF behind them."""
    page = image[number * PAGE:(number + 1) * PAGE]
    state, sequence, version = struct.unpack("<IIB", page[:9])
    assert state in (ACTIVE, FULL) and sequence == number and version == 0xFE and set(page[9:28]) == {0xFF}
    assert struct.unpack("<I", page[28:32])[0] == crc(page[4:28])
    bits = int.from_bytes(page[32:64], "little")
    states = [bits >> 2 * i & 3 for i in range(128)]
    used = states.count(2)
    assert states == [2] * used + [3] * (128 - used) and used <= 126
    assert set(page[FIRST + used * ENTRY:]) <= {0xFF}
    for i in range(used):
        at = FIRST + i * ENTRY
        entry = page[at:at + ENTRY]
        yield _decrypt(keys, number * PAGE + at, entry) if keys else entry


def _items(image, number, keys):
    """(namespace, type, chunk, key, data field, payload) of each item of a page"""
    entries = list(_entries(image, number, keys))
    while entries:
        head = entries.pop(0)
        space, kind, span, chunk = head[:4]
        assert struct.unpack("<I", head[4:8])[0] == crc(head[:4] + head[8:])
        key, payload = head[8:24].rstrip(b"\0").decode(), b""
        assert len(key) <= 15
        if kind in (0x21, 0x42):
            length, reserved, check = struct.unpack("<HHI", head[24:])
            assert reserved == 0xFFFF and span == 1 + -(-length // ENTRY)
            whole = b"".join(entries[:span - 1])
            payload, rest = whole[:length], whole[length:]
            assert check == crc(payload) and set(rest) <= {0xFF}
            del entries[:span - 1]
        else:
            assert span == 1
        yield space, kind, chunk, key, head[24:], payload


def nvs(image, keys=None):
    """{(namespace, key): (type, data)}; pages in use first, the last one blank."""
    pages = len(image) // PAGE
    blank = [set(image[i * PAGE:(i + 1) * PAGE]) == {0xFF} for i in range(pages)]
    used = blank.index(True)
    assert len(image) % PAGE == 0 and pages >= 3 and all(blank[used:]) and used > 0
    states = [struct.unpack("<I", image[i * PAGE:i * PAGE + 4])[0] for i in range(used)]
    assert states == [FULL] * (used - 1) + [ACTIVE]
    spaces, chunks, found = {}, {}, {}
    for number in range(used):
        for space, kind, chunk, key, field, payload in _items(image, number, keys):
            if space == 0:
                assert kind == 1 and set(field[1:]) == {0xFF}
                spaces[field[0]] = key
            elif kind == 0x42:
                chunks[space, key, chunk] = payload
            elif kind == 0x48:
                size, count, start = struct.unpack("<IBB", field[:6])
                data = b"".join(chunks.pop((space, key, start + i)) for i in range(count))
                assert len(data) == size and start == 0 and field[6:] == b"\xff\xff"
                found[spaces[space], key] = (kind, data)
            else:
                assert (spaces[space], key) not in found
                found[spaces[space], key] = (kind, payload)
    assert not chunks
    return found


def secure_cert(image):
    """{(type, subtype): data}; behind the last entry all is FF."""
    found, at = {}, 0
    while image[at:at + 4] == b"\x11\xba\x5e\xba":
        flags, kind, subtype, length = struct.unpack("<B3xBBH", image[at + 4:at + 12])
        end = at + 12 + length + -length % 16
        assert flags == 0 and not any(image[at + 12 + length:end])
        assert struct.unpack("<I", image[end:end + 4])[0] == crc(image[at:end])
        assert (kind, subtype) not in found
        data = image[at + 12:at + 12 + length]
        if kind == 9:
            assert data == hashlib.sha256(image[:at]).digest()
        found[kind, subtype] = data
        at = end + 4
    assert at < len(image) and set(image[at:]) == {0xFF}
    return found
