"""Whatever is damaged, at the start or while signetd runs: it refuses, or serves what it can, in one clear sentence;
nothing is made anew behind one's back; nothing acknowledged is lost; and docs/recovery.md leads back.

The whole of the tables runs with SIGNET_FULL=1."""

import ast
import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from cryptography import x509

from desk import check_books, code_of, new_key, post
from signet_site import (BIN, HELD, ISSUED, REPO, REVOKED, Key, Kit, Site, mac, run, tool_environment, wait_for)
from test_ctl import audit_passes, findings, lines_of, number_of, revoke, wait_published
from test_custody import logins, use_spy
from test_desk_rules import issue, serial_from

FULL = os.environ.get("SIGNET_FULL") == "1"
DB, LOG, WAL, SHM = "signet.db", "journal.log", "signet.db-wal", "signet.db-shm"


def slow(*values):
    """A row of a table for the full run alone."""
    return pytest.param(*values, marks=pytest.mark.long, id=values[0])


def fast(*values):
    return pytest.param(*values, id=values[0])


# ---- a state with a past, for each damage anew ----

class Past:
    """Two revoked, one on hold; an older copy, one as a kill leaves it, and a backup of before the last events."""

    def __init__(self, kit, where):
        self.site = site = Site(kit, where / "site")
        site.start()
        self.op = site.operator()
        self.keys = [Key(mac(i)) for i in range(7)]
        self.serials = [serial_from(issue(site, self.op, key)[1]) for key in self.keys[:4]]
        wait_published(site)
        site.stop()
        self.older = self.keep("older")
        site.start()
        site.ctl("backup", "--out", site.dir / "backup")
        site.backup = site.dir / "backup"
        self.serials += [serial_from(issue(site, self.op, key)[1]) for key in self.keys[4:]]
        revoke(site, self.op, self.serials[0], "keyCompromise")
        wait_published(site)
        site.kill()
        self.killed = self.keep("killed")
        site.start()
        revoke(site, self.op, self.serials[1], "keyCompromise")
        revoke(site, self.op, self.serials[2], "certificateHold")
        wait_published(site)
        audit_passes(site)
        site.stop()
        self.whole = self.keep("whole")
        self.crl = number_of(x509.load_der_x509_crl((self.whole / "crl.der").read_bytes()))

    def keep(self, name):
        copy = self.site.dir / name
        shutil.copytree(self.site.state, copy, ignore=lambda *_: ["admin.sock"])
        return copy

    def fresh(self, source=None):
        state = self.site.state
        for path in (state, self.site.dir / "state.old"):
            if path.exists():
                path.chmod(0o700)
                shutil.rmtree(path)
        shutil.copytree(source or self.whole, state)
        os.chown(state, os.geteuid(), os.getegid())
        return self.site

    def agrees(self):
        """Nothing that was ever acknowledged is missing, and the last CRL's number is above all before."""
        site = self.site
        audit_passes(site)
        rows = dict(site.query("SELECT lower(hex(serial)), state FROM certificate WHERE profile = 'device'"))
        assert rows == {s: REVOKED if i < 2 else HELD if i == 2 else ISSUED for i, s in enumerate(self.serials)}
        site.ctl("crl", "rebuild")
        crl = x509.load_der_x509_crl(site.get("/crl")[1])
        assert number_of(crl) > self.crl
        assert {f"{e.serial_number:032x}" for e in crl} >= set(self.serials[:3])


@pytest.fixture(scope="module")
def past(kit, tmp_path_factory):
    p = Past(kit, tmp_path_factory.mktemp("past"))
    with p.site:
        yield p


@pytest.fixture(autouse=True)
def nothing_left_running(request):
    yield
    if "past" in request.fixturenames and request.getfixturevalue("past").site.running():
        request.getfixturevalue("past").site.stop()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """The log of another CA's database, larger than ours."""
    where = tmp_path_factory.mktemp("foreign")
    with Site(Kit(where / "kit"), where / "site") as other:
        other.start()
        op = other.operator()
        for i in range(10):
            assert issue(other, op, Key(mac(i)))[0] == 200
        other.kill()
        return (other.state / WAL).read_bytes()


# ---- damages ----

def at(name, change):
    """change(bytes of the file) -> bytes"""
    return lambda p, s: (s / name).write_bytes(change((s / name).read_bytes()))


def gone(*names):
    def work(_, state):
        for name in names:
            shutil.rmtree(state / name) if (state / name).is_dir() else (state / name).unlink(missing_ok=True)
    return work


def instead(name, make):
    def work(past, state):
        if os.path.lexists(state / name):
            gone(name)(past, state)
        make(state / name)
    return work


def moved_to_a_link(name):
    def work(_, state):
        (state / name).rename(state / f"{name}.real")
        (state / name).symlink_to(f"{name}.real")
    return work


def flip(where):
    """where: a fraction of the file, or an offset."""
    def change(data):
        n = int(len(data) * where) if where < 1 else where
        return data[:n] + bytes([data[n] ^ 0xff]) + data[n + 1:]
    return change


def blank_page(data):
    page = len(data) // 8192 * 4096
    return data[:page] + bytes(4096) + data[page + 4096:]


def lines(change):
    return lambda data: b"".join(change(data.splitlines(keepends=True)))


def sql(text):
    def work(_, state):
        with contextlib.closing(sqlite3.connect(state / DB)) as db:
            db.executescript(text)
    return work


