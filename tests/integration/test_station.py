"""signet station: board after board; the boards are board.py's, esptool a real one, the terminal a pseudo-terminal."""

import contextlib
import csv
import fcntl
import functools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

from board import FLASH_BEGIN, NVS_AT, NVS_SIZE, READ_SLOW, Board
from signet_site import BIN, PATIENCE, Site, mac, run, tool_environment, wait_for
from test_board import Bench, check_nvs, content, set_bad_md5, set_mute, set_pulled, set_running, set_secure_download

FULL = os.environ.get("SIGNET_FULL") == "1"
MACS = iter(range(0x500000, 1 << 24))
SIGNET = BIN / "signet"


class Station:
    """A run, on a terminal or with pipes, and what it says. Ports are those of the boards in its folder."""

    def __init__(self, bench, folder, *args, terminal=True, columns=80, wrap=(), stdout=None,
                 **env):
        self.at, self.text, self.lock = 0, "", threading.Lock()
        command = [*wrap, SIGNET, "station", "--ports", f"{folder}/*/port", "--out", bench.out, "--results",
                   folder / "results.csv", "--key-type", "ec:p256", "--esptool", bench.esptool, "--config",
                   bench.site.dir / "client/signet.conf", *args]
        env = {**tool_environment(), "TERM": "xterm", **env}
        if terminal:
            self.primary, secondary = pty.openpty()
            fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            ends = {"stdin": secondary, "stdout": secondary, "stderr": secondary,
                    "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
        else:
            self.primary, secondary = os.pipe()
            ends = {"stdin": subprocess.DEVNULL, "stdout": stdout or secondary, "stderr": secondary}
        if "--json" in args:
            ends["stderr"] = open(folder / "stderr", "w")
        self.process = subprocess.Popen([str(c) for c in command], env=env, start_new_session=True, **ends)
        os.close(secondary)
        if "--json" in args:
            ends["stderr"].close()
            wait_for(lambda: "plug in a board" in (folder / "stderr").read_text(), "it waits")
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self.primary, 65536)
            except OSError:
                break
            if not data:
                break
            with self.lock:
                self.text += data.decode().replace("\r\n", "\n")

    def expect(self, pattern):
        """The match of the next such words."""
        def look():
            with self.lock:
                return re.compile(pattern, re.M).search(self.text, self.at)
        found = wait_for(look, lambda: f"{pattern!r} in {self.text[self.at:]!r}")
        self.at = found.end()
        return found

    def type(self, text):
        os.write(self.primary, text.encode())

    def said(self):
        with self.lock:
            return self.text

    def end(self, code=0):
        """All that it has said."""
        assert self.process.wait(PATIENCE) == code, self.said()
        self.reader.join()
        os.close(self.primary)
        return self.text

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def bench(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("station") / "site") as site:
        site.start()
        site.client()
        yield Bench(site)


@pytest.fixture
def station(bench, tmp_path):
    runs = []

    def begin(*args, **how):
        runs.append(Station(bench, tmp_path, *args, **how))
        return runs[-1]

    def clear():
        for run_ in runs:
            run_.close()
        (tmp_path / "results.csv").unlink(missing_ok=True)
    begin.clear = clear
    yield begin
    clear()


@pytest.fixture
def board(tmp_path):
    """Boards that are not plugged in yet, with MACs of their own."""
    boards = []

    def one(chip="esp32", **how):
        boards.append(Board(tmp_path / f"board{len(boards)}", chip, mac=how.pop("mac", None) or mac(next(MACS)), **how))
        return boards[-1]

    def clear():
        for made in boards:
            made.unplug()
    one.clear = clear
    yield one
    clear()


class Slow(Exception):
    """On this machine a moment was longer than it may be: that says nothing of the station."""


@contextlib.contextmanager
def moment(limit):
    began = time.monotonic()
    yield
    if time.monotonic() - began > limit:
        raise Slow


def in_moments(test):
    """A test that is begun again when one of its moments was too long."""
    @functools.wraps(test)
    def patient(station, board, **fixtures):
        for _ in range(5):
            with contextlib.suppress(Slow):
                return test(station=station, board=board, **fixtures)
            station.clear()
            board.clear()
        raise Slow
    return patient


def rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


# ---- one board after the other ----

