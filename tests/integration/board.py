"""An ESP32 board for tests: the ROM loader's protocol on a pseudo-terminal, a flash file behind it.

The real esptool drives it, by the ROM or by the stub that it loads (which is not run: its protocol is spoken here).
Faults can be set at any time; after() and plug() let a test change the board in the middle of something.
"""

import hashlib
import os
import pty
import select
import struct
import threading
import tty
import zlib
from dataclasses import dataclass

from signet_site import REPO, run

FLASH_SIZE = 4 << 20
SECTOR = 4096
TABLE_AT = 0x8000
BOOT_LOG = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"

FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG = range(2, 11)
SPI_SET_PARAMS, SPI_ATTACH, READ_SLOW, CHANGE_BAUD, DEFL_BEGIN, DEFL_DATA, DEFL_END, FLASH_MD5, SECURITY_INFO = \
    0x0b, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14
STUB_READ = 0xd2


@dataclass(frozen=True)
class Chip:
    magic: int
    chip_id: int  # None: it knows no GET_SECURITY_INFO
    mac_at: int  # the lower word
    spi: int
    usr2: int
    w0: int
    eui64: bool = False


CHIPS = {"esp32": Chip(0x00F01D83, None, 0x3FF5A004, 0x3FF42000, 0x24, 0x80),
         "esp32c3": Chip(0x1B31506F, 5, 0x60008844, 0x60002000, 0x20, 0x58),
         "esp32c6": Chip(0x2CE0806F, 13, 0x600B0844, 0x60003000, 0x20, 0x58, True)}


def esptool():
    """The path of a real one."""
    return run(REPO / "tests/esptool.sh").stdout.strip()


def partition_row(name, kind, subtype, offset, size, flags=0):
    return struct.pack("<2sBBLL16sL", b"\xaaP", kind, subtype, offset, size, name.encode(), flags)


def partition_table(*rows):
    table = b"".join(partition_row(*row) for row in rows)
    table += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()
    return table.ljust(0xc00, b"\xff")


# As ESP-IDF's "single factory app", and a partition for esp_secure_cert.
NVS_AT, NVS_SIZE, SECURE_CERT_AT, SECURE_CERT_SIZE = 0x9000, 0x4000, 0xd000, 0x2000
TABLE = partition_table(("nvs", 1, 2, NVS_AT, NVS_SIZE), ("esp_secure_cert", 0x3f, 6, SECURE_CERT_AT, SECURE_CERT_SIZE),
                        ("phy_init", 1, 1, 0xf000, 0x1000), ("factory", 0, 0, 0x10000, 0x100000))


def slip(packet):
    return b"\xc0" + packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class Unplugged(Exception):
    pass


