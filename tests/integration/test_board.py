"""From the attached board to the verified flash; the board is board.py's, esptool a real one."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import flash_reader
from board import (CHIPS, DEFL_BEGIN, FLASH_BEGIN, FLASH_DATA, FLASH_MD5, MEM_DATA, NVS_AT, NVS_SIZE, READ_SLOW,
                   SECURE_CERT_AT, SECURE_CERT_SIZE, TABLE, TABLE_AT, Board, esptool, partition_table)
from crash_points import NAMING, SYNCING, TELLING, WRITING, points_of, strace, was_hit
from signet_site import BIN, Site, is_alive, mac, run, tool_environment, wait_for
from test_mosquitto import Broker

FULL = os.environ.get("SIGNET_FULL") == "1"
MACS = iter(range(1, 1 << 20))


def binary(size):
    """Anything but what esptool takes for Intel HEX (a colon) or for firmware (E9)."""
    return b"\1" + os.urandom(size - 1)


def drive(board, *command, code=0):
    return run(esptool(), "--port", board.port, "--before", "no_reset", "--after", "no_reset", *command, code=code)


# Debian's 4.7 has no stub for the ESP32 itself.
WAYS = [("esp32", "--no-stub"), ("esp32c3", "")]


@pytest.mark.parametrize("chip, how", WAYS + [(c, "--no-stub") for c in CHIPS] + [("esp32c6", "")] if FULL else WAYS)
def test_the_board_itself(tmp_path, chip, how):
    """What the other tests stand on: esptool reads and writes it, by the ROM and by its stub."""
    how = [how] if how else []
    data = binary(20000)
    (tmp_path / "data").write_bytes(data)
    with Board(tmp_path / "board", chip) as board:
        said = drive(board, *how, "read_mac").stdout
        assert f"MAC: {board.mac}\n" in said and ("BASE MAC" in said) == (chip == "esp32c6")
        drive(board, *how, "read_flash", hex(TABLE_AT), "0xc00", tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == TABLE
        for kind, begin in (("--no-compress", FLASH_BEGIN), ("--compress", DEFL_BEGIN)):
            board.seen.clear()
            said = drive(board, *how, "write_flash", kind, hex(NVS_AT), tmp_path / "data").stdout
            assert said.count("Hash of data verified") == 1 and begin in board.seen
            assert board.flash[NVS_AT:NVS_AT + len(data)] == data
        drive(board, *how, "read_flash", hex(NVS_AT), len(data), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        board.bad_md5 = True
        assert "MD5 of file does not match" in \
            drive(board, *how, "write_flash", hex(NVS_AT), tmp_path / "data", code=2).stdout


def rows_of(bench, board):
    return [json.loads(line) for line in bench.site.signet("list", "--json", "--mac", board.mac).stdout.splitlines()]


class Bench:
    """A laptop with an operator, and the server behind it."""

    def __init__(self, site):
        self.site, self.out = site, site.dir / "devices"
        self.esptool = esptool()

    def arguments(self, board, *more):
        return ["provision", "--json", "--port", board.port, "--flash", "--esptool", self.esptool, "--out", self.out,
                "--key-type", "ec:p256", *more]

    def flash(self, board, *more, code=0):
        """What signet provision --flash answers; with a code, its error."""
        done = self.site.signet(*self.arguments(board, *more), code=code)
        answer = json.loads(done.stdout)
        assert (answer["status"] == "OK") == (code == 0) and answer.get("exit", 0) == code
        return answer if code == 0 else answer["error"]

    def begin(self, board, *more):
        """The same as a process that goes on."""
        return subprocess.Popen([BIN / "signet", *map(str, self.arguments(board, *more)), "--config",
                                 self.site.dir / "client/signet.conf"], cwd=self.site.dir, env=tool_environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def folder(self, board):
        return self.out / board.mac.replace(":", "")

    def pending(self, board):
        return self.out / (board.mac.replace(":", "") + ".pending")

    def mark(self, board):
        return json.loads((self.folder(board) / "board.json").read_text())

    def list(self, board):
        """[what became of the board, for each of its live certificates]"""
        return [row["board"] for row in rows_of(self, board) if row["state"] == "issued"]

    def has_key(self, board):
        return (self.folder(board) / "device.key").exists()


@pytest.fixture(scope="module")
def bench(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("site")) as site:
        site.start()
        site.client()
        yield Bench(site)


@pytest.fixture
def plug(tmp_path):
    """Boards with MACs of their own; they are pulled off at the end."""
    boards = []

    def one(chip="esp32", **how):
        board = Board(tmp_path / f"board{len(boards)}", chip, mac=how.pop("mac", None) or mac(next(MACS)), **how)
        boards.append(board.plug())
        return board
    yield one
    for board in boards:
        board.unplug()


def content(board, offset, size):
    return bytes(board.flash[offset:offset + size])


def check_credentials(bench, board, key, certs, ca):
    """PEM with its NUL, as firmware wants it; of one pair; those of the folder."""
    folder = bench.folder(board)
    for text in (key, certs, ca):
        assert text.count(b"\0") == 1 and text.endswith(b"\0")
    assert certs[:-1] == (folder / "device.crt").read_bytes() + (folder / "chain.pem").read_bytes()
    assert ca[:-1] == (folder / "ca.pem").read_bytes() == bench.site.root.read_bytes()
    private = serialization.load_pem_private_key(key[:-1], None)
    cert = x509.load_pem_x509_certificate(certs[:-1])
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    assert private.public_key().public_bytes(*form) == cert.public_key().public_bytes(*form)
    assert cert.subject.rfc4514_string() == f"CN={board.mac}"


def check_nvs(bench, board, at=NVS_AT, size=NVS_SIZE, space="signet"):
    items = flash_reader.nvs(content(board, at, size))
    assert set(items) == {(space, name) for name in ("client_key", "client_cert", "ca_cert")}
    check_credentials(bench, board, *(items[space, name][1] for name in ("client_key", "client_cert", "ca_cert")))


def check_rest(board, before, *parts):
    """Outside the parts (offset, length) nothing has changed."""
    after, before = bytearray(board.flash), bytearray(before)
    for offset, length in parts:
        after[offset:offset + length] = before[offset:offset + length] = bytes(length)
    assert after == before


# ---- the whole way ----

@pytest.mark.parametrize("chip", CHIPS)
def test_one_command(bench, plug, chip):
    board = plug(chip)
    board.flash[0x10000:0x10000 + 70000] = os.urandom(70000)  # what is there, stays there
    before = bytes(board.flash)
    said = bench.flash(board)
    assert (said["mac"], said["flashed"], said["verified"], said["key_removed"]) == (board.mac, True, True, True)
    assert (said["partition"], said["offset"], said["size"]) == ("nvs", NVS_AT, NVS_SIZE) and "key" not in said
    check_rest(board, before, (NVS_AT, NVS_SIZE))
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"]
    folder = bench.folder(board)
    assert sorted(f.name for f in folder.iterdir()) == ["board.json", "ca.pem", "chain.pem", "device.crt", "device.csr"]
    assert bench.mark(board)["board"] == bench.mark(board)["server_told"] == "verified"
    bench.site.signet("verify", folder, "--offline")
    again = bench.flash(board, code=5)
    assert again["code"] == "already_flashed" and "--replace" in again["message"]
    assert bench.list(board) == ["verified"]


def test_firmware_and_secure_cert(bench, plug, tmp_path):
    """A new board: firmware with its partition table first, then what the table says."""
    board = plug(table=b"")
    before = bytes(board.flash)
    assert bench.flash(board, "--format", "secure-cert", code=5)["code"] == "no_partition_table"
    assert bench.list(board) == ["issued"] and bench.has_key(board) and board.writes == []
    app = binary(50001)  # no multiple of anything
    (tmp_path / "app.bin").write_bytes(app)
    (tmp_path / "-table.bin").write_bytes(TABLE)
    (tmp_path / "app.hex").write_text(":00000001FF\n")
    assert "Intel HEX" in bench.flash(board, "--firmware", f"0x10000={tmp_path}/app.hex", code=5)["message"]
    bench.flash(board, "--format", "secure-cert", "--firmware", f"0x10000={tmp_path}/app.bin", "--firmware",
                f"0x8000={tmp_path}/-table.bin")
    assert content(board, 0x10000, len(app)) == app and content(board, TABLE_AT, len(TABLE)) == TABLE
    check_rest(board, before, (0x10000, len(app)), (TABLE_AT, len(TABLE)), (SECURE_CERT_AT, SECURE_CERT_SIZE))
    items = flash_reader.secure_cert(content(board, SECURE_CERT_AT, SECURE_CERT_SIZE))
    by_type = {kind: data for (kind, _), data in items.items()}
    check_credentials(bench, board, by_type[2], by_type[1], by_type[0])
    assert bench.list(board) == ["verified"]


def test_the_flash_opens_a_connection_to_a_broker(bench, plug):
    """What the firmware would do: key, certificate and chain out of the flash, nothing else of ours."""
    board = plug("esp32c3")
    bench.flash(board, "--key-type", "rsa:2048")
    broker = Broker(bench.site)
    bench.site.crl()
    broker.start()
    try:
        items = {name: data[:-1] for (_, name), (_, data) in flash_reader.nvs(content(board, NVS_AT, NVS_SIZE)).items()}
        of_board = bench.site.dir / "devices" / "of-the-board"
        of_board.mkdir()
        (of_board / "device.key").write_bytes(items["client_key"])
        (of_board / "device.crt").write_bytes(items["client_cert"])
        done = run("mosquitto_pub", "-h", "127.0.0.1", "-p", broker.port, "--cafile", broker.dir / "cert.pem", "--cert",
                   of_board / "device.crt", "--key", of_board / "device.key", "-t", f"devices/{board.mac}/x", "-m", "1",
                   "-q", "1", "-V", "mqttv5", timeout=30)
        assert done.returncode == 0 and f"u'{board.mac}'" in (broker.dir / "log").read_text()
    finally:
        broker.stop()


def test_port_without_flash(bench, plug):
    board = plug()
    done = bench.site.signet("provision", "--json", "--port", board.port, "--esptool", bench.esptool, "--out", bench.out,
                             "--key-type", "ec:p256")
    assert json.loads(done.stdout)["mac"] == board.mac and bench.has_key(board)
    assert bench.list(board) == ["issued"] and board.writes == []
    bench.flash(board, "--keep-key")  # and flash what is there
    check_nvs(bench, board)
    assert bench.has_key(board) and bench.list(board) == ["verified"]


def test_names(bench, plug):
    """Namespace, partition of several, encoding."""
    table = partition_table(("nvs", 1, 2, NVS_AT, 0x3000), ("creds", 1, 2, 0x20000, 0x3000),
                            ("factory", 0, 0, 0x30000, 0x10000))
    board = plug(table=table)
    said = bench.flash(board, code=5)
    assert said["code"] == "no_partition" and "--partition" in said["message"]
    assert bench.flash(board, "--partition", "other", code=5)["code"] == "no_partition"
    before = bytes(board.flash)
    bench.flash(board, "--partition", "creds", "--namespace", "tls")
    check_nvs(bench, board, 0x20000, 0x3000, "tls")
    check_rest(board, before, (0x20000, 0x3000))
    board = plug(table=partition_table(("nvs", 1, 2, NVS_AT, 0x2000)))
    assert bench.flash(board, code=5)["code"] == "image_not_made"  # too small
    assert bench.has_key(board) and board.writes == []


def test_the_key_stays_when_asked(bench, plug):
    board = plug()
    assert bench.flash(board, "--keep-key")["key_removed"] is False
    first = content(board, NVS_AT, NVS_SIZE)
    board.flash[NVS_AT:NVS_AT + NVS_SIZE] = b"\xff" * NVS_SIZE
    assert bench.flash(board)["key_removed"] is True  # the same key once more, and now it goes
    assert content(board, NVS_AT, NVS_SIZE) == first and not bench.has_key(board)
    assert bench.list(board) == ["verified"]


def test_replace(bench, plug):
    board = plug()
    bench.flash(board)
    first = content(board, NVS_AT, NVS_SIZE)
    board.bad_md5 = True  # of the second: it stops in the middle
    assert bench.flash(board, "--replace", code=5)["code"] == "flash_differs"
    board.bad_md5 = False
    serial = bench.flash(board, "--replace")["serial"]  # goes on with it: no third certificate
    rows = rows_of(bench, board)
    assert [(r["state"], r["board"]) for r in rows] == [("revoked", "verified"), ("issued", "verified")]
    assert rows[1]["serial"] == serial and content(board, NVS_AT, NVS_SIZE) != first
    check_nvs(bench, board)


def test_renewed_before_it_was_flashed_again(bench, plug):
    """What was told of the older certificate says nothing of the newer one."""
    board = plug()
    bench.flash(board, "--keep-key")
    bench.site.signet("renew", bench.folder(board))
    assert bench.list(board) == ["verified", "issued"]
    bench.flash(board)
    check_nvs(bench, board)
    assert bench.list(board) == ["verified", "verified"] and not bench.has_key(board)
    refused = bench.site.signet("renew", bench.folder(board), code=5)
    assert "on its board alone" in refused.stderr


# ---- faults ----

def set_mute(board):
    board.mute = True


def set_running(board):
    board.running = True


def set_bad_md5(board):
    board.bad_md5 = True


def set_pulled(board):
    board.pull_at = board.blocks + 5


def set_secure_download(board):
    board.secure_download = True


def set_silent_while_writing(board):
    board.after(FLASH_BEGIN, set_mute)


def set_flaky_flash(board):
    """What is read back differs, though the hash was right."""
    def spoil(b):
        b.flash[NVS_AT + 100] ^= 1
    board.after(FLASH_MD5, spoil)


FAULTS = [(set_mute, "no_answer", "BOOT"), (set_running, "no_answer", "BOOT"),
          (set_bad_md5, "flash_differs", "--baud"), (set_pulled, "board_gone", "plug it in"),
          (set_silent_while_writing, "board_gone", "cable"), (set_secure_download, "secure_download_mode", "secure"),
          (set_flaky_flash, "flash_differs", "0x9064")]


def mend(board):
    board.mute = board.running = board.bad_md5 = board.secure_download = False
    board.pull_at = None
    board.hooks.clear()
    if not board.thread.is_alive():
        board.replug()


@pytest.mark.parametrize("fault, code, words", FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_fault(bench, plug, fault, code, words):
    board = plug()
    fault(board)
    said = bench.flash(board, code=5)
    assert said["code"] == code and words in said["message"] and "\n" not in said["message"], said
    begun = bench.folder(board).exists()
    assert bench.list(board) == (["issued"] if begun and fault is not set_flaky_flash else
                                 ["flashed"] if begun else [])
    if begun:
        assert bench.has_key(board) and f"is kept in {bench.folder(board)}" in said["message"]
        serial = bench.site.signet("show", "--json", "--mac", board.mac).stdout
    mend(board)
    bench.flash(board)
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"] and not bench.has_key(board)
    if begun:  # with the same certificate
        assert json.loads(serial)["serial"] == json.loads(
            bench.site.signet("show", "--json", "--mac", board.mac).stdout)["serial"]


def test_fault_secure_download_c3(bench, plug):
    """This one names its chip even then."""
    board = plug("esp32c3")
    board.secure_download = True
    assert bench.flash(board, code=5)["code"] == "secure_download_mode"
    assert not bench.folder(board).exists() and board.writes == []


@pytest.mark.parametrize("chip", CHIPS if FULL else ["esp32", "esp32c3"])
def test_swapped_between_reading_and_flashing(bench, plug, chip):
    """Between the reading of its partition table and the writing: the other one is not written to."""
    board = plug(chip)
    first, other = board.mac, mac(next(MACS))

    def swap(b):
        b.mac = other
    end_of_table = TABLE_AT + 0xc00 - 64
    board.after(READ_SLOW if chip == "esp32" else 0xd2, swap, lambda p: chip != "esp32" or
                int.from_bytes(p[:4], "little") == end_of_table)
    said = bench.flash(board, code=5)
    assert said["code"] == "board_swapped" and other in said["message"] and first in said["message"]
    assert "nothing was written" in said["message"] and board.writes == []
    assert MEM_DATA not in board.seen or chip != "esp32"
    board.mac = first
    assert bench.has_key(board) and bench.list(board) == ["issued"]
    bench.flash(board)
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"]


def test_swapped_after_writing(bench, plug):
    """The board that is read back is another: it is not taken for the first."""
    board = plug()
    first, other = board.mac, mac(next(MACS))
    board.after(FLASH_MD5, lambda b: setattr(b, "mac", other))
    assert bench.flash(board, code=5)["code"] == "board_swapped"
    board.mac = first
    assert bench.has_key(board) and bench.list(board) == ["flashed"]
    bench.flash(board)
    assert bench.list(board) == ["verified"]


@pytest.mark.parametrize("bad", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"])
def test_mac_that_is_no_identity(bench, plug, bad):
    board = plug(mac=bad)
    assert bench.flash(board, code=5)["code"] == "mac_refused"
    assert not bench.folder(board).exists() and not bench.pending(board).exists()


def test_another_board_than_the_one_named(bench, plug):
    board = plug()
    assert bench.flash(board, "--mac", mac(next(MACS)), code=5)["code"] == "other_board"
    assert not bench.folder(board).exists()
    bench.flash(board, "--mac", board.mac)


def test_server_away_from_the_start(bench, plug):
    board = plug()
    bench.site.stop()
    try:
        assert bench.flash(board, "--timeout", "1", code=3)["code"] == "unreachable"
        assert board.writes == []
    finally:
        bench.site.start()
    bench.flash(board)
    assert bench.list(board) == ["verified"]


# ---- interruptions ----

def stopped_at(bench, board, operation, number):
    """signet gets the signal when the board has answered that operation; its exit code."""
    process = None

    def stop(_):
        os.kill(process.pid, number)
    board.after(operation, stop)
    process = bench.begin(board)
    process.communicate(timeout=60)
    return process.returncode


STOPS = [(READ_SLOW, signal.SIGKILL), (FLASH_BEGIN, signal.SIGINT), (FLASH_DATA, signal.SIGKILL),
         (FLASH_MD5, signal.SIGINT)]


@pytest.mark.parametrize("operation, number", [(o, n) for o, _ in STOPS for n in (signal.SIGKILL, signal.SIGINT)]
                         if FULL else STOPS)
def test_stopped_anywhere(bench, plug, operation, number):
    board = plug()
    code = stopped_at(bench, board, operation, number)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    wait_for(lambda: not esptool_runs(board), "esptool has ended with it")
    assert bench.has_key(board) and bench.list(board) == ["issued"]
    bench.flash(board)
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"] and not bench.has_key(board)


def esptool_runs(board):
    for process in [p for p in os.listdir("/proc") if p.isdigit()]:
        try:
            with open(f"/proc/{process}/cmdline", "rb") as f:
                if str(board.port).encode() in f.read() and is_alive(int(process)):
                    return True
        except OSError:
            pass
    return False


def test_stopped_before_the_key_was_removed(bench, plug):
    """Verified, and killed right then: the next run removes it and flashes nothing."""
    board = plug()
    bench.flash(board, "--keep-key")
    mark = bench.folder(board) / "board.json"
    mark.write_text(mark.read_text().replace('"keep_key":\ttrue', '"keep_key":\tfalse')
                    .replace('"server_told":\t"verified"', '"server_told":\t"flashed"'))
    board.writes.clear()
    said = bench.flash(board)
    assert said["key_removed"] and board.writes == [] and not bench.has_key(board)
    assert bench.mark(board)["server_told"] == "verified"


def test_server_away_after_flashing(bench, plug):
    """Told by the next run; the key is not kept for that."""
    board = plug()
    board.after(FLASH_BEGIN, lambda _: bench.site.stop())
    try:
        said = bench.flash(board, "--timeout", "1", code=3)
        assert "is flashed and verified" in said["message"] and "the same command tells it" in said["message"]
        assert not bench.has_key(board) and bench.mark(board)["server_told"] == "nothing"
        check_nvs(bench, board)
    finally:
        bench.site.start()
    assert bench.list(board) == ["issued"]
    board.writes.clear()
    bench.flash(board)
    assert bench.list(board) == ["verified"] and board.writes == []
    assert bench.flash(board, code=5)["code"] == "already_flashed"


def test_revoked_before_it_was_flashed(bench, plug):
    """The server says so when it is told; then it is another certificate."""
    board = plug()
    bench.site.signet("provision", "--mac", board.mac, "--out", bench.out, "--key-type", "ec:p256")
    bench.site.signet("revoke", "--mac", board.mac, "--reason", "superseded")
    said = bench.flash(board, code=4)
    assert said["code"] == "result_dead" and "--replace" in said["message"]
    board.bad_md5 = True
    bench.flash(board, "--replace", code=5)
    board.bad_md5 = False
    bench.site.signet("revoke", "--mac", board.mac, "--reason", "superseded")
    assert bench.flash(board, "--replace", code=4)["code"] == "result_dead"  # it goes on, to learn that
    bench.flash(board, "--replace")
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"]


def test_the_key_is_in_one_file_and_then_in_none(bench, plug):
    board = plug("esp32c3")
    found = []

    def look(_):
        key = (bench.folder(board) / "device.key").read_bytes().splitlines()[1]
        found.append(key)
        found.extend(f for f in files_with(bench, board, key))
    board.after(FLASH_MD5, look)
    bench.flash(board)
    assert found[1:] == [bench.folder(board) / "device.key"]
    assert files_with(bench, board, found[0]) == []


def test_replaced_meanwhile(bench, plug):
    """Nobody else gets at the folder while it is flashed: neither key would be where it is believed to be."""
    board = plug()
    others = []

    def try_it(_):
        for what in (["provision", "--mac", board.mac, "--replace"], ["renew", "--mac", board.mac],
                     bench.arguments(board, "--replace", "--esptool", tool)):
            done = bench.site.signet(*what, *([] if "--out" in what else ["--out", bench.out]), code=5)
            others.append(done.stderr.strip())
    tool = fake_esptool(board, "esptool5")
    board.after(FLASH_MD5, try_it)
    bench.flash(board)
    assert len(others) == 3 and all("another signet is at work" in said for said in others), others
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"] and not bench.has_key(board) and not bench.pending(board).exists()


def test_no_core_and_no_file_in_the_place_of_a_closed_one(bench, plug):
    """Of signet and esptool, both of which have the key in memory."""
    board, limits = plug(), []

    def look(_):
        for pid in (process.pid, *children_of(process.pid)):
            limits.append(Path(f"/proc/{pid}/limits").read_text())
    board.after(FLASH_MD5, look)
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&-', "sh", BIN / "signet",
                                *map(str, bench.arguments(board)), "--config", bench.site.dir / "client/signet.conf"],
                               cwd=bench.site.dir, env=tool_environment(), stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and said == "", said
    assert len(limits) == 2 and all(re.search(r"core file size +0 +0 ", text) for text in limits), limits
    check_nvs(bench, board)


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_names_that_the_board_makes_up(bench, plug):
    """A partition's name is anything: it moves no cursor, and the mark can be read again."""
    board = plug(table=partition_table(("\033]0;x\a\033[2J\N{LATIN SMALL LETTER E WITH ACUTE}", 1, 2, NVS_AT, NVS_SIZE)))
    done = bench.site.signet(*[a for a in bench.arguments(board, "--keep-key") if a != "--json"])
    assert "\033" not in done.stdout and "]0;x" in done.stdout
    assert bench.flash(board)["partition"].startswith("?]0;x?")