def test_board_after_board(bench, station, board, tmp_path):
    """PASS, taken off, FAIL, the same board again goes on, and so is the day on record."""
    good, bad = board(), board("esp32c3")
    s = station()
    s.expect(r"profile device.*\nserver: https://\S+ is ready\nCtrl-C ends\nplug in a board\n")
    good.plug()
    s.expect(f"a board at {re.escape(str(good.port))}\n")
    large = s.expect(r"((?: *\x1b\[42m[^\n]*\n){5})\n").group(1)
    assert "\x1b[41m" not in large and "#" not in large
    assert max(len(re.sub(r"\x1b\[\d+m", "", line)) for line in large.splitlines()) == 44
    s.expect(f"^PASS {good.mac}: flashed and verified, serial [0-9a-f]+, [0-9.]+ s\n"
             "1 board: 1 passed, 0 failed, yield 100.0 %\ntake the board off\n")
    check_nvs(bench, good)
    assert bench.list(good) == ["verified"] and not bench.has_key(good)
    bad.bad_md5 = True
    bad.plug()
    time.sleep(1)
    assert str(bad.port) not in s.said()  # not before the other one is off
    good.unplug()
    s.expect(f"plug in a board\na board at {re.escape(str(bad.port))}\n")
    s.expect(r"(?: *\x1b\[41m[^\n]*\n){5}")
    s.expect(f"^FAIL {bad.mac}: .*is kept in.*\n2 boards: 1 passed, 1 failed, yield 50.0 %\n")
    bad.unplug()
    bad.bad_md5 = False
    s.expect("plug in a board")
    bad.plug()
    s.expect(f"^PASS {bad.mac}: ")
    bad.unplug()
    s.expect("plug in a board")
    s.type("\x03")
    text = s.end(5)
    assert re.search(r"3 boards: 2 passed, 1 failed, yield 66.7 %, median \d+\.\d s a board\n  results ", text)
    assert text.endswith(f"signet: 1 of 3 boards failed; {tmp_path}/results.csv says why\n")
    check_nvs(bench, bad)
    assert [(r["mac"], r["status"], r["error"]) for r in rows(tmp_path)] == \
        [(good.mac, "passed", ""), (bad.mac, "failed", "flash_differs"), (bad.mac, "passed", "")]
    assert rows(tmp_path)[1]["serial"] == rows(tmp_path)[2]["serial"] != ""  # with the same certificate
    assert all(r["port"] and float(r["seconds"]) > 0 and r["began"].endswith("Z") for r in rows(tmp_path))


def test_every_fault_has_its_reason(bench, station, board, tmp_path):
    """Without a terminal, as objects; each of them again goes on."""
    faults = {set_secure_download: "secure_download_mode", set_pulled: "board_gone", set_bad_md5: "flash_differs"}
    if FULL:
        faults |= {set_mute: "no_answer", set_running: "no_answer"}
    boards = [board() for _ in faults]
    boards.append(board(mac="ff:ff:ff:ff:ff:ff"))
    for b, fault in zip(boards, faults):
        b.blocks = 0
        fault(b)
    s = station("--json", "--limit", len(boards) + 1, terminal=False)
    for b, code in zip(boards, [*faults.values(), "mac_refused"]):
        b.plug()
        said = json.loads(s.expect(r"^(.*)\n").group(1))
        assert (said["result"], said["status"], said["exit"], said["error"]["code"]) == ("FAIL", "ERROR", 5, code)
        assert said["port"] == str(b.port) and said.get("mac") in (None, b.mac)
        b.unplug()
    mended = boards[1]
    assert bench.list(mended) == ["issued"] and bench.has_key(mended)
    mended.pull_at = None
    mended.plug()
    said = json.loads(s.expect(r"^(.*)\n").group(1))
    assert (said["result"], said["status"], said["mac"], said["verified"]) == ("PASS", "OK", mended.mac, True)
    *_, summary, failure = objects(s.end(5))
    assert (summary["boards"], summary["passed"], summary["failed"], summary["status"]) == \
        (len(boards) + 1, 1, len(boards), "ERROR")
    assert summary["median_seconds"] > 0 and failure["error"]["code"] == "boards_failed"
    assert [r["error"] for r in rows(tmp_path)] == [*faults.values(), "mac_refused", ""]


# ---- ports ----

def quick(board):
    """A board that fails at once: here only counts which port is worked at, and when."""
    made = board()
    made.secure_download = True
    return made


def at(b):
    return f"^a board at {re.escape(str(b.port))}\n"


