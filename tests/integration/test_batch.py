"""signet batch: all boards of a file, stopped in every way and gone on with; nothing issued twice, nothing lost."""

import contextlib
import csv
import fcntl
import io
import itertools
import json
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from signet_site import BIN, ISSUED, PATIENCE, Key, Operator, Site, children_of, is_alive, mac, run, serial_of, \
    tool_environment, wait_for

FULL = os.environ.get("SIGNET_FULL") == "1"
COLUMNS = ["mac", "status", "profile", "serial", "not_before", "not_after", "folder", "error", "message"]
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def server(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("batch") / "site") as site:
        site.start()
        site.client()
        yield site


class Batch:
    """A file of boards that no other test has, and its runs."""

    def __init__(self, server, directory, count=0, more=""):
        self.server, self.dir, self.out = server, directory, directory / "devices"
        self.file, self.results = directory / "boards.csv", directory / "boards.results.csv"
        self.macs = [mac(next(NUMBERS)) for _ in range(count)]
        if count:
            self.write("mac,site", *(f'{m},"hall, {i}"' for i, m in enumerate(self.macs)), *([more] if more else []))

    def write(self, *lines):
        self.file.write_text("".join(line + "\n" for line in lines))

    def command(self, *args, key_type="ec:p256"):
        return [str(a) for a in (BIN / "signet", "batch", self.file, "--out", self.out, "--key-type", key_type,
                                 "--config", self.server.dir / "client/signet.conf", *args)]

    def start(self, *args, key_type="ec:p256", **kwargs):
        kwargs = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": tool_environment(), **kwargs}
        return subprocess.Popen(self.command(*args, key_type=key_type), stdin=subprocess.DEVNULL,
                                start_new_session=True, **kwargs)

    def run(self, *args, code=0, **kwargs):
        return run(*self.command(*args, **kwargs), code=code, env=tool_environment())

    def rows(self):
        with open(self.results, newline="") as file:
            text = file.read()
        assert text.endswith("\r\n")
        first, *rows = csv.reader(io.StringIO(text), strict=True)
        assert first[:len(COLUMNS)] == COLUMNS and {len(r) for r in rows} <= {len(first)}
        return [dict(zip(first, r, strict=True)) for r in rows]

    def lines(self):
        """How many lines the results have by now."""
        return self.results.read_bytes().count(b"\n") if self.results.exists() else 0

    def folder(self, board):
        return self.out / board.replace(":", "")

    def check(self, macs=None):
        """Each board has one certificate, in the server's store, in its folder and in the results; nothing waits."""
        macs = self.macs if macs is None else macs
        rows = {row["mac"]: row for row in self.rows() if row["status"] == "issued"}
        assert len(rows) == sum(row["status"] == "issued" for row in self.rows())
        assert set(rows) == set(macs)
        keys = set()
        for board in macs:
            ((serial, state),) = self.server.query("SELECT lower(hex(serial)), state FROM certificate WHERE name = ?",
                                                   board)
            cert = x509.load_pem_x509_certificate((self.folder(board) / "device.crt").read_bytes())
            key = serialization.load_pem_private_key((self.folder(board) / "device.key").read_bytes(), None)
            assert public(cert) == public(key)
            assert state == ISSUED and serial == serial_of(cert) == rows[board]["serial"]
            assert Path(rows[board]["folder"]) == self.folder(board)
            keys.add(public(key))
        assert len(keys) == len(macs)
        assert list(self.out.glob("*.pending")) == [] and list(self.out.glob(".signet*")) == []
        return rows


