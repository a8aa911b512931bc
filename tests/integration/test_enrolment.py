"""Enrolment passwords: made by signetctl, spent at the authority by MSG_enrol as a front sends it."""

import base64
import contextlib
import hashlib
import os
import re
import signal
import sqlite3
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

import front_relay
from clock_site import ClockSite
from front_harness import ERRORS, REPO
from signet_site import ISSUED, ORPHAN, REVOKED, Key, Site, at_once, mac, run, serial_of, wait_for
from test_ctl import audit_passes, lines_of

USAGE, REFUSED, LOCAL, FINDINGS = 2, 4, 5, 6
SAME = "enrolment_refused"


@pytest.fixture
def site(kit, tmp_path):
    with Site(kit, tmp_path / "site", server_fronts=2) as s:
        front_relay.place(s)
        yield s


class Password:
    def __init__(self, site, *args):
        (made,) = lines_of(site.ctl("--json", "enrolment", "add", *args).stdout)
        self.site, self.user, self.password, self.made = site, made["user"], made["password"], made

    def digest(self):
        return hashlib.sha256(self.password.encode()).digest()

    def enrol(self, key, **other):
        """The certificate's DER, or the error's code."""
        csr = base64.b64decode(key.csr)
        parsed = x509.load_pem_x509_csr(csr)
        values = {"user": self.user, "password_sha256": self.digest(), "profile": "", "name": key.name,
                  "body_digest": hashlib.sha256(csr).digest(),
                  "csr_digest": hashlib.sha256(parsed.public_bytes(Encoding.DER)).digest(),
                  "spki": parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), **other}
        with front_relay.Relay(self.site) as relay:
            name, answer = relay.ask("enrol", **values)
        if name == "answer_certificate":
            cert = x509.load_der_x509_certificate(answer["der"])
            assert serial_of(cert) == answer["serial"].hex()
            assert cert.subject.rfc4514_string() == "CN=" + key.name
            return answer["der"]
        assert name == "answer_error"
        self.said = answer["detail"]
        return ERRORS[answer["code"]]

    def enrol_again(self, key):
        """None when nobody answered."""
        with contextlib.suppress(OSError):
            return self.enrol(key)

    def state(self):
        (row,) = [r for r in lines_of(self.site.ctl("--json", "enrolment", "list").stdout) if r["user"] == self.user]
        return row["state"], row["uses"], row["uses_max"]

    def end(self):
        return self.site.ctl("enrolment", "end", self.user)

    def certificates(self):
        """[state] of what it led to."""
        return sorted(s for (s,) in self.site.query(
            "SELECT c.state FROM certificate c JOIN operator o ON o.id = c.operator WHERE o.name = ?",
            "enrolment:" + self.user))


def wait_relay(site, other_than=None):
    """Its process."""
    def found():
        with front_relay.Relay(site) as relay:
            return relay.process() if relay.process() != other_than else None
    return wait_for(found, "a new relay")


def start(site):
    site.start()
    wait_relay(site)
    return site


def intents(site, count):
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0 AND profile = 'device'") == [(count,)],
             f"{count} open intents")