class Board:
    """port is a symbolic link, as /dev/serial/by-id has them: it stays when the board is pulled and plugged in again.

    Faults: mute (no answer), running (not in boot mode: the firmware's log), bad_md5, secure_download,
    pull_at = n (pulled off at the n-th block of a write)."""

    def __init__(self, where, chip="esp32", mac="24:0a:c4:12:34:56", table=TABLE):
        self.dir, self.chip, self.mac = where, CHIPS[chip], mac
        where.mkdir(parents=True, exist_ok=True)
        self.port, self.file = where / "port", where / "flash.bin"
        self.flash = bytearray(b"\xff" * FLASH_SIZE)
        self.flash[TABLE_AT:TABLE_AT + len(table)] = table
        self.mute = self.running = self.bad_md5 = self.secure_download = False
        self.pull_at = None
        self.hooks = {}
        self.seen = []  # each operation
        self.writes = []  # (offset, length) of each FLASH_BEGIN and DEFL_BEGIN
        self.thread = None

    # ---- plugging ----

    def plug(self):
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        name = self.dir / "port.new"
        name.symlink_to(os.ttyname(self.slave))
        name.rename(self.port)
        self.stub, self.regs, self.inbox, self.blocks = False, {}, b"", 0
        self.stop_pipe = os.pipe()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def unplug(self):
        if self.thread and self.thread.is_alive():
            os.write(self.stop_pipe[1], b"x")
            self.thread.join()
        if self.thread:
            for fd in self.stop_pipe:
                os.close(fd)
        self.thread = None
        self.file.write_bytes(self.flash)

    def replug(self):
        self.unplug()
        return self.plug()

    def __enter__(self):
        return self.plug()

    def __exit__(self, *_):
        self.unplug()

    def after(self, operation, do, which=lambda payload: True):
        """do(board) once, when the next such operation (with that payload) has been answered."""
        self.hooks[operation] = (do, which)

    # ---- the wire ----

    def _serve(self):
        try:
            while True:
                self._handle(self._frame())
        except Unplugged:
            pass
        finally:
            self.port.unlink(missing_ok=True)
            os.close(self.slave)
            os.close(self.master)

    def _wait(self, event, seconds=None):
        poll = select.poll()
        poll.register(self.master, event)
        poll.register(self.stop_pipe[0], select.POLLIN)
        ready = dict(poll.poll(seconds and seconds * 1000))
        if self.stop_pipe[0] in ready:
            raise Unplugged
        return self.master in ready

    def _frame(self):
        """The next SLIP frame's content."""
        while True:
            begin = self.inbox.find(b"\xc0")
            end = self.inbox.find(b"\xc0", begin + 1) if begin >= 0 else -1
            if end > 0:
                raw, self.inbox = self.inbox[begin + 1:end], self.inbox[end + 1:]
                if raw:
                    return raw.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
                self.inbox = b"\xc0" + self.inbox  # what seemed an end was a beginning
            elif self._wait(select.POLLIN, 0.03 if self.running else None):
                self.inbox += os.read(self.master, 65536)
            elif self.running:
                self._log()

    def _log(self):
        try:
            os.write(self.master, BOOT_LOG)
        except BlockingIOError:
            pass  # nobody reads

    def _send(self, data):
        while data:
            try:
                data = data[os.write(self.master, data):]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _reply(self, op, value=0, data=b"", status=b"\0\0"):
        self._send(slip(struct.pack("<BBHI", 1, op, len(data) + len(status), value) + data +
                        status.ljust(2 if self.stub else 4, b"\0")))

    # ---- the loader ----

    def _handle(self, frame):
        if self.mute or self.running or len(frame) < 8:
            return
        _, op, length, check = struct.unpack("<BBHI", frame[:8])
        payload = frame[8:]
        if length != len(payload):
            return
        self.seen.append(op)
        allowed = (SYNC, SPI_ATTACH, SPI_SET_PARAMS, FLASH_BEGIN, FLASH_DATA, FLASH_END, CHANGE_BAUD, SECURITY_INFO)
        known = self.handlers.get(op)
        if op == SECURITY_INFO and self.chip.chip_id is None:
            known = None
        if known is None or (self.secure_download and op not in allowed):
            self._reply(0xff, status=b"\x01\x05")  # "invalid message", under no operation's number
        elif op in (FLASH_DATA, DEFL_DATA, MEM_DATA) and check != self._checksum(payload[16:]):
            self._reply(op, status=b"\x01\x07")
        else:
            known(self, op, payload)
        do, which = self.hooks.get(op, (None, None))
        if do and which(payload):
            del self.hooks[op]
            do(self)

    @staticmethod
    def _checksum(data):
        total = 0xef
        for byte in data:
            total ^= byte
        return total

    def _acknowledge(self, op, _payload):
        self._reply(op)

    def _sync(self, op, _payload):
        for _ in range(8):
            self._reply(op, 0 if self.stub else 0x20120707)

    def _security_info(self, op, _payload):
        self._reply(op, data=struct.pack("<IB7BII", 4 if self.secure_download else 0, 0, *[0] * 7, self.chip.chip_id, 0))

    def _mac_words(self):
        mac = bytes.fromhex(self.mac.replace(":", ""))
        return int.from_bytes(mac[2:], "big"), int.from_bytes(mac[:2], "big") | (0xfffe << 16 if self.chip.eui64 else 0)

    def _read_reg(self, op, payload):
        (address,) = struct.unpack("<I", payload)
        low, high = self._mac_words()
        fixed = {0x40001000: self.chip.magic, self.chip.mac_at: low, self.chip.mac_at + 4: high, 0x3FF40014: 347}
        self._reply(op, fixed.get(address, self.regs.get(address, 0)))

    def _write_reg(self, op, payload):
        address, value = struct.unpack("<II", payload[:8])
        spi = self.chip.spi
        self.regs[address] = value
        if address == spi and value & 1 << 18:
            if self.regs.get(spi + self.chip.usr2, 0) & 0xff == 0x9f:
                self.regs[spi + self.chip.w0] = 0x1640c8  # 4 MB
            self.regs[spi] = 0
        self._reply(op)

    # ---- the flash ----

    def _begin(self, op, payload):
        size, blocks, _, offset = struct.unpack("<IIII", payload[:16])
        end = -(-(offset + size) // SECTOR) * SECTOR
        self.flash[offset // SECTOR * SECTOR:end] = b"\xff" * (end - offset // SECTOR * SECTOR)
        self.at, self.limit = offset, end
        self.inflate = zlib.decompressobj() if op == DEFL_BEGIN else None
        if blocks:
            self.writes.append((offset, size))
        self._reply(op)

    def _data(self, op, payload):
        self.blocks += 1
        if self.blocks == self.pull_at:
            raise Unplugged
        data = payload[16:]
        if op == DEFL_DATA:
            data = self.inflate.decompress(data)
        data = data[:self.limit - self.at]
        old = int.from_bytes(self.flash[self.at:self.at + len(data)], "big")
        self.flash[self.at:self.at + len(data)] = (old & int.from_bytes(data, "big")).to_bytes(len(data), "big")
        self.at += len(data)
        self._reply(op)

    def _md5(self, op, payload):
        offset, size = struct.unpack("<II", payload[:8])
        digest = hashlib.md5(self.flash[offset:offset + size] + (b"?" if self.bad_md5 else b""))
        self._reply(op, data=digest.digest() if self.stub else digest.hexdigest().encode())

    def _read_slow(self, op, payload):
        offset, size = struct.unpack("<II", payload)
        self._reply(op, data=bytes(self.flash[offset:offset + size]).ljust(64, b"\0"))

    # ---- the stub ----

    def _mem_end(self, op, _payload):
        self._reply(op)
        self.stub = True
        self._send(slip(b"OHAI"))

    def _stub_read(self, op, payload):
        offset, size, block, _ = struct.unpack("<IIII", payload)
        self._reply(op)
        data = bytes(self.flash[offset:offset + size])
        for at in range(0, size, block):
            self._send(slip(data[at:at + block]))
            self._frame()  # the count of what has arrived
        self._send(slip(hashlib.md5(data).digest()))

    def _end(self, op, payload):
        self._reply(op)
        if payload[:1] == b"\0":
            self.stub = False  # "reboot": back to the ROM

    handlers = {SYNC: _sync, SECURITY_INFO: _security_info, READ_REG: _read_reg, WRITE_REG: _write_reg,
                SPI_ATTACH: _acknowledge, SPI_SET_PARAMS: _acknowledge, CHANGE_BAUD: _acknowledge,
                FLASH_BEGIN: _begin, DEFL_BEGIN: _begin, FLASH_DATA: _data, DEFL_DATA: _data, FLASH_END: _end,
                DEFL_END: _end, FLASH_MD5: _md5, READ_SLOW: _read_slow, MEM_BEGIN: _acknowledge,
                MEM_DATA: _acknowledge, MEM_END: _mem_end, STUB_READ: _stub_read}