def files_with(bench, board, what):
    folders = bench.site.dir, board.dir
    return [f for d in folders for f in d.rglob("*") if f.is_file() and what in f.read_bytes()]


def test_damaged_mark(bench, plug):
    board = plug()
    bench.flash(board, "--keep-key")
    mark = bench.folder(board) / "board.json"
    mark.write_text(mark.read_text()[:-20])
    assert "board.json is damaged" in bench.flash(board, code=5)["message"]
    mark.unlink()
    bench.flash(board)
    assert bench.list(board) == ["verified"]


# ---- the port, the program ----

def test_ports(bench, plug, tmp_path):
    board = plug()
    board.unplug()
    assert bench.flash(board, code=5)["code"] == "port_missing"
    board.port.write_text("")
    assert "not a serial port" in bench.flash(board, code=5)["message"]
    board.port.unlink()
    board.plug()
    os.fchmod(board.slave, 0)
    done = run("setpriv", "--bounding-set=-dac_override,-dac_read_search", BIN / "signet", *bench.arguments(board),
               "--config", bench.site.dir / "client/signet.conf", code=5, env=tool_environment())
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "port_permission" and "dialout" in error["message"]


def test_no_esptool(bench, plug):
    board = plug()
    bench.esptool = "/nonexistent/esptool"
    try:
        assert bench.flash(board, code=5)["code"] == "esptool_missing"
    finally:
        bench.esptool = esptool()
    done = run(BIN / "signet", "provision", "--json", "--port", board.port, "--flash", "--config",
               bench.site.dir / "client/signet.conf", code=5, env={**tool_environment(), "PATH": "/nonexistent"})
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "esptool_missing" and "pip install esptool" in error["message"]