@contextlib.contextmanager
def signers_stopped(site):
    wait_for(lambda: "2 of 2 ready" in site.ctl("status", code=None).stdout, "both signers")
    pids = site.roles()["signer"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def in_background(work):
    result = []

    def run_it():
        try:
            result.append(work())
        except OSError as e:
            result.append(e)
    thread = threading.Thread(target=run_it)
    thread.start()

    def joined():
        thread.join(60)
        return result[0]
    return joined


# ---- one board ----

def test_one_board(site):
    start(site)
    op, key, other = site.operator(), Key(mac(1)), Key(mac(2))
    p = Password(site, "--mac", "24-0A-C4-00-00-01")
    assert p.made["mac"] == mac(1) and p.state() == ("open", 0, 1)
    assert re.fullmatch(r"([0-9a-hjkmnp-tv-z]{7}-){3}[0-9a-hjkmnp-tv-z]{7}", p.password), p.password
    assert site.query("SELECT password_sha256 FROM enrolment") == [(p.digest(),)]
    refusals = set()
    for wrong in ({"user": "nobody"}, {"password_sha256": bytes(32)}, {"user": "nobody", "password_sha256": bytes(32)},
                  {"user": ""}):
        assert p.enrol(key, **wrong) == SAME
        refusals.add(p.said)
    assert len(refusals) == 1, "who does not know it learns nothing"
    assert p.enrol(other) == "name_not_allowed" and p.enrol(key, profile="clockless") == "profile_refused"
    assert p.enrol(key, name=mac(1).upper()) == "name_not_allowed"
    assert p.state() == ("open", 0, 1) and p.certificates() == []

    der = p.enrol(key)
    assert isinstance(der, bytes), (der, p.said)
    assert p.state() == ("spent", 1, 1) and p.certificates() == [ISSUED]
    assert p.enrol(key) == der and p.enrol(key, profile="device") == der  # the same again spends nothing
    assert p.enrol(Key(mac(1))) == "enrolment_spent"
    assert p.enrol(key, password_sha256=bytes(32)) == SAME
    assert p.state() == ("spent", 1, 1) and p.certificates() == [ISSUED]

    # the board has a certificate: no other password gives it a second one, and none is spent on it
    more = Password(site, "--count", "3")
    assert more.enrol(Key(mac(1))) == "subject_has_certificate" and "revoked" in more.said
    assert more.enrol(key) == "subject_has_certificate"  # known to p alone
    assert more.state() == ("open", 0, 3)
    # and it is a board's as any other: found, revoked by its MAC
    (listed,) = site.ask(op, "list_certs", mac=mac(1))[1]["certificates"]
    assert listed["operator"] == f"enrolment:{p.user}"
    assert site.ask(op, "revoke_cert", mac=mac(1), reason="superseded")[0] == 200
    assert p.enrol(key) == "result_dead"
    assert p.certificates() == [REVOKED] and p.state() == ("spent", 1, 1)
    assert isinstance(more.enrol(Key(mac(1))), bytes) and more.state() == ("open", 1, 3)

    texts = [t for t in site.check_journal() if "enrolment" in t]
    assert texts[0].startswith(f"enrolment-added user={p.user} profile=device mac={mac(1)} uses=1 until=")
    assert texts[1].startswith("intent serial=") and f"name={mac(1)} operator=enrolment:{p.user} " in texts[1]
    site.check_books()
    audit_passes(site)
    for file in [site.log_file, *(f for f in site.state.rglob("*") if f.is_file())]:
        assert p.password.encode() not in file.read_bytes(), file
    assert "enrolment" not in site.ctl("operator", "list").stdout
    site.stop()


def test_commands(site):
    start(site)

    def refused(word, *args, code=REFUSED):
        done = site.ctl("enrolment", "add", *args, code=code)
        assert word in done.stderr and done.stdout == "", (args, done.stderr)
    made = site.ctl("enrolment", "add", "--name", "line-1", "--count", "2", "--until", "2099-01-01T00:00:00Z")
    assert re.fullmatch(r"user      line-1\npassword  \S{31}\n", made.stdout) and "shown this once" in made.stderr
    refused("a name is not used again", "--name", "line-1")
    refused("letters, digits", "--name", "a:b")
    refused("letters, digits", "--name", "x" * 55)
    refused("no profile", "--profile", "none")
    refused("not open to req_client_cert", "--profile", "operator")
    refused("not open to req_client_cert", "--profile", "server")
    refused("over already", "--until", "2001-01-01T00:00:00Z")
    refused("--count", "--count", "0", code=USAGE)
    refused("--count", "--count", "1000001", code=USAGE)
    refused("--until", "--until", "tomorrow", code=USAGE)
    refused("7d", "--until", "+soon", code=USAGE)
    refused("MAC", "--mac", "24:0a:c4", code=USAGE)
    refused("not both", "--mac", mac(1), "--count", "2", code=USAGE)
    assert "no enrolment nobody" in site.ctl("enrolment", "end", "nobody", code=REFUSED).stderr
    for _ in range(2):  # ended is ended
        assert "enrolment line-1 is ended; 0 of 2" in site.ctl("enrolment", "end", "line-1").stdout
    listed = site.ctl("enrolment", "list").stdout.splitlines()
    assert listed[0].split() == ["USER", "STATE", "USES", "UNTIL", "MAC", "PROFILE"]
    assert listed[1].split() == ["line-1", "ended", "0/2", "2099-01-01T00:00:00Z", "any", "device"]
    assert [t for t in site.check_journal() if t.startswith("enrolment-ended")] == ["enrolment-ended user=line-1"]
    for i in range(105):  # more than a page
        site.ctl("enrolment", "add", "--name", f"n{i:03}", "--mac", mac(i))
    users = [r["user"] for r in lines_of(site.ctl("--json", "enrolment", "list").stdout)]
    assert users == ["line-1", *(f"n{i:03}" for i in range(105))]
    audit_passes(site)


# ---- at most once ----

def test_many_at_once(site):
    start(site)
    one, five = Password(site), Password(site, "--count", "5")
    answers = at_once(20, lambda i: five.enrol(Key(mac(100 + i))))
    assert sum(isinstance(a, bytes) for a in answers) == 5 and answers.count("enrolment_spent") == 15
    assert five.state() == ("spent", 5, 5) and five.certificates() == [ISSUED] * 5
    key = Key(mac(1))
    answers = at_once(20, lambda i: one.enrol(key))
    assert len(set(answers)) == 1 and isinstance(answers[0], bytes)
    assert one.certificates() == [ISSUED]
    same = Password(site, "--mac", mac(2))
    answers = at_once(20, lambda i: same.enrol(Key(mac(2))))  # one board, keys of its own
    assert sum(isinstance(a, bytes) for a in answers) == 1 and answers.count("enrolment_spent") == 19
    assert same.certificates() == [ISSUED]
    site.check_books()
    audit_passes(site)


def test_killed_in_between(site):
    """What was spent on an intent that came to nothing is open again, and no password gives two certificates."""
    start(site)
    p = Password(site)
    with signers_stopped(site):
        answer = in_background(lambda: p.enrol(Key(mac(1))))
        intents(site, 1)
        assert site.query("SELECT uses FROM enrolment") == [(1,)]
        (authority,) = site.roles()["authority"]
        os.kill(authority, signal.SIGKILL)
        assert isinstance(answer(), OSError)
    site.wait_ready()
    wait_for(lambda: p.state() == ("open", 0, 1), "the use is given back")
    assert isinstance(p.enrol(Key(mac(1))), bytes)
    assert p.certificates() == [ISSUED, ORPHAN] and p.state() == ("spent", 1, 1)

    passwords = [Password(site, "--count", "2") for _ in range(6)]
    end = threading.Event()

    def try_on(number):
        """Asks until it is spent, each time with a new key for a new board; what was lost is asked again with it."""
        got, key, p = set(), None, passwords[number % 6]
        for board in range(1000, 2000):
            key = Key(mac(board * 12 + number))
            for _ in range(100):
                try:
                    answer = p.enrol(key)
                except OSError:
                    continue
                if isinstance(answer, bytes):
                    assert p.enrol_again(key) in (None, answer)
                    got.add(answer)
                    break
                if answer == "enrolment_spent":
                    return got
                time.sleep(0.05)
            assert not end.is_set()
        return got

    def kill():
        for _ in range(4):
            wait_for(lambda: site.roles().get("authority"), "an authority")
            time.sleep(0.15)
            with contextlib.suppress(ProcessLookupError, KeyError, IndexError):
                os.kill(site.roles()["authority"][0], signal.SIGKILL)
            wait_for(lambda: "2 of 2 ready" in site.ctl("status", code=None).stdout, "both signers")
    killer = in_background(kill)
    received = at_once(12, try_on)
    killer()
    site.wait_ready()
    for number, p in enumerate(passwords):
        alive = [s for s in p.certificates() if s != ORPHAN]
        assert alive == [ISSUED] * 2 and p.state() == ("spent", 2, 2)
        assert len(received[number] | received[number + 6]) <= 2
    site.check_books()
    audit_passes(site)


def test_over_est(site):
    """The same by curl and a front that serves: user and password by HTTP Basic."""
    start(site)
    p, key = Password(site, "--mac", mac(1)), Key(mac(1))
    request = site.dir / "request.b64"
    request.write_text(base64.encodebytes(
        x509.load_pem_x509_csr(base64.b64decode(key.csr)).public_bytes(Encoding.DER)).decode())

    def enrol(user):
        return run("curl", "-sS", "--cacert", site.root, "-u", user, "-H", "Content-Type: application/pkcs10",
                   "--data-binary", f"@{request}", "-w", "\n%{http_code}",
                   f"https://127.0.0.1:{site.port}/.well-known/est/simpleenroll").stdout.rsplit("\n", 1)
    assert enrol(f"{p.user}:wrong")[1] == "401" and enrol(f"nobody:{p.password}")[1] == "401"
    body, status = enrol(f"{p.user}:{p.password}")
    assert status == "200", body
    (cert,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    assert cert.public_bytes(Encoding.DER) == p.enrol(key) and enrol(f"{p.user}:{p.password}") == [body, "200"]
    assert p.state() == ("spent", 1, 1)
    site.check_books()


# ---- its end ----

def test_ended_while_the_token_signs(site):
    start(site)
    p = Password(site, "--count", "2")
    with signers_stopped(site):
        answer = in_background(lambda: p.enrol(Key(mac(1))))
        intents(site, 1)
        p.end()
    assert answer() == SAME
    wait_for(lambda: p.certificates() == [ORPHAN], "an orphan")
    assert p.state() == ("ended", 0, 2) and p.enrol(Key(mac(1))) == SAME
    assert len(site.crl()) == 1
    site.check_books()
    audit_passes(site)


def test_it_expires(kit, tmp_path):
    with ClockSite(kit, tmp_path / "site", server_fronts=2) as site:
        front_relay.place(site)
        start(site)
        p, key = Password(site, "--count", "9", "--until", "+30m"), Key(mac(1))
        site.offset(1700)
        der = p.enrol(key)
        assert isinstance(der, bytes), der
        site.offset(1900)
        assert p.enrol(key) == SAME and p.enrol(Key(mac(2))) == SAME
        assert p.state() == ("expired", 1, 9)
        site.check_books()


# ---- caps; a front in other hands ----

def test_caps_of_all(site):
    site.set("caps_certificates_hour", 2)
    start(site)
    p = Password(site, "--count", "9")
    assert [isinstance(p.enrol(Key(mac(i))), bytes) for i in range(3)] == [True, True, False]
    assert p.enrol(Key(mac(2))) == "too_many" and p.state() == ("open", 2, 9)


def test_what_no_front_sends(site):
    start(site)
    p = Password(site)
    relay = wait_relay(site)
    for wrong in ({"password_sha256": b"x" * 31}, {"csr_digest": b""}, {"body_digest": b""}):
        with pytest.raises(OSError):
            p.enrol(Key(mac(1)), **wrong)
        relay = wait_relay(site, other_than=relay)
    assert len(re.findall(r"front \d+ is ended", site.log())) == 3
    assert p.enrol(Key("not-a-mac")) == "csr_cn_not_mac" and p.enrol(Key(mac(1)), spki=b"0") == "key_invalid"
    assert p.state() == ("open", 0, 1)


# ---- backup, restore, a store of the release before ----

def restored(site, backup):
    site.stop()
    site.state.rename(site.dir / "lost")
    site.state.mkdir()
    site.said = site.ctl("restore", "--from", backup, "--none").stdout
    return start(site)


def test_restore_keeps(site):
    start(site)
    spent, half, ended = Password(site), Password(site, "--count", "2"), Password(site)
    key = Key(mac(1))
    der = spent.enrol(key)
    assert isinstance(half.enrol(Key(mac(2))), bytes)
    ended.end()
    backup = site.dir / "backup"
    site.ctl("backup", "--out", backup)
    restored(site, backup)
    assert "enrolment passwords open as they were at the backup: 1;" in site.said
    assert [p.state() for p in (spent, half, ended)] == [("spent", 1, 1), ("open", 1, 2), ("ended", 0, 1)]
    assert spent.enrol(key) == der and spent.enrol(Key(mac(3))) == "enrolment_spent"
    assert isinstance(half.enrol(Key(mac(3))), bytes) and half.enrol(Key(mac(4))) == "enrolment_spent"
    assert ended.enrol(Key(mac(4))) == SAME
    audit_passes(site)


def to_schema_1(database):
    """What schema_2.sql adds and exchanges, undone."""
    schema = (REPO / "src/server/authority/schema.sql").read_text()
    index = re.search(r"CREATE INDEX certificate_on_crl .*?;", schema, re.S).group()
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.executescript("DROP TABLE enrolled; DROP TABLE enrolment; DROP TABLE crl_url; DROP INDEX certificate_on_crl;"
                         f"{index} UPDATE meta SET value = 1 WHERE name = 'schema'")


def schema_of(site):
    return site.query("SELECT value FROM meta WHERE name = 'schema'")


def test_from_schema_1(site):
    start(site)
    op = site.operator()
    status, pem = site.issue(op, Key(mac(1)))
    assert status == 200
    audit_passes(site)
    backup = site.dir / "backup"
    site.ctl("backup", "--out", backup)
    site.stop()
    to_schema_1(site.state / "signet.db")
    to_schema_1(backup / "signet.db")
    sums = backup / "SHA256SUMS"
    sums.write_text(re.sub(r"[0-9a-f]{64}(?=  signet.db)",
                           hashlib.sha256((backup / "signet.db").read_bytes()).hexdigest(), sums.read_text()))
    for command in (("audit",), ("export",), ("backup", "--out", site.dir / "no")):
        assert "schema 1, of an earlier release: start signetd once" in site.ctl(*command, code=LOCAL).stderr
    assert schema_of(site) == [(1,)]
    start(site)
    assert schema_of(site) == [(2,)] and "schema 1 became 2" in site.log()
    assert isinstance(Password(site).enrol(Key(mac(2))), bytes)
    site.check_books([pem])
    audit_passes(site)
    restored(site, backup)
    assert schema_of(site) == [(2,)]
    assert isinstance(Password(site).enrol(Key(mac(2))), bytes)
    audit_passes(site)


def test_audit_counts_the_uses(site):
    start(site)
    p = Password(site, "--count", "2")
    assert isinstance(p.enrol(Key(mac(1))), bytes)
    audit_passes(site)
    site.stop()
    with contextlib.closing(sqlite3.connect(site.state / "signet.db")) as db:
        db.execute("UPDATE enrolment SET uses = 0")
        db.commit()
    said = site.ctl("audit", code=FINDINGS).stdout
    assert f"enrolment {p.user}" in said, said