@in_moments
def test_ports_that_are_there_at_the_start(station, board, tmp_path):
    other, b = quick(board).plug(), quick(board).plug()
    (tmp_path / "file").mkdir()
    (tmp_path / "file/port").touch()  # no port
    s = station("--limit", 1)
    s.expect(f"{re.escape(str(other.port))} is there already: it is left alone")
    s.expect(f"{re.escape(str(b.port))} is there already: it is left alone")
    s.expect("plug in a board")
    time.sleep(0.5)
    with moment(1):  # still the one of the start
        b.replug()
    time.sleep(1)
    b.unplug()
    time.sleep(2)
    assert "a board at" not in s.said()
    b.plug()
    s.expect(at(b))
    text = s.end(5)
    assert other.seen == [] and "file/port" not in text


def test_two_at_once(station, board):
    """One after the other, each taken off; said so."""
    one, two = quick(board), quick(board)
    s = station("--limit", 2, terminal=False)
    s.expect("plug in a board")
    one.plug()
    two.plug()
    first = s.expect(r"^a board at (\S+)").group(1)
    first, second = (one, two) if first == str(one.port) else (two, one)
    s.expect("^FAIL .*\n.*\ntake the board off; 1 other waits, one is done after the other\n")
    time.sleep(2)
    assert second.seen == []
    first.unplug()
    s.expect(at(second))
    s.end(5)


def test_one_port_under_two_names(station, board, tmp_path):
    b, alias = quick(board), tmp_path / "alias" / "port"
    alias.parent.mkdir()
    alias.symlink_to(b.port)
    s = station(terminal=False)
    s.expect("plug in a board")
    b.plug()
    s.expect(f"^a board at {re.escape(str(alias))}\n(?s:.*)^take the board off\n")
    os.kill(s.process.pid, signal.SIGTERM)
    s.end(5)


@in_moments
def test_a_port_that_goes_and_comes_back(station, board, tmp_path):
    """As a board with USB of its own, at each reset. It is no new board."""
    b, after = quick(board), quick(board)
    s = station("--limit", 2)
    s.expect("plug in a board")
    b.plug()
    s.expect("take the board off\n")
    with moment(1.2):
        b.unplug()
        time.sleep(0.7)
        b.plug()
    time.sleep(2.5)
    assert s.said().count("a board at") == 1 and s.said().count("plug in a board") == 1
    b.unplug()
    s.expect("plug in a board")
    after.plug()
    s.expect(at(after))
    s.end(5)
    assert [r["port"] for r in rows(tmp_path)] == [str(b.port), str(after.port)]


@in_moments
def test_a_port_that_is_away_when_its_board_is_done(station, board, tmp_path):
    """Its reset at the end has begun: it comes back, and is the same."""
    b = board()
    s = station(terminal=False)
    s.expect("plug in a board")
    b.pull_at = 5
    b.after(FLASH_BEGIN, lambda _: time.sleep(2))  # longer than a port may be away
    b.plug()
    s.expect(f"^FAIL {b.mac}: ")
    with moment(1.2):
        time.sleep(0.3)
        b.pull_at = None
        b.replug()
    time.sleep(2.5)
    assert s.said().count("a board at") == 1 and s.said().count("plug in a board") == 1
    os.kill(s.process.pid, signal.SIGTERM)
    s.end(5)


@in_moments
def test_a_bad_contact(station, board):
    """A port that does not stay is not begun with."""
    b = quick(board)
    s = station("--limit", 1)
    s.expect("plug in a board")
    for _ in range(4):
        with moment(0.45):
            b.plug()
            time.sleep(0.25)
            b.unplug()
        time.sleep(0.25)
    assert "a board at" not in s.said() and b.seen == []
    b.plug()
    s.expect(at(b))
    s.end(5)


@in_moments
def test_permissions_that_come_late(station, board):
    """udev sets the mode a moment after the port has appeared; when it does not, that is the reason."""
    late, never = quick(board), quick(board)
    wrap = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    s = station("--limit", 2, wrap=wrap)
    s.expect("plug in a board")
    with moment(2.5):
        with moment(0.45):
            late.plug()
            os.chmod(late.port, 0)
        time.sleep(1.5)
        assert "a board at" not in s.said()
        os.chmod(late.port, 0o600)
    s.expect("^FAIL .*secure")
    late.unplug()
    s.expect("plug in a board")
    with moment(0.45):
        never.plug()
        os.chmod(never.port, 0)
    s.expect("^FAIL a board without a name: you may not use .*dialout")
    s.end(5)


# ---- done before ----