# What 5.x prints, after its sources; it was not run here. It works on the flash file by itself.
FAKE = """#!/usr/bin/python3
import hashlib, os, sys
args = sys.argv[1:]
assert args[:1] == ["--port"] and args[2:6] == ["--before", "no_reset", "--after", "no_reset"], args
assert os.environ["NO_COLOR"] == "1" and os.environ["TERM"] == "dumb"
args = [a for a in args[6:] if a != "--no-stub"]
print("esptool v5.1.0")
print(f"Warning: Deprecated: Command '{args[0]}' is deprecated. Use '{args[0].replace('_', '-')}' instead.")
print("Connected to ESP32-C6 on /dev/ttyACM0:")
print("Chip type:          ESP32-C6 (QFN40) (revision v0.1)\\nCrystal frequency:  40MHz")
if "silent" not in sys.argv[0]:
    print("MAC:                24:0a:c4:ff:fe:%(end)s\\nBASE MAC:           24:0a:c4:%(end)s\\nMAC_EXT:            ff:fe")
print("\\nStub flasher running.\\n")
with open("%(flash)s", "r+b") as flash:
    if args[0] == "read_flash":
        flash.seek(int(args[1], 0))
        open(args[3], "wb").write(flash.read(int(args[2], 0)))
        print(f"Read {args[2]} bytes from {args[1]}.")
    elif args[0] == "write_flash":
        for offset, name in zip(args[1::2], args[2::2]):
            flash.seek(int(offset, 0))
            flash.write(open(name, "rb").read())
            print("Writing at 0x00009000 [==============================] 100.0%% 2411/2411 bytes... ")
            if "hashless" not in sys.argv[0]:
                print("Hash of data verified.")
    else:
        assert args == ["read_mac"], args
print("Staying in bootloader.")
"""