def public(cert_or_key):
    return cert_or_key.public_key().public_bytes(serialization.Encoding.DER,
                                                 serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def batch(server, tmp_path):
    return lambda count=0, more="": Batch(server, tmp_path, count, more)


# ---- the right way ----

def test_results_and_labels(batch):
    b = batch(5)
    done = b.run("--jobs", 3)
    assert "5 boards" in done.stdout and str(b.results) in done.stdout
    rows = b.check()
    assert [rows[m]["site"] for m in b.macs] == [f"hall, {i}" for i in range(5)]
    assert {(r["profile"], r["error"], r["message"]) for r in rows.values()} == {("device", "", "")}
    before = b.results.read_bytes()
    again = b.run()
    assert "5 done before" in again.stdout and b.results.read_bytes() == before


def test_json(batch):
    b = batch(4)
    objects = [json.loads(line) for line in b.run("--json", "--results", b.dir / "r.csv").stdout.splitlines()]
    b.results = b.dir / "r.csv"
    rows = b.check()
    *boards, last = objects
    assert last == {"status": "OK", "boards": 4, "issued": 4, "already": 0, "results": str(b.results)}
    for o in boards:
        assert o["status"] == "OK" and rows[o["mac"]]["serial"] == o["serial"] and not o["resumed"] and not o["already"]
        assert Path(o["certificate"]).read_bytes() and o["profile"] == "device"
        assert b.macs[o["line"] - 2] == o["mac"] and o["labels"] == {"site": f"hall, {o['line'] - 2}"}


def test_what_a_file_may_have(batch):
    """A byte order mark, CRLF, quotes, blank lines, a last line without an end, MACs in every form."""
    b = batch()
    numbers = [next(NUMBERS) for _ in range(3)]
    b.macs = [mac(n) for n in numbers]
    one, two, three = b.macs
    b.file.write_bytes(("\ufeffserial no,mac,\"say \"\"hi\"\"\",profile\r\n"
                        f"1,{one.upper()},\"a \"\"b\"\", c\",device\r\n\r\n"
                        f"2,{two.replace(':', '-')},,\r\n"
                        f"\"3\",\"{three.replace(':', '')}\",Grüße ,device").encode())
    b.run()
    rows = b.check()
    assert [rows[m]['say "hi"'] for m in b.macs] == ['a "b", c', "", "Grüße "]
    assert [rows[m]["serial no"] for m in b.macs] == ["1", "2", "3"]
    b.run()  # and is found again in the results as they stand


def test_a_batch_of_rsa_keys(batch):
    b = batch(3)
    b.run(key_type="rsa:2048")
    b.check()


# ---- bad files ----

def test_bad_lines_are_all_named_first(batch):
    b = batch()
    good = mac(next(NUMBERS))
    b.file.write_bytes(b"\n".join([
        b"mac,profile,note", good.encode() + b",device,fine", b"24:0a:c4:00:00,,", b"01:00:5e:00:00:01,,",
        good.upper().encode() + b",,", b"24:0a:c4:ff:00:01,", b"24:0a:c4:ff:00:02,,,", b"24:0a:c4:ff:00:03,no way,",
        b"24:0a:c4:ff:00:04," + b"p" * 65 + b",", b"24:0a:c4:ff:00:05,,\xff", b"24:0a:c4:ff:00:06,,a\0b",
        b"24:0a:c4:ff:00:07,,\"open", b"24:0a:c4:ff:00:08,,a\"b\"", b"24:0a:c4:ff:00:09,," + b"n" * 1025,
        b"24:0a:c4:ff:00:0a,,\x1b[31m", b"24:0a:c4:ff:00:0b,,\"" + b"n" * 17000 + b"\"", b"24:0a:c4:ff:00:0c,,\xc0\xaf",
        b"24:0a:c4:ff:00:0d,,a\rb",
        "24:0a:c4:ff:00:0e,,\x9b31m".encode(), b""]))
    before = b.server.query("SELECT count(*) FROM certificate")
    done = b.run(code=2)
    named = [int(n) for n in re.findall(r"boards\.csv:(\d+): ", done.stderr)]
    assert named == list(range(3, 20)), done.stderr
    assert "17 lines" in done.stderr and "nothing was sent" in done.stderr
    for words in ("is on line 2 already", "2 columns, the first line 3", "profile's name", "UTF-8", "NUL", "quotes",
                  "longer than 1024", "control character", "longer than 16384"):
        assert words in done.stderr, words
    assert "\x1b" not in done.stderr and "\x9b" not in done.stderr
    objects = [json.loads(line) for line in b.run("--json", code=2).stdout.splitlines()]
    assert [o.get("line") for o in objects] == [*range(3, 20), None]
    assert b.server.query("SELECT count(*) FROM certificate") == before
    assert not b.out.exists() and not b.results.exists()


@pytest.mark.parametrize("text, words", [
    ("", "is empty"), ("\n", "is empty"), ("mac\n", "lists no boards"), ("MAC\n24:0a:c4:aa:00:01\n", "must be mac"),
    ("mac;note\n24:0a:c4:aa:00:01;x\n", "separated by commas"), ("24:0a:c4:aa:00:01\n", "must be mac"),
    ("mac,port\n", "lists no boards"), ("name,note\n", "must be mac or port"), ("mac,a,a\n", "twice"),
    ("mac,,b\n", "without a name"), ("mac,serial\n24:0a:c4:aa:00:01,x\n", "one of the results'"),
    ("mac,port,board\n24:0a:c4:aa:00:01,,x\n", "one of the results'"), ("mac,\"a\n", "quotes"),
    ("mac," + ",".join(f"c{i}" for i in range(64)) + "\n", "64 columns")])
def test_bad_files(batch, text, words):
    b = batch()
    b.file.write_text(text)
    done = b.run(code=2)
    assert words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not b.out.exists() and not b.results.exists()


def test_bad_command_lines(batch):
    b = batch(1)
    for jobs in ("0", "257", "two", "1x"):
        assert "--jobs" in b.run("--jobs", jobs, code=2).stderr
    b.file.unlink()
    assert "boards.csv" in b.run(code=5).stderr
    assert "which boards" in run(BIN / "signet", "batch", code=2).stderr


# ---- boards that fail beside boards that do not ----

def test_refusals_do_not_stop_the_others(batch):
    b = batch(4, more="")
    taken, foreign, held, wrong = (mac(next(NUMBERS)) for _ in range(4))
    operator = operator_of(b.server)
    assert b.server.issue(operator, Key(taken))[0] == 200
    b.folder(foreign).mkdir(parents=True)
    (b.folder(foreign) / "precious").write_text("!")
    (b.out / f"{b.folder(held).name}.pending").mkdir()
    b.write("mac,profile", *(f"{m}," for m in b.macs), f"{taken},", f"{foreign},", f"{held},", f"{wrong},nonesuch")
    with locked(b.out / f"{b.folder(held).name}.pending"):
        done = b.run("--json", code=4)
    *objects, last = (json.loads(line) for line in done.stdout.splitlines())
    failed = {o["mac"]: (o["exit"], o["error"]["code"]) for o in objects if o["status"] == "ERROR"}
    assert failed == {taken: (4, "subject_has_certificate"), foreign: (5, "already_exists"), held: (5, "busy"),
                      wrong: (4, "profile_unknown")}
    assert last["exit"] == 4 and "4 of 8 boards failed, 4 done" in last["error"]["message"]
    rows = b.rows()
    assert len(rows) == 8 and {r["mac"]: r["error"] for r in rows if r["status"] == "failed"} == \
        {m: code for m, (_, code) in failed.items()}
    assert (b.folder(foreign) / "precious").read_text() == "!"

    b.server.signet("revoke", "--mac", taken)
    shutil.rmtree(b.folder(foreign))
    b.file.write_text(b.file.read_text().replace("nonesuch", "device"))
    b.macs += [foreign, held, wrong]
    assert "8 boards" in b.run().stdout
    assert {r["mac"]: r["status"] for r in b.rows()} == {m: "issued" for m in [*b.macs, taken]}


def operator_of(server):
    config = server.dir / "client"
    return Operator("laptop", config / "operator.pem", config / "operator.key")


class locked:
    """Another process at work in a folder."""

    def __init__(self, folder):
        self.fd = os.open(folder, os.O_RDONLY)

    def __enter__(self):
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(self, *_):
        os.close(self.fd)


def test_exit_code_5_when_nobody_was_refused(batch):
    b = batch(2)
    b.folder(b.macs[0]).mkdir(parents=True)
    (b.folder(b.macs[0]) / "precious").touch()
    assert "1 of 2 boards failed" in b.run(code=5).stderr


def test_a_folder_that_is_let_go_of_is_waited_for(batch):
    """As one of a run that was killed, whose processes end a moment later."""
    b = batch(1)
    pending = b.out / f"{b.folder(b.macs[0]).name}.pending"
    pending.mkdir(parents=True)
    with locked(pending):
        process = b.start()
        wait_for(lambda: children_of(process.pid), "the makers")
        time.sleep(0.5)
    assert process.wait(PATIENCE) == 0
    b.check()


def test_complete_folders(batch):
    """Those of signet provision are taken for done, unless the server knows their certificate otherwise."""
    b = batch(4)
    good, revoked, other_key, other_mac = b.macs
    for board in b.macs:
        b.server.signet("provision", "--mac", board, "--out", b.out, "--key-type", "ec:p256")
    b.server.signet("revoke", "--mac", revoked)
    shutil.copy(b.folder(good) / "device.key", b.folder(other_key) / "device.key")
    shutil.rmtree(b.folder(other_mac))
    shutil.copytree(b.folder(good), b.folder(other_mac))
    b.run(code=5)
    rows = {row["mac"]: row for row in b.rows()}
    assert {m: (r["status"], r["error"]) for m, r in rows.items()} == {
        good: ("issued", ""), revoked: ("failed", "already_exists"), other_key: ("failed", "already_exists"),
        other_mac: ("failed", "already_exists")}
    assert "is revoked" in rows[revoked]["message"] and "another key" in rows[other_key]["message"]
    assert "another MAC" in rows[other_mac]["message"]
    b.write("mac,site,profile", f"{good},,gateway")  # that it is in the results as a device does not make it one
    b.run(code=5)
    assert "is of profile device, not gateway" in b.rows()[-1]["message"]


def test_an_operator_without_a_say_stops_the_batch(batch, tmp_path):
    b = batch(3)
    other = b.server.operator(f"viewer-{tmp_path.name}", "auditor")
    done = b.run("--cert", other.cert, "--key", other.key, code=4)
    assert "role_refused" in done.stderr and "0 of 3 boards" in done.stderr and b.rows() == []
    b.run()
    b.check()


def test_a_maker_that_always_dies_costs_one_board(batch):
    b = batch(2)
    process = b.start("--jobs", 1, key_type="rsa:4096")
    killed = []
    while len(killed) < 3:
        killed += wait_for(lambda: [p for p in children_of(process.pid) if p not in killed] or None, "a maker")
        kill(killed[-1])
    assert process.wait(PATIENCE * 5) == 5
    rows = {row["mac"]: row for row in b.rows()}
    assert rows[b.macs[0]]["error"] == "process" and "signal 9" in rows[b.macs[0]]["message"]
    assert rows[b.macs[1]]["status"] == "issued"
    b.run()
    b.check()


# ---- stopped, and gone on with ----

def test_killed_and_gone_on_with(batch):
    """kill -9 of the whole, five times at random, and of single makers in between."""
    b = batch(500 if FULL else 60)
    key_type = "rsa:2048" if FULL else "ec:p256"
    for stop in sorted(random.sample(range(len(b.macs) - 2), 5)):
        process = b.start("--jobs", 2, "--json", key_type=key_type)
        seen = 0
        while process.poll() is None and b.lines() <= stop:
            makers = children_of(process.pid)
            if b.lines() > seen and makers and random.random() < 0.1:  # more often, and boards are given up
                kill(random.choice(makers), random.choice([signal.SIGKILL, signal.SIGTERM]))
            seen = b.lines()
            time.sleep(0.001)
        time.sleep(random.random() * 0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(PATIENCE) in (0, -signal.SIGKILL)
    b.run("--jobs", 2, key_type=key_type)
    b.check()


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def test_only_the_parent_killed(batch):
    """Its makers end with it, whatever they are at, so that nothing of them is in the next run's way."""
    b = batch(3)
    process = b.start("--jobs", 2, key_type="rsa:4096")
    makers = wait_for(lambda: len(found := children_of(process.pid)) == 2 and found, "two makers")
    wait_for(lambda: b.out.exists() and len(list(b.out.iterdir())) == 2, "both are at work")
    for maker in makers:
        os.kill(maker, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    wait_for(lambda: not any(is_alive(pid) for pid in makers), "the makers end")
    b.run()
    b.check()


def open_files(pid, but):
    """What they are, sorted, but those under a folder; None while that changes."""
    with contextlib.suppress(FileNotFoundError):
        names = [os.readlink(f"/proc/{pid}/fd/{n}").split(":")[0] for n in os.listdir(f"/proc/{pid}/fd")]
        return sorted(name for name in names if not name.startswith(f"{but}/"))


def test_one_maker_told_to_end(batch):
    """That is no reason to stop, and what it was at is done by another."""
    b = batch(24)  # more than are done before another maker is looked at
    process = b.start("--jobs", 1, key_type="rsa:2048")
    (maker,) = wait_for(lambda: children_of(process.pid) or None, "a maker")
    wait_for(lambda: b.out.exists() and any(b.out.iterdir()), "work begun")
    os.kill(maker, signal.SIGTERM)
    other = wait_for(lambda: [p for p in children_of(process.pid) if p != maker] or None, "another maker")[0]
    wait_for(lambda: open_files(other, but=b.out) == ["/dev/null"] * 3 + ["socket"],
             "a maker has nothing open but its way to its parent and its board's folder")
    assert process.wait(PATIENCE) == 0
    b.check()


@pytest.mark.parametrize("number, whom", [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill)])
def test_interrupted(batch, number, whom):
    b = batch(40)
    process = b.start("--jobs", 2, stderr=subprocess.PIPE, text=True, key_type="rsa:2048")
    wait_for(lambda: b.lines() > 2, "some results")
    whom(process.pid, number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert re.search(r"interrupted; \d+ of 40 boards are done: the same command goes on", said), said
    b.run()
    b.check()


def test_results_that_were_cut_off(batch):
    """Half a line at the end, and results that are gone: the folders tell."""
    b = batch(6)
    b.run()
    whole = b.results.read_bytes()
    b.results.write_bytes(whole[:-20])
    b.run()
    assert sorted(b.results.read_bytes().splitlines()) == sorted(whole.splitlines())
    b.results.unlink()
    assert json.loads(b.run("--json").stdout.splitlines()[-1])["already"] == 6
    b.check()


def test_results_that_are_not_ours(batch):
    b = batch(1)
    for text in ("mac,note\r\n", "precious", "mac,site\r\nx,y\r\n", ",".join(COLUMNS) + "\r\n"):
        b.results.write_text(text)
        assert "never overwritten" in b.run(code=5).stderr
        assert b.results.read_bytes() == text.encode()
    assert not b.out.exists()


def test_one_at_a_time(batch):
    b = batch(3)
    process = b.start(key_type="rsa:4096")
    wait_for(b.results.exists, "results")
    wait_for(lambda: b.lines() == 1, "the results are begun")
    assert "another signet is writing" in b.run(code=5).stderr
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    b.run()
    b.check()


def test_output_that_cannot_be_written(batch):
    b = batch(5)
    with open("/dev/full", "w") as full:
        process = b.start("--json", stdout=full, stderr=subprocess.PIPE, text=True)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 5 and "cannot write to standard output" in said
    assert b.lines() == 2  # it stopped at the first board
    b.run("--json")
    b.check()


# ---- the server ----

def test_server_restarted_in_the_middle(batch):
    b = batch(16)
    process = b.start("--jobs", 2, key_type="rsa:2048")
    wait_for(lambda: b.lines() > 2, "some results")
    b.server.stop()
    time.sleep(1)
    b.server.start()
    assert process.wait(PATIENCE * 5) == 0
    b.check()


def test_server_gone(batch):
    b = batch(20)
    process = b.start("--jobs", 2, "--timeout", 1, stderr=subprocess.PIPE, text=True, key_type="rsa:2048")
    wait_for(lambda: b.lines() > 3, "some results")
    b.server.stop()
    _, said = process.communicate(timeout=PATIENCE)
    b.server.start()
    assert process.returncode == 3, said
    assert "the same command goes on" in said and not any(r["status"] == "failed" for r in b.rows())
    b.run()
    b.check()


# ---- the disk ----

@pytest.mark.parametrize("results", ["full/results.csv", "results.csv"])
def test_full_disk(batch, results):
    """64 KiB are some three folders. The whole in one mount namespace: it is gone with its last process."""
    b = batch(12)
    full, said = b.dir / "full", b.dir / "said"
    full.mkdir()
    b.out, b.results = full / "devices", b.dir / results
    command = "'" + "' '".join(b.command("--jobs", 2, "--results", b.results)) + "'"
    script = (f"mount -t tmpfs -o size=64k none {full} && {{ {command} 2>{said}; echo $? >>{said}; }} && "
              f"mount -o remount,size=16m {full} && {command} && cp -a {full} {b.dir}/kept")
    run("unshare", "-m", "sh", "-c", script, env=tool_environment())
    shutil.rmtree(full)
    shutil.move(b.dir / "kept", full)
    *_, sentence, code = said.read_text().splitlines()
    assert code == "5" and "No space left" in sentence and "of 12 boards are done" in sentence
    b.check()


def test_results_on_a_full_disk_hold_no_half_line(batch):
    b = batch(12)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
    process = b.start("--jobs", 1, preexec_fn=limit)
    assert process.wait(PATIENCE) == 5
    rows = b.rows()
    assert 0 < len(rows) < 12 and all(row["status"] == "issued" for row in rows)
    b.run()
    b.check()


# ---- what is shown ----

def on_terminal(b, *args, **env):
    """Standard error on a terminal: what it got."""
    primary, secondary = pty.openpty()
    process = b.start(*args, stderr=secondary, env={**tool_environment(), "TERM": "xterm", **env}, key_type="rsa:2048")
    os.close(secondary)
    text = b""
    while select.select([primary], [], [], PATIENCE)[0]:
        try:
            text += os.read(primary, 4096)
        except OSError:  # the other end is closed
            break
    os.close(primary)
    assert process.wait(PATIENCE) == 0
    return text.decode()


def test_bar(batch):
    b = batch(6)
    text = on_terminal(b, "--jobs", 2)
    assert re.search(r"\r\[\x1b\[32m#*\.+\x1b\[0m\] \d of 6, \d+\.\d/s, \d+:\d\d left\x1b\[K", text), text
    assert text.endswith("\r\x1b[K") and "\n" not in text


def test_bar_without_colour(batch):
    text = on_terminal(batch(4), NO_COLOR="1")
    assert re.search(r"\r\[#*\.+\] \d of 4", text) and not re.search(r"\x1b\[\d+m", text), text


def test_plain_lines(batch):
    text = on_terminal(batch(4), TERM="dumb")
    assert "\x1b" not in text and "signet: 2 of 4, " in text
    b = batch(40)
    lines = b.run().stderr.splitlines()
    assert 1 < len(lines) <= 10
    assert all(re.fullmatch(r"signet: \d+ of 40, \d+\.\d/s, \d+:\d\d left", line) for line in lines)


# ---- size ----

def test_a_hundred_thousand_lines(batch):
    """Nearly all done already: what is held are the lines. (An address sanitizer holds more.)"""
    b = batch(3)
    done = [f"02:11:{n >> 24:02x}:{n >> 16 & 255:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in range(100000)]
    b.write("mac,site", *(f"{m},hall" for m in done), *(f"{m},hall" for m in b.macs))
    b.results.write_text(",".join([*COLUMNS, "site"]) + "\r\n" +
                         "".join(f"{m},issued,device,00,,,,,,hall\r\n" for m in done), newline="")
    process = b.start("--jobs", 2)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    if "ASAN_OPTIONS" not in os.environ:
        assert usage.ru_maxrss < 128 * 1024, f"{usage.ru_maxrss} KiB"
    assert b.lines() == 100004