def test_the_same_board_twice(bench, station, board, tmp_path):
    """No, nothing, taken off: it is left. Yes: a new certificate, and the older one is revoked."""
    b = board()
    s = station("--limit", 2)
    s.expect("plug in a board")
    b.plug()
    s.expect("^PASS")
    first = content(b, NVS_AT, NVS_SIZE)
    for answer in ("n\n", "\n", "yesterday\n", None) if FULL else ("n\n", None):
        b.unplug()
        s.expect("plug in a board")
        s.type("y\n")  # too early: no answer to what was not asked
        b.plug()
        s.expect(f"{b.mac} was done on 20[^ ]*Z. Do it again\\? Its older certificate is then revoked. \\[y/N\\] ")
        if answer is None:
            b.unplug()
            s.expect("no: it was taken off")
        else:
            s.type(answer)
        s.expect(f"^SKIP {b.mac}: .*left as it is\n1 board: 1 passed, 0 failed, . left as (it was|they were), yield 1")
    assert content(b, NVS_AT, NVS_SIZE) == first
    s.expect("plug in a board")
    b.plug()
    s.expect(r"\[y/N\] ")
    s.type("y\n")
    s.expect(f"^PASS {b.mac}")
    s.end()
    assert content(b, NVS_AT, NVS_SIZE) != first
    check_nvs(bench, b)
    assert states(bench, b) == [("revoked", "verified"), ("issued", "verified")]
    assert [r["status"] for r in rows(tmp_path)] == ["passed", *["skipped"] * (4 if FULL else 2), "passed"]


def states(bench, b):
    return [(r["state"], r["board"]) for r in objects(bench.site.signet("list", "--json", "--mac", b.mac).stdout)]


def test_done_before_and_nobody_to_ask(bench, station, board, tmp_path):
    """Also with the key still here, and when the folder is on another machine."""
    kept, elsewhere = board(), board()
    with kept:
        bench.flash(kept, "--keep-key")
    bench.site.signet("provision", "--mac", elsewhere.mac, "--out", tmp_path / "other", "--key-type", "ec:p256")
    s = station("--keep-key", "--limit", 2, terminal=False)
    s.expect("plug in a board")
    kept.writes.clear()
    kept.plug()
    s.expect(f"^FAIL {kept.mac}: {kept.mac} was done on .* already, and nobody is here to be asked")
    kept.unplug()
    s.expect("plug in a board")
    elsewhere.plug()
    s.expect(f"^FAIL {elsewhere.mac}: {elsewhere.mac} has a live certificate from elsewhere already")
    s.end(5)
    assert kept.writes == elsewhere.writes == []
    assert [r["error"] for r in rows(tmp_path)] == ["done_already"] * 2
    assert states(bench, kept) == [("issued", "verified")]


# ---- the end ----

def test_one_ctrl_c_ends_after_the_board(bench, station, board):
    b = board()
    s = station()
    s.expect("plug in a board")
    b.after(READ_SLOW, lambda _: s.type("\x03"))
    b.plug()
    s.expect("ends after this board; Ctrl-C once more ends at once")
    s.expect(f"^PASS {b.mac}")
    assert "take the board off" not in s.end()
    assert bench.list(b) == ["verified"]