def fake_esptool(board, name):
    board.file.write_bytes(board.flash)
    tool = board.dir / name
    tool.write_text(FAKE % {"end": board.mac[9:], "flash": board.file})
    tool.chmod(0o755)
    return tool


def test_esptool_5(bench, plug):
    board = plug()
    bench.flash(board, "--esptool", fake_esptool(board, "esptool5"))
    board.flash[:] = board.file.read_bytes()
    check_nvs(bench, board)
    assert bench.list(board) == ["verified"] and bench.mark(board)["chip"] == "ESP32-C6 (QFN40) (revision v0.1)"


def test_esptool_that_does_not_verify(bench, plug):
    """As in secure download mode: exit code 0, and no hash."""
    board = plug()
    assert bench.flash(board, "--esptool", fake_esptool(board, "hashless"), code=5)["code"] == "flash_not_verified"
    assert bench.has_key(board) and bench.list(board) == ["issued"]


def test_esptool_that_names_no_board(bench, plug):
    board = plug()
    assert "which board" in bench.flash(board, "--esptool", fake_esptool(board, "silent"), code=5)["message"]


def test_esptool_that_hangs_without_output(bench, plug):
    """It has closed its output and stays: Ctrl-C ends both."""
    board = plug()
    tool = board.dir / "hang"
    tool.write_text(f"#!/bin/sh\nexec >&- 2>&-\necho $$ > {board.dir}/pid\nexec sleep 600\n")
    tool.chmod(0o755)
    process = bench.begin(board, "--esptool", tool)
    pid = int(wait_for(lambda: (board.dir / "pid").exists() and (board.dir / "pid").read_text() or None, "it runs"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT and not is_alive(pid)


@pytest.mark.parametrize("arguments", [["--flash"], ["--port", "x", "--firmware", "0=x"], ["--port", "x", "--keep-key"],
                                       ["--port", "x", "--flash", "--firmware", "x"],
                                       ["--port", "x", "--flash", "--firmware", "0x10=/etc/passwd"],
                                       ["--port", "x", "--flash", "--format", "raw"],
                                       ["--port", "x", "--flash", "--baud", "fast"]])
def test_usage(bench, arguments):
    bench.site.signet("provision", *arguments, code=2)


# ---- killed between any two steps ----

def killed_at(bench, command, trace, *point):
    """signet alone under strace, not esptool; did it come to that?"""
    subprocess.run([*strace(trace, *point, follow=False), BIN / "signet", *map(str, command), "--config",
                    bench.site.dir / "client/signet.conf"], cwd=bench.site.dir, stdin=subprocess.DEVNULL,
                   env={**tool_environment(), "ASAN_OPTIONS": "detect_leaks=0"},  # they cannot be looked for under strace
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
    return was_hit(trace)


def check_whole_way(bench, board, before):
    """Its last certificate is on the board, told, and the only live one; its key is nowhere else."""
    rows = rows_of(bench, board)
    assert [row["state"] for row in rows] == ["revoked"] * before + ["issued"], rows
    assert rows[-1]["board"] == "verified" and bench.mark(board)["serial"] == rows[-1]["serial"]
    board.flash[:] = board.file.read_bytes()
    check_nvs(bench, board)
    left = [path.name for path in bench.out.glob(board.mac.replace(":", "") + "*/*")]
    assert "device.key" not in left and not [name for name in left if ".tmp-" in name], left
    assert not bench.pending(board).exists()


@pytest.mark.parametrize("way", ["first", "replace"])
def test_killed_before_any_step(bench, plug, tmp_path, way):
    """Before each call that leaves something behind: the same command puts it right, with no certificate more."""
    more, trace = ["--replace"] if way == "replace" else [], tmp_path / "trace"

    def begin():
        board = plug()
        tool = fake_esptool(board, "esptool5")
        if more:
            bench.flash(board, "--esptool", tool)
        return board, bench.arguments(board, "--esptool", tool, *more)

    board, command = begin()
    assert not killed_at(bench, command, trace)
    check_whole_way(bench, board, len(more))
    points = points_of(trace, (*WRITING, *SYNCING, *NAMING, *TELLING))
    told = max(i for i, point in enumerate(points) if point[0] == "rename")  # from then on nothing is left to be done
    for point in points[:told + 1] if FULL else points[:told - 15:4] + points[told - 15:told + 1]:
        board, command = begin()
        killed_at(bench, command, trace, *point)
        wait_for(lambda: not esptool_runs(board), "esptool has ended with it")
        # a point may come later than it was counted, and then also after all is done
        states = [row["board"] for row in rows_of(bench, board)]
        if states != ["verified"] * (len(more) + 1) or bench.mark(board)["server_told"] != "verified":
            bench.site.signet(*command)
        check_whole_way(bench, board, len(more))