def killed(change):
    """As a kill leaves it, with a log that holds what the database does not; and that log is damaged."""
    def work(past, state):
        past.fresh(past.killed)
        change(state)
    return work


def edited(line):
    return line.replace(b"Z ", b"Z x", 1)


def another_database(text):
    def make(path):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript(text)
    return make


def take_older(*names):
    return lambda past, state: [shutil.copy(past.older / name, state / name) for name in names]


CORRUPT, CUT = '"A corrupt database"', '"A cut journal"'
LOST = "the database has lost events"
REFUSED = [
    # name, damage, words of the one sentence, words of the audit (None: it passes)
    fast("database: a page blank", at(DB, blank_page), [DB, "corrupt", CORRUPT], DB),
    fast("database: garbage as header", at(DB, lambda b: b"garbage!" * 2 + b[16:]), [DB, "not a database", CORRUPT], DB),
    slow("database: text", at(DB, lambda b: b"hello\n" * 1000), [DB, "not a database", CORRUPT], DB),
    fast("database: half of it", at(DB, lambda b: b[:len(b) // 2]), [DB, "malformed", CORRUPT], DB),
    fast("database: empty", at(DB, lambda b: b""), [DB, "missing or empty", LOG, CORRUPT], DB),
    slow("database: gone", gone(DB), [DB, "missing or empty", CORRUPT], DB),
    fast("database, journal, certificates gone", gone(DB, LOG, "certs"), [DB, "crl.der is there", CORRUPT], DB),
    fast("all gone but the listener", gone(DB, LOG, "certs", "crl.der"), [DB, "listener.pem is there"], DB),
    slow("database: a folder", instead(DB, os.mkdir), [DB, "not a regular file"], "not a regular file"),
    fast("database: a pipe", instead(DB, os.mkfifo), [DB, "not a regular file"], "not a regular file"),
    fast("database: a link", moved_to_a_link(DB), [DB, "not a regular file"], "not a regular file"),
    fast("database: an older one", take_older(DB), [DB, LOST, "signetctl audit", CORRUPT], "older than what was"),
    fast("database and journal: older ones", take_older(DB, LOG), [DB, "older one", CORRUPT, "this crl.der"],
         "older than what was"),
    fast("database: another program's", instead(DB, another_database("CREATE TABLE t(x)")), [DB, "meta", CORRUPT], DB),
    slow("database: another program's with a meta", instead(DB, another_database(
        "CREATE TABLE meta(name TEXT, value); INSERT INTO meta VALUES ('schema', 1)")), [DB, "meta", CORRUPT], DB),
    fast("database: of a release to come", sql("UPDATE meta SET value = 3 WHERE name = 'schema'"),
         [DB, "schema 3", "the release that made it"], "schema 3"),
    slow("database: of no release", sql("DELETE FROM meta WHERE name = 'schema'"), [DB, "no schema", CORRUPT],
         "no schema"),
    fast("database: a table gone", sql("DROP TABLE request"), [DB, "request", CORRUPT], None),
    fast("database: an index gone", sql("DROP INDEX certificate_by_name"), [DB, "certificate_by_name"], None),
    fast("database: a trigger", sql("CREATE TRIGGER t AFTER UPDATE ON certificate BEGIN SELECT 1; END"),
         [DB, "trigger"], None),
    fast("log of the database: gone", killed(lambda s: [(s / n).unlink() for n in (WAL, SHM)]), [DB, LOST, CORRUPT],
         "older than what was"),
    fast("log of the database: a byte of its header", killed(lambda s: at(WAL, flip(20))(None, s)), [DB, LOST],
         "older than what was"),
    slow("log of the database: a byte within", killed(lambda s: at(WAL, flip(0.5))(None, s)), [DB, LOST],
         "older than what was"),
    slow("log of the database: a folder", instead(WAL, os.mkdir), [WAL, "not a regular file"], WAL),
    slow("shm of the database: a folder", instead(SHM, os.mkdir), [SHM, "not a regular file"], SHM),
    fast("journal: half a line less", at(LOG, lambda b: b[:-30]), [LOG, "it was cut", CUT], "was cut"),
    slow("journal: the last line less", at(LOG, lines(lambda l: l[:-1])), [LOG, "it was cut", CUT], "was cut"),
    slow("journal: zeros at its end", at(LOG, lambda b: b[:-100] + bytes(100)), [LOG, "it was cut", CUT], "was cut"),
    fast("journal: its last line edited", at(LOG, lines(lambda l: l[:-1] + [edited(l[-1])])), [LOG, "last line", CUT],
         "journal.log line"),
    fast("journal: a line of another", at(LOG, lambda b: b + b"junk\n"), [LOG, "last line", CUT], "goes on behind"),
    fast("journal: a line too many", at(LOG, lambda b: b + b"9" + b.splitlines(True)[-1]), [LOG, "lines were added"],
         "goes on behind"),
    slow("journal: no line at all", at(LOG, lambda b: b + b"x" * 5000), [LOG, "no journal", CUT], None),
    slow("journal: empty", at(LOG, lambda b: b""), [LOG, "it was cut", CUT], "was cut"),
    fast("journal: gone", gone(LOG), [LOG, "it was cut", CUT], "No such file"),
    fast("journal and certificates: gone", gone(LOG, "certs"), [LOG, "it was cut", CUT], "No such file"),
    slow("journal: a folder", instead(LOG, os.mkdir), [LOG, "not a regular file"], "not a regular file"),
    fast("journal: a pipe", instead(LOG, os.mkfifo), [LOG, "not a regular file"], "not a regular file"),
    slow("journal: a link", moved_to_a_link(LOG), [LOG, "not a regular file"], "journal.log: "),
    slow("certificates: a file", instead("certs", lambda p: p.touch()), ["certs", "not a folder"], "Not a directory"),
    fast("chain: gone", gone("ca-chain.pem"), ["ca-chain.pem", "No such file", "backup"], "ca-chain.pem"),
    slow("chain: empty", at("ca-chain.pem", lambda b: b""), ["ca-chain.pem", "must hold"], "ca-chain.pem"),
    slow("chain: a byte", at("ca-chain.pem", flip(0.5)), ["ca-chain.pem", "must hold"], "ca-chain.pem"),
    slow("chain: a pipe", instead("ca-chain.pem", os.mkfifo), ["ca-chain.pem", "not a regular"], "ca-chain.pem"),
    fast("CA: gone", gone("intermediate.pem"), ["intermediate.pem", "No such file", "backup"], "intermediate.pem"),
    slow("CA: empty", at("intermediate.pem", lambda b: b""), ["intermediate.pem", "no certificate"], "intermediate.pem"),
    slow("CA: a byte", at("intermediate.pem", flip(0.5)), ["intermediate.pem", "no certificate"], "intermediate.pem"),
    slow("CA: a pipe", instead("intermediate.pem", os.mkfifo), ["intermediate.pem", "not a regular"], "intermediate"),
    slow("lock: a folder", instead("lock", os.mkdir), ["/lock", "Is a directory", "moved aside"], None),
    slow("lock: a link", instead("lock", lambda p: p.symlink_to("/dev/null")), ["/lock", "moved aside"], None),
    fast("refused PIN: a link to nowhere", instead("pin-refused", lambda p: p.symlink_to("nowhere")),
         ["pin-refused stands", "signetctl pin retry"], None),
    slow("refused PIN: a folder", instead("pin-refused", os.mkdir), ["pin-refused stands", "signetctl pin retry"], None),
    fast("mode: the folder", lambda p, s: s.chmod(0o770), ["state", "by others", "chmod go-w"], None),
    fast("mode: the database", lambda p, s: (s / DB).chmod(0o666), [DB, "by others", "chmod go-w"], None),
    slow("mode: the journal", lambda p, s: (s / LOG).chmod(0o664), [LOG, "by others", "chmod go-w"], None),
    slow("mode: the chain", lambda p, s: (s / "ca-chain.pem").chmod(0o666), ["ca-chain.pem", "chmod go-w"], None),
    slow("owner: the folder", lambda p, s: os.chown(s, 12345, -1), ["state", "user 12345", "chown"], None),
    fast("owner: the database", lambda p, s: os.chown(s / DB, 12345, -1), [DB, "user 12345", "chown"], None),
    slow("owner: the journal", lambda p, s: os.chown(s / LOG, 12345, -1), [LOG, "user 12345", "chown"], None),
]


def tree(folder):
    """Everything that can be seen of each path, links as links."""
    def seen(path):
        st = path.lstat()
        is_file = path.is_file() and not path.is_symlink()
        return st.st_mode, st.st_uid, hashlib.sha256(path.read_bytes()).hexdigest() if is_file else None
    return {str(p.relative_to(folder)): seen(p) for p in sorted(folder.rglob("*"))}


def unchanged(before, state):
    """Of what SQLite may make to read a log, -shm holds nothing of its own; an empty log is none."""
    after = tree(state)
    odd = {k for k in before | after if before.get(k) != after.get(k)} - {SHM}
    empty = hashlib.sha256(b"").hexdigest()
    return odd == set() or (odd == {WAL} and WAL not in before and after[WAL][2] == empty)


def errors(said):
    return [line for line in said.splitlines() if "error: " in line]


def ctl(site, *args):
    return run(BIN / "signetctl", "--config", site.conf, *args, code=None, env=tool_environment(), timeout=20)


def refused(site, words):
    """It ends at once, with one sentence, and leaves all as it was."""
    before = tree(site.state)
    code, said = site.run_to_end()
    sentence, *last = errors(said)
    assert code == 1 and all(word in sentence for word in words), said
    assert [line.split("error: ")[1] for line in last] in ([], ["signetd does not start; see above, and docs/recovery.md"])
    assert unchanged(before, site.state), said
    status = ctl(site, "status")
    assert status.returncode == 3 and status.stdout.startswith("NOT READY: ") and "next: " in status.stdout


@pytest.mark.parametrize("name, damage, words, audit", REFUSED)
def test_refused(past, name, damage, words, audit):
    site = past.fresh()
    damage(past, site.state)
    refused(site, words)
    done = ctl(site, "audit")
    said = done.stdout + done.stderr
    assert (done.returncode in (5, 6) and audit in said) if audit else done.returncode == 0, said


def test_log_of_another_database(past, foreign):
    """SQLite would carry it into the database; until it is asked to, the database is still the old one."""
    site = past.fresh()
    (site.state / WAL).write_bytes(foreign)
    refused(site, [LOG, "docs/recovery.md"])
    (site.state / WAL).unlink()
    (site.state / SHM).unlink()
    site.start()
    past.agrees()


# ---- damages that do not stop it ----

def no_listener_but_one_that_works(past):
    assert issue(past.site, past.op, past.keys[3])[0] == 200


def cert_files(past):
    assert findings(past.site) == []


def nothing(past):
    pass


PROJECTED = [
    # name, damage, words of the log, what else must be so
    fast("CRL: gone", gone("crl.der"), ["crl.der is not CRL", "a new one is made"], nothing),
    slow("CRL: empty", at("crl.der", lambda b: b""), ["crl.der is not CRL"], nothing),
    slow("CRL: a byte", at("crl.der", flip(0.5)), ["crl.der is not CRL"], nothing),
    fast("CRL: an older one", take_older("crl.der"), ["crl.der is not CRL"], nothing),
    fast("CRL: a pipe", instead("crl.der", os.mkfifo), ["crl.der is not CRL"], nothing),
    slow("CRL: a link", moved_to_a_link("crl.der"), ["crl.der is not CRL"], nothing),
    fast("certificates: gone", gone("certs"), ["certs is missing", "written anew from the store"], cert_files),
    fast("listener: gone", gone("listener.pem"), ["listener.pem: No such file", "a new one is made"],
         no_listener_but_one_that_works),
    slow("listener: a byte", at("listener.pem", flip(0.3)), ["listener.pem", "a new one is made"],
         no_listener_but_one_that_works),
    slow("listener: a pipe", instead("listener.pem", os.mkfifo), ["listener.pem: not a regular"],
         no_listener_but_one_that_works),
    slow("listener's key: empty", at("listener-key.pem", lambda b: b""), ["listener-key.pem", "a new one is made"],
         no_listener_but_one_that_works),
    fast("listener's key: others read it", lambda p, s: (s / "listener-key.pem").chmod(0o644),
         ["others can read listener-key.pem", "a new one is made"], no_listener_but_one_that_works),
    fast("journal: half a line more", at(LOG, lambda b: b + b"99 2026-11-"), ["11 bytes", "cut off"], nothing),
    slow("journal: zeros more", at(LOG, lambda b: b + bytes(100)), ["100 bytes", "cut off"], nothing),
    slow("log of the database: garbage", instead(WAL, lambda p: p.write_bytes(os.urandom(20000))), [], nothing),
    slow("shm of the database: garbage", instead(SHM, lambda p: p.write_bytes(os.urandom(32768))), [], nothing),
    slow("lock: gone", gone("lock"), [], nothing),
]


@pytest.mark.parametrize("name, damage, words, check", PROJECTED)
def test_made_again_from_the_store(past, name, damage, words, check):
    """What the store can say anew is written anew, and the log tells it; a CRL with a higher number."""
    site = past.fresh()
    damage(past, site.state)
    before = len(site.log())
    site.start()
    assert all(word in site.log()[before:] for word in words), site.log()[before:]
    wait_for(lambda: site.get("/crl")[0] == 200, "a CRL")
    check(past)
    past.agrees()
    assert (site.state / "listener-key.pem").stat().st_mode & 0o777 == 0o600
    shm = site.state / SHM
    site.stop()
    assert not shm.exists() or not (site.state / WAL).exists()


def test_what_the_audit_alone_sees(past):
    """Within the journal, and in the files, nothing stops signetd: the audit tells of each."""
    site = past.fresh()
    at(LOG, lines(lambda l: l[:4] + [edited(l[4])] + l[5:]))(past, site.state)
    files = sorted((site.state / "certs").rglob("*.pem"))
    files[0].unlink()
    files[1].write_bytes(b"")
    site.start()
    found = [text for _, text in findings(site)]
    assert len(found) == 3 and "journal.log line 5" in found[0], found
    for file in files[:2]:
        assert any(str(file) in text for text in found)
    assert issue(site, past.op, past.keys[3])[0] == 200


def test_root_crl(past):
    """What the root did not sign is not served, and takes nothing else with it."""
    site = past.fresh()
    good = (site.state / "root-crl.der").read_bytes()
    for bad in (b"", flip(0.5)(good), good[:-1], (site.state / "crl.der").read_bytes()):
        (site.state / "root-crl.der").write_bytes(bad)
        before = len(site.log())
        site.start()
        assert "root-crl.der: the root did not sign it; /root-crl is not served" in site.log()[before:]
        assert site.get("/root-crl")[0] == 404 and site.get("/crl")[0] == site.get("/root.cer")[0] == 200
        site.stop()


def test_listener_that_cannot_be_saved(past):
    """It is used all the same, and no further one is issued for each try to save it."""
    site = past.fresh()
    instead("listener.pem", os.mkdir)(past, site.state)
    site.start()
    count = "SELECT count(*) FROM certificate WHERE profile = 'server'"
    before = site.query(count)
    assert issue(site, past.op, past.keys[3])[0] == 200
    wait_for(lambda: "not saved" in ctl(site, "status").stdout, "status tells it")
    said = lines_of(ctl(site, "--json", "status").stdout)[0]
    assert said["ready"] and "listener.pem" in said["problem"] and '"A full or' in said["notices"][0]["next"]
    if FULL:
        time.sleep(12)
    assert site.query(count) == before
    (site.state / "listener.pem").rmdir()
    wait_for((site.state / "listener.pem").is_file, "it is saved")
    wait_for(lambda: lines_of(ctl(site, "--json", "status").stdout)[0]["problem"] == "", "status has nothing more")


# ---- what is outside of the state ----

ELSEWHERE = [
    fast("PIN: gone", lambda s: s.pin_file.unlink(), ["/pin", "No such file"]),
    fast("PIN: empty", lambda s: s.pin_file.write_text(""), ["/pin", "empty"]),
    fast("PIN: others read it", lambda s: s.pin_file.chmod(0o644), ["/pin", "lets others read it", "chmod 600"]),
    slow("PIN: another's", lambda s: os.chown(s.pin_file, 12345, -1), ["/pin", "owned by user 12345"]),
    slow("PIN: a folder", lambda s: (s.pin_file.unlink(), s.pin_file.mkdir()), ["/pin", "not a regular file"]),
    fast("configuration: gone", lambda s: s.conf.unlink(), ["signet.conf", "No such file"]),
    fast("configuration: empty", lambda s: s.conf.write_text(""), ["signet.conf", "state"]),
    slow("configuration: a folder", lambda s: (s.conf.unlink(), s.conf.mkdir()), ["signet.conf", "not a regular file"]),
    slow("module: gone", lambda s: s.set("token_module", s.dir / "nowhere.so"), ["nowhere.so", "give the path"]),
    fast("module: empty", lambda s: ((s.dir / "empty.so").touch(), s.set("token_module", s.dir / "empty.so")),
         ["empty.so"]),
    slow("state: gone", lambda s: shutil.rmtree(s.state), ["state", "No such file", "intermediate.sh --install"]),
    slow("state: a file", lambda s: (shutil.rmtree(s.state), s.state.touch()), ["/lock", "Not a directory"]),
]


@pytest.mark.parametrize("name, damage, words", ELSEWHERE)
def test_elsewhere(site, name, damage, words):
    damage(site)
    if "module: empty" in name:  # as if the token were away: it may come back
        site.start(ready=False)
        site.wait_ready(503)
        wait_for(lambda: "NOT READY: no signer is ready: " in ctl(site, "status").stdout, "status tells it")
        return
    code, said = site.run_to_end()
    assert code == 1 and all(word in errors(said)[0] for word in words), said
    assert not (site.state / DB).exists() and not (site.state / LOG).exists()


# ---- the ways back, as docs/recovery.md has them ----

def commands(section):
    """The indented lines of a section, \\ and # taken care of."""
    text = (REPO / "docs/recovery.md").read_text()
    body = re.split(r"^## ", text.split(f"\n## {section}\n", 1)[1], flags=re.M)[0]
    return [shlex.split(line, comments=True) for line in re.findall(r"^(?: {4}| {7})(\S.*)$", body, re.M)]


def follow(site, section):
    """Does what the section says, with this site's folders for those of the page; imports need not take all."""
    did = []
    for words in commands(section):
        words = [w.replace("/var/lib/signet", str(site.state)).replace("/backup/…", str(site.backup))
                 .replace("/backup/mend", str(site.dir / "mend")) for w in words]
        did.append(words[0])
        if words[:2] == ["systemctl", "stop"]:
            if site.running():
                site.stop()
        elif words[:2] == ["systemctl", "start"]:
            site.start()
        elif words[0] == "signetctl":
            site.ctl(*words[1:], code=None if "import" in words else 0)
        elif words[0] == "install":
            run(*[w for i, w in enumerate(words) if not {"-o", "-g"} & {w, words[i - 1]}])
        else:
            assert words[0] == "mv", words
            run(*words)
    assert did
    shutil.rmtree(site.dir / "mend", ignore_errors=True)


BACK = [
    fast("a page blank", at(DB, blank_page), "A corrupt database"),
    slow("the database gone", gone(DB), "A corrupt database"),
    fast("an older database with its journal", take_older(DB, LOG), "A corrupt database"),
    slow("the database alone left", gone(LOG, "certs"), "A cut journal"),
    fast("a journal cut", at(LOG, lines(lambda l: l[:-3])), "A cut journal"),
    slow("a journal edited", at(LOG, lines(lambda l: l[:4] + [edited(l[4])] + l[5:])), "A cut journal"),
    fast("certificate files changed", lambda p, s: [f.write_bytes(b"") for f in (s / "certs").rglob("*.pem")],
         "Missing files"),
]


@pytest.mark.parametrize("name, damage, section", BACK)
def test_way_back(past, name, damage, section):
    site = past.fresh()
    damage(past, site.state)
    follow(site, section)
    past.agrees()
    assert issue(site, past.op, Key(mac(1 << 20)))[0] == 200


# ---- faults of the disk, by system call ----

class Fault:
    """In the block, calls of one process (and what it starts) on these files fail."""

    def __init__(self, site, role, files, inject):
        pid = site.process.pid if role == "supervisor" else site.roles()[role][0]
        paths = [a for f in files for a in ("-P", site.state / f)]
        self.command = ["strace", "-f", "-o", "/dev/null", *paths, "-e", "trace=" + inject.split(":")[0], "-e",
                        "inject=" + inject, "-p", str(pid)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        said = self.process.stderr.readline()
        assert "attached" in said, said
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def live(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("live") / "site") as site:
        site.start()
        site.op, site.got = site.operator(), []
        site.crl()
        yield site


REFUSES, GOES_ON, ENDS = "refuses", "goes on", "ends"
FAULTS = [
    # name, role, files, what fails, what becomes of a request, words of the status
    fast("log full", "authority", [WAL], "pwrite64:error=ENOSPC", REFUSES, "disk is full"),
    slow("log EIO", "authority", [WAL], "pwrite64:error=EIO", REFUSES, "disk I/O error"),
    slow("log read-only", "authority", [WAL], "pwrite64:error=EROFS", REFUSES, "the database: "),
    fast("log not synced", "authority", [WAL], "fdatasync:error=EIO:when=1", ENDS, None),
    fast("journal full", "authority", [LOG], "write:error=ENOSPC", GOES_ON, "journal.log: cannot write: No space"),
    slow("journal EIO", "authority", [LOG], "write:error=EIO", GOES_ON, "journal.log: cannot write"),
    fast("journal not synced", "authority", [LOG], "fdatasync:error=EIO:when=1", ENDS, None),
    fast("certificates not opened", "authority", [], "openat:error=ENOSPC", GOES_ON, "certs: cannot make a file"),
    slow("certificates not synced", "authority", [], "fsync:error=EIO:when=1", ENDS, None),
    fast("CRL not renamed", "supervisor", [], "rename:error=ENOSPC", GOES_ON, "crl.der: No space"),
    slow("CRL not synced", "supervisor", ["crl.der.tmp"], "fsync:error=EIO", GOES_ON, "crl.der: Input/output"),
    slow("CRL not written", "supervisor", ["crl.der.tmp", "crl.tbs.tmp"], "write:error=ENOSPC", GOES_ON, "the CRL could"),
    slow("CRL not opened", "supervisor", ["crl.der.tmp", "crl.tbs.tmp"], "openat:error=EROFS", GOES_ON, "Read-only"),
]


def ask(work):
    """None: it ended meanwhile, and nothing is known."""
    try:
        return work()
    except (OSError, AttributeError):
        return None


@pytest.mark.parametrize("name, role, files, inject, becomes, words", FAULTS)
def test_disk_fault(live, name, role, files, inject, becomes, words):
    site, key, other = live, new_key(), new_key()
    status, pem = issue(site, site.op, key)
    assert status == 200
    site.got.append(pem)
    old, before = site.roles()["authority"], len(site.log())
    with Fault(site, role, files, inject):
        answer = ask(lambda: issue(site, site.op, other))
        revoked = ask(lambda: code_of(post(site, site.op, {"operation": "revoke_cert", "serial": serial_from(pem)})))
        if becomes == REFUSES:
            assert answer == (503, "storage_unavailable") and revoked == (503, "storage_unavailable")
            assert site.get("/readyz")[0] == 503 and site.get("/healthz")[0] == site.get("/crl")[0] == 200
            assert post(site, site.op, {"operation": "get_cert", "serial": serial_from(pem)}).json["state"] == "issued"
        elif becomes == GOES_ON:
            assert answer[0] == 200 and revoked == (200, "OK")
            assert site.get("/readyz")[0] == 200
        if words:
            wait_for(lambda: words in ctl(site, "status").stdout, lambda: ctl(site, "status").stdout)
            assert "next: docs/recovery.md, \"A full or failing disk\"" in ctl(site, "status").stdout
        else:
            wait_for(lambda: site.roles().get("authority", old) != old, "another authority")
        if FULL:
            time.sleep(5)
    site.wait_ready()
    ended = site.log()[before:].count("the disk may have lost writes")
    assert ended == (becomes == ENDS)
    assert len(errors(site.log()[before:])) < 20 + 15 * FULL, "a flood"
    answer = issue(site, site.op, other)
    assert answer[0] == 200 or (becomes == ENDS and answer == (409, "subject_has_certificate")), answer
    assert post(site, site.op, {"operation": "revoke_cert", "serial": serial_from(pem)}).status == 200
    books = check_books(site, site.got)
    assert books[serial_from(pem)][0] == REVOKED
    audit_passes(site)


def test_disk_that_goes_on_failing(live):
    """No sync is tried twice by one process; the next process waits longer each time, and says the same few lines."""
    site, before = live, len(live.log())
    pem = issue(site, site.op)[1]
    with Fault(site, "supervisor", [WAL], "fdatasync:error=EIO"):
        os.kill(site.roles()["authority"][0], signal.SIGKILL)
        end = time.monotonic() + (60 if FULL else 5)
        while time.monotonic() < end:
            assert site.running()
            ask(lambda: site.connect(site.op, timeout=2).issue(new_key()))
            time.sleep(0.05)
        tries = site.log()[before:].count("the disk may have lost writes")
        assert 2 <= tries <= 8 + 4 * FULL, f"{tries} tries"
    assert len(errors(site.log()[before:])) < 10 * (tries + 1), site.log()[before:]
    site.wait_ready()
    site.got.append(pem)
    check_books(site, site.got)


@pytest.mark.parametrize("nth", range(1, 30) if FULL else (3, 7))
def test_fault_between_intent_and_certificate(live, nth):
    """From the n-th write on: whatever was answered is so afterwards."""
    site, key = live, new_key()
    with Fault(site, "authority", [WAL], f"pwrite64:error=EIO:when={nth}+"):
        answer = issue(site, site.op, key)
        assert answer[0] == 200 or answer == (503, "storage_unavailable")
        if answer[0] == 200:
            site.got.append(answer[1])
    site.wait_ready()
    again = wait_for(lambda: a if (a := issue(site, site.op, key))[0] == 200 else None, "a certificate")
    assert answer[0] != 200 or again == answer
    site.got.append(again[1])
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(0,)], "no intent is left open")
    check_books(site, site.got)


# ---- files that are taken away while it runs ----

def test_database_taken_away(live):
    site, key = live, new_key()
    moved = [(site.state / n, site.dir / n) for n in (DB, WAL, SHM) if (site.state / n).exists()]
    serial = serial_from(issue(site, site.op)[1])
    for here, there in moved:
        here.rename(there)
    assert issue(site, site.op, key) == (503, "storage_unavailable")
    assert site.get("/readyz")[0] == 503 and site.get("/crl")[0] == 200
    assert post(site, site.op, {"operation": "get_cert", "serial": serial}).json["state"] == "issued"
    said = ctl(site, "status").stdout
    assert said.startswith("NOT READY: the database: signet.db was moved or deleted"), said
    assert site.log().count("signet.db was moved or deleted") == 1
    assert not (site.state / DB).exists()
    for here, there in moved:
        there.rename(here)
    site.wait_ready()
    assert issue(site, site.op, key)[0] == 200
    check_books(site)


@pytest.mark.parametrize("how", ["moved", "cut"])
def test_journal_taken_away(live, how):
    """As by a tool that rotates logs."""
    site, journal = live, live.state / LOG
    assert issue(site, site.op)[0] == 200
    site.journal()
    whole = journal.read_bytes()
    journal.rename(site.dir / LOG) if how == "moved" else os.truncate(journal, 0)
    assert issue(site, site.op)[0] == 200
    word = "was moved, deleted or exchanged" if how == "moved" else "it was cut or added to"
    wait_for(lambda: word in ctl(site, "status").stdout, "status tells it")
    assert issue(site, site.op)[0] == 200 and site.get("/readyz")[0] == 200
    if how == "moved":
        (site.dir / LOG).rename(journal)
    else:
        assert journal.read_bytes() == b""
        with open(journal, "r+b") as f:
            f.write(whole)
    wait_for(lambda: word not in ctl(site, "status").stdout, "status tells it no more")
    check_books(site)


def test_crl_changed_on_the_disk(live):
    """Cut or replaced in place: who asks gets the one that was published, and no front falls over it."""
    site, file = live, live.state / "crl.der"
    before, fronts = site.crl(), site.roles()["front"]
    good = site.get("/crl")[1]
    for bad in (b"", good[:100], (site.state / "root-crl.der").read_bytes()):
        file.write_bytes(bad)
        assert site.get("/crl") == (200, good)
        assert [area for area, _ in findings(site)][:1] == ["CRL"]
    assert site.roles()["front"] == fronts
    site.ctl("crl", "rebuild")
    assert number_of(site.crl()) > number_of(before)
    audit_passes(site)


# ---- a disk that is full, and one that is read-only ----

FIRST_PAGES = 32 << 10  # of the -shm of the database: without it that cannot even be read


class SmallDisk(Site):
    """Its signetd runs where STATE is a small file system of its own."""

    def mount(self, size):
        self.mountpoint = self.state
        self.keeper = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", f'cp -a "{self.state}" "{self.state}.kept" && mount -t tmpfs -o mode=700,size={size} '
             f'none "{self.state}" && cp -a "{self.state}.kept/." "{self.state}" && echo mounted && exec sleep 600'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.keeper.stdout.readline() != "mounted\n":
            self.keeper.wait()
            pytest.skip("needs root and mount namespaces")
        self.prefix = ["nsenter", "-t", str(self.keeper.pid), "-m"]
        self.state = type(self.state)(f"/proc/{self.keeper.pid}/root{self.state}")

    def fill(self, leave=0):
        """All that is left, up to a rest."""
        rest = os.statvfs(self.state)
        with open(self.state / "filler", "wb") as f, contextlib.suppress(OSError):
            f.write(b"\0" * max(0, rest.f_bavail * rest.f_frsize - leave))
            f.flush()

    def ctl(self, *args, code=0):
        return run(*self.prefix, BIN / "signetctl", "--config", self.conf, *args, code=code, env=tool_environment())

    def query(self, sql, *values):
        """SQLite follows /proc/PID/root to where the disk is not mounted: so from inside."""
        if not self.prefix:
            return super().query(sql, *values)
        code = ("import sqlite3, sys; db = sqlite3.connect(f'file:{sys.argv[1]}/signet.db?mode=ro', uri=True); "
                "print(db.execute(sys.argv[2], eval(sys.argv[3])).fetchall())")
        return ast.literal_eval(run(*self.prefix, sys.executable, "-c", code, self.mountpoint, sql, values).stdout)

    def close(self):
        try:
            super().close()
        finally:
            if self.prefix:
                self.keeper.kill()
                self.keeper.communicate()


@pytest.fixture
def small(kit, tmp_path):
    with SmallDisk(kit, tmp_path / "site") as s:
        yield s


def fall_behind(site, serial):
    """As after a crash: the store has a certificate whose file, and whose journal line, are not written yet."""
    with contextlib.closing(sqlite3.connect(site.state / DB)) as db:
        ((seq,),) = db.execute("SELECT seq FROM journal WHERE line LIKE ?", (f"% issued serial={serial} %",)).fetchall()
        db.execute("UPDATE meta SET value = ? WHERE name = 'projected'", (seq - 1,))
        db.commit()
    at(LOG, lines(lambda l: l[:seq - 1]))(None, site.state)
    (site.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem").unlink()


def is_answered(site, op):
    with contextlib.suppress(OSError):
        return post(site, op, {"operation": "get_status"}).status == 200
    return False


def listed(site):
    return {f"{entry.serial_number:032x}" for entry in x509.load_der_x509_crl(site.get("/crl")[1])}


def full_for(site, op, key, serial):
    """What holds as long as there is no room."""
    answer = post(site, op, {"operation": "req_client_cert", "csr": key.csr})
    assert code_of(answer) == (503, "storage_unavailable") and int(answer.headers["retry-after"]) >= 1
    assert site.get("/readyz")[0] == 503 and site.get("/healthz")[0] == 200
    assert listed(site) == {serial}
    assert post(site, op, {"operation": "get_cert", "serial": serial}).json["state"] == "revoked"
    said = site.ctl("status", code=4).stdout
    assert said.startswith("NOT READY: the database: ") and '"A full or failing disk"' in said, said


def test_full_disk_at_the_start(small):
    site = small
    site.start()
    op, key = site.operator(), new_key()
    serial = serial_from(issue(site, op)[1])
    revoke(site, op, serial, "keyCompromise")
    assert {f"{e.serial_number:032x}" for e in site.crl()} == {serial}
    site.stop()
    fall_behind(site, serial)
    site.mount("2m")
    site.fill(FIRST_PAGES)
    site.start(ready=False)
    wait_for(lambda: site.get("/healthz")[0] == 200 and is_answered(site, op), lambda: "it serves\n" + site.log())
    full_for(site, op, key, serial)
    (site.state / "filler").unlink()
    site.wait_ready()
    assert issue(site, op, key)[0] == 200
    site.check_books()


def test_full_disk_while_it_runs(small):
    """What fits is done and stays; with the reserve of docs/recovery.md gone, a revocation fits."""
    site, got = small, []
    site.mount("4m")
    site.start()
    op = site.operator()
    pem = issue(site, op)[1]
    serial = serial_from(pem)
    revoke(site, op, serial, "keyCompromise")
    site.crl()
    (site.state / "reserve").write_bytes(bytes(1 << 20))
    site.fill()
    for _ in range(500):
        status, answer = issue(site, op)
        if status != 200:
            break
        got.append(answer)
    else:
        raise AssertionError("the disk is not full")
    before, end = len(site.log()), time.monotonic() + (90 if FULL else 3)
    while time.monotonic() < end:
        full_for(site, op, new_key(), serial)
        time.sleep(0.2)
    assert len(errors(site.log()[before:])) < 5 + 6 * FULL, site.log()[before:]
    (site.state / "reserve").unlink()
    wait_for(lambda: post(site, op, {"operation": "revoke_cert", "serial": serial_from(issue(site, op)[1])})
             .status == 200, "room for a revocation")
    (site.state / "filler").unlink()
    site.wait_ready()
    site.check_books([pem, *got])
    wait_published(site)
    audit_passes(site)


def test_read_only_disk(small):
    """It does not start, with the reason; what can be read without writing still can be taken away."""
    site = small
    site.start()
    serial = serial_from(issue(site, site.operator())[1])
    wait_published(site)
    site.stop()
    site.mount("4m")
    run(*site.prefix, "mount", "-o", "remount,ro", site.mountpoint)
    refused(site, ["/lock", "Read-only file system", "remount,rw"])
    assert "the audit passed" in site.ctl("audit").stdout
    assert serial in site.ctl("export").stdout
    site.ctl("backup", "--out", site.dir / "backup")
    run(*site.prefix, "mount", "-o", "remount,rw", site.mountpoint)
    site.start()
    site.check_books()


@pytest.mark.parametrize("when", ["while it runs", "at its start"])
def test_refused_pin_that_cannot_be_remembered(site, when):
    """Not one more try, and no end of signetd that would lead to one."""
    use_spy(site)
    site.start()
    right, wrong = site.pin_file.read_text(), "wrong-pin-0815\n"
    refusal, before = site.state / "pin-refused", len(logins(site))
    if when == "at its start":
        site.stop()
        site.pin_file.write_text(wrong)
        site.prefix = ["strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=rename", "-e",
                       "inject=rename:error=ENOSPC:when=1"]
        site.start(ready=False)
    else:
        site.pin_file.write_text(wrong)
        site.set("token_env.SIGNET_TEST", "1")
        with Fault(site, "supervisor", [], "rename:error=ENOSPC:when=1"):
            site.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "cannot be remembered" in site.log(), lambda: site.log())
    wait_for(lambda: "cannot be remembered" in site.log() and "do not restart signetd" in site.log(), lambda: site.log())
    wait_for(refusal.exists, "it is remembered as soon as it can be")
    wait_for(lambda: "pin-refused stands now" in site.log(), "the log tells it")
    assert site.running()
    site.wait_ready(503)
    assert "signetctl pin retry" in site.ctl("status", code=4).stdout
    site.stop()
    assert site.run_to_end()[0] == 1 and logins(site)[before:] == ["CKR_PIN_INCORRECT"]
    site.prefix = []
    site.pin_file.write_text(right)
    site.ctl("pin", "retry")
    site.start()
    assert issue(site, site.operator())[0] == 200


def test_another_user_s_files(site):
    """As nobody, with files that root left behind."""
    for folder in [site.dir, *site.dir.parents][:-2]:
        folder.chmod(0o755)
    site.as_user = 65534
    for path in [site.dir, *site.dir.rglob("*")]:
        os.chown(path, 65534, 65534)
    site.start()
    site.stop()
    os.chown(site.state / DB, 0, 0)
    refused(site, [DB, "user 0", "runs as user 65534", "chown"])
    os.chown(site.state / DB, 65534, 65534)
    (site.dir / "hsm/tokens").chmod(0)
    os.chown(site.dir / "hsm/tokens", 0, 0)
    site.start(ready=False)
    site.wait_ready(503)
    wait_for(lambda: "NOT READY: no signer is ready: " in ctl(site, "status").stdout, "status tells it")
    os.chown(site.dir / "hsm/tokens", 65534, 65534)
    (site.dir / "hsm/tokens").chmod(0o700)
    site.wait_ready()