def test_two_end_at_once(bench, station, board, tmp_path):
    """And nothing is lost."""
    b = board()
    s = station()
    s.expect("plug in a board")

    def twice(_):
        b.mute = True
        s.type("\x03")
        s.expect("ends after this board")
        s.type("\x03")
    b.after(FLASH_BEGIN, twice)
    b.plug()
    s.expect(f"^FAIL {b.mac}: interrupted; the key of {b.mac} is kept in ")
    assert "signet: interrupted\n" in s.end(130)
    assert [r["error"] for r in rows(tmp_path)] == ["interrupted"] and bench.has_key(b)
    b.mute = False
    b.replug()
    s = station("--limit", 1)
    s.expect("is there already")
    b.unplug()
    time.sleep(2)
    b.plug()
    s.expect(f"^PASS {b.mac}")
    s.end()
    assert [r["status"] for r in rows(tmp_path)] == ["failed", "passed"]
    assert states(bench, b) == [("issued", "verified")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_while_it_waits(station, number):
    s = station(terminal=False)
    s.expect("plug in a board")
    os.kill(s.process.pid, number)
    assert "0 boards: 0 passed, 0 failed\n" in s.end()


# ---- the server ----

def test_server_away_and_back(bench, station, board):
    one = board()
    s = station("--limit", 2, "--timeout", 10)
    s.expect("is ready\n.*\nplug in a board")
    bench.site.stop()
    try:
        one.plug()
        s.expect(f"^FAIL {one.mac}: cannot reach .*\n.*\nserver: .*it is asked again until")
        assert one.writes == []
        one.unplug()
        s.expect("plug in a board")
    finally:
        bench.site.start()
    s.expect("server: https://.* is ready\n")
    one.plug()
    s.expect(f"^PASS {one.mac}")
    s.end(3)
    assert bench.list(one) == ["verified"]


def test_operator_revoked(bench, station, board, tmp_path):
    """The station goes on waiting, and says how it is."""
    b = board()
    operator = bench.site.operator("station-2")
    s = station("--cert", operator.cert, "--key", operator.key)
    s.expect("is ready\n.*\nplug in a board")
    bench.site.ctl("operator", "revoke", "--name", "station-2")
    b.plug()
    s.expect(f"^FAIL {b.mac}: ")
    s.expect("^server: .* does not take .* for an operator's in force; it is asked again")
    b.unplug()
    s.expect("plug in a board")
    s.type("\x03")
    s.end(4)
    assert b.writes == [] and rows(tmp_path)[0]["status"] == "failed"


# ---- what is shown ----

@pytest.mark.parametrize("columns, rows_, width", [(80, 5, 44), (47, 5, 24), (23, 1, 4)])
def test_without_colour(station, board, columns, rows_, width):
    """As large as the terminal is wide."""
    b = board()
    s = station("--limit", 1, columns=columns, NO_COLOR="1")
    s.expect("plug in a board")
    b.secure_download = True
    b.plug()
    s.expect("^FAIL ")
    text = s.end(5)
    large = re.search(r"\n\n((?:[ #FAIL]+\n)+)", text).group(1).splitlines()
    assert len(large) == rows_ and max(map(len, large)) <= min(width, columns) and not re.search(r"\x1b\[\d+m", text)


def test_plain_lines_on_a_dumb_terminal(station, board):
    b = quick(board)
    s = station("--limit", 1, TERM="dumb")
    s.expect("plug in a board")
    b.plug()
    s.expect(at(b) + r"(?s:.*)^FAIL a board without a name: .*\n1 board: 0 passed")
    text = s.end(5)
    assert not re.search(r"\x1b\[\d+m", text) and "##" not in text


# ---- the record, and usage ----

def test_the_record_goes_on(station, board, tmp_path):
    """Behind the lines of before; half a line at the end goes; what is not ours stays."""
    b = board()
    b.secure_download = True
    for expected in (1, 2):
        s = station("--limit", 1, terminal=False)
        s.expect("plug in a board")
        b.plug()
        s.end(5)
        b.unplug()
        assert [r["status"] for r in rows(tmp_path)] == ["failed"] * expected
        with open(tmp_path / "results.csv", "a") as file:
            file.write("24:0a:c4:00:00:01,pas")
    (tmp_path / "results.csv").write_text("precious\n")
    assert "never overwritten" in station(terminal=False).end(5)
    assert (tmp_path / "results.csv").read_text() == "precious\n"


def test_one_station_a_record(station):
    s = station()
    s.expect("plug in a board")
    assert "another signet is writing" in station(terminal=False).end(5)


def test_output_that_nobody_takes_ends_it(bench, station, board, tmp_path):
    b = board()
    b.secure_download = True
    with open("/dev/full", "w") as full:
        s = station("--json", terminal=False, stdout=full)
    b.plug()
    s.end(5)
    assert len(rows(tmp_path)) == 1


@pytest.mark.parametrize("code, arguments", [(2, ["--limit", "0"]), (2, ["--limit", "x"]), (2, ["--firmware", "x"]),
                                             (5, ["--firmware", "0x10000=/nonexistent"]), (2, ["--baud", "fast"]),
                                             (5, ["--esptool", "/nonexistent"]), (2, ["--format", "raw"])])
def test_usage(station, code, arguments):
    """Said at once, not at the first board."""
    s = station(*arguments, terminal=False)
    assert s.end(code).startswith("signet: ")


def test_the_record_has_a_name(bench, tmp_path):
    process = subprocess.Popen([SIGNET, "station", "--ports", tmp_path, "--out", tmp_path / "new/devices", "--esptool",
                                bench.esptool, "--config", bench.site.dir / "client/signet.conf"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=tool_environment())
    wait_for(lambda: list((tmp_path / "new").glob("devices/station-20??-??-??.csv")) or None, "the record")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
