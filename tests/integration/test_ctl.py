"""signetctl: status, audit, export, backup, restore, import, crl rebuild, clock accept; and the ways back that
docs/recovery.md describes."""

import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from signet_site import (BIN, HELD, ISSUED, ORPHAN, REPO, REVOKED, Key, Kit, Site, at_once, mac, run, serial_of,
                         tool_environment, wait_for)

DONE, USAGE, UNREACHABLE, REFUSED, LOCAL, FINDINGS = 0, 2, 3, 4, 5, 6


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def findings(site, *args):
    """What the audit says, as [(area, text)]."""
    done = site.ctl("--json", *args, "audit", code=None)
    lines = lines_of(done.stdout)
    found = [(entry["area"], entry["finding"]) for entry in lines if "finding" in entry]
    assert done.returncode == (FINDINGS if found else DONE), done.stdout + done.stderr
    assert lines[-1]["status"] == ("FINDINGS" if found else "OK")
    return found


def audit_passes(site):
    def settled():  # what was committed is projected and published within a second
        return True if findings(site) == [] else None
    wait_for(settled, "the audit passes", 10)


def issue(site, op, number):
    """(serial, PEM)"""
    status, pem = site.issue(op, Key(mac(number)))
    assert status == 200, pem
    return serial_of(x509.load_pem_x509_certificate(pem)), pem


def revoke(site, op, serial, reason):
    status, body = site.ask(op, "revoke_cert", serial=serial, reason=reason)
    assert status == 200, body
    return body


def wait_published(site):
    """A CRL that was made after all revocations so far, and nothing on its way to the files."""
    site.ctl("crl", "rebuild")
    (last,) = site.query("SELECT max(seq) FROM journal")[0]
    wait_for(lambda: (last,) <= (site.query("SELECT value FROM meta WHERE name = 'projected'") or [(0,)])[0],
             "the files are complete")


# ---- status ----

def test_status(site):
    done = site.ctl("status", code=UNREACHABLE)
    assert done.stdout.startswith("NOT READY: cannot reach signetd") and "next: start signetd" in done.stdout
    site.start()
    wait_published(site)
    done = site.ctl("status")
    first = done.stdout.splitlines()[0]
    assert first.startswith("READY "), done.stdout
    assert "!" not in done.stdout and "next:" not in done.stdout
    for word in ("signers    2 of 2 ready", "custody ", "CRL        number", "listener   until", "CA         until"):
        assert word in done.stdout, (word, done.stdout)
    (said,) = lines_of(site.ctl("--json", "status").stdout)
    assert said["ready"] is True and said["notices"] == [] and said["listener_not_after"] > said["time"]
    site.stop()
    (site.state / "pin-refused").write_text("")
    assert "signetctl pin retry" in site.ctl("status", code=UNREACHABLE).stdout
    site.ctl("pin", "retry")


def test_status_without_token(site):
    """The first line names the token; what to do comes with it."""
    site.start()
    tokens = site.dir / "hsm"
    tokens.rename(site.dir / "away")
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGKILL)
    site.wait_ready(503)
    done = site.ctl("status", code=REFUSED)
    assert done.stdout.startswith("NOT READY: no signer is ready"), done.stdout
    assert "is the token plugged in?" in done.stdout
    (site.dir / "away").rename(tokens)
    site.wait_ready()
    assert site.ctl("status").stdout.startswith("READY ")


def message_fields(name):
    """(number, [(field, kind)]) of a message, out of the contract."""
    text = (REPO / "src/common/msg_fields.h").read_text()
    number, fields = re.search(rf"^MSG\({name}, (\d+), \w+, \w+,\n((?:  .*\n)+)", text, re.M).groups()
    return int(number), re.findall(r"F_(\w+)\((\w+)", fields)


class FakeSignetd:
    """Answers one admin_status with what a test wants to be the case."""

    DAY = 86400
    NOW = 1800000000
    GOOD = {"ready": 1, "detailed": 1, "signers_ready": 2, "signers_wanted": 2, "token_detail": "t", "custody": "c",
            "crl_number": 7, "crl_this_update": NOW - DAY, "crl_next_update": NOW + 6 * DAY, "time": NOW,
            "issuer_not_after": NOW + 900 * DAY, "started_at": NOW - 3600, "listener_not_after": NOW + 5 * DAY}

    def __init__(self, site):
        self.site = site
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = os.open(site.state, os.O_RDONLY)  # the path may be too long for a socket's address
        self.socket.bind(f"/proc/self/fd/{folder}/admin.sock")
        os.close(folder)
        self.socket.listen()

    def status(self, code, **changes):
        values, body = {**self.GOOD, **changes}, b""
        number, fields = message_fields("answer_status")
        for kind, name in fields:
            value = values.pop(name, "" if kind == "text" else 0)
            if kind == "text":
                body += struct.pack(">I", len(value) + 1) + value.encode() + b"\0"
            else:
                body += struct.pack({"u8": ">B", "u32": ">I", "u64": ">Q", "i64": ">q"}[kind], value)
        assert values == {}

        def answer():
            peer, _ = self.socket.accept()
            with peer:
                version, _, _, _, question = struct.unpack(">BBHIQ", peer.recv(1000)[:16])
                peer.send(struct.pack(">BBHIQ", version, number, 0, len(body), question) + body)
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            return self.site.ctl("status", code=code).stdout
        finally:
            thread.join()


def test_status_notices(site):
    """What ends soon, and what is wrong: named in time, each with the next step; nothing else is."""
    fake, now, day = FakeSignetd(site), FakeSignetd.NOW, FakeSignetd.DAY
    said = fake.status(DONE)
    assert said.startswith("READY ") and "!" not in said and "next:" not in said
    for changes, text in (({"issuer_not_after": now + 100 * day}, "the CA certificate ends in 100 days"),
                          ({"issuer_not_after": now - 1}, "the CA certificate has ended"),
                          ({"listener_not_after": now + 3600}, "TLS certificate ends within a day"),
                          ({"listener_not_after": now - 1}, "TLS certificate has ended"),
                          ({"responder_not_after": now + 3600}, "OCSP responder's certificate ends within a day"),
                          ({"crl_this_update": now - 6 * day, "crl_next_update": now + day},
                           "the CRL is late, it ends in 24 hours"),
                          ({"crl_next_update": now - 1}, "the CRL has ended"),
                          ({"crl_number": 0}, "there is no CRL yet"),
                          ({"signers_ready": 1, "problem": "fewer signers are ready than configured"},
                           "1 of 2 signers are ready"),
                          ({"problem": "the disk is full"}, "the disk is full")):
        said = fake.status(DONE, **changes).splitlines()
        assert said[0].startswith("READY "), said
        assert said[1].startswith("! ") and text in said[1] and said[2].startswith("  next: "), said
        assert not any(line.startswith("!") for line in said[2:]), said
    for changes, text in (({"signers_ready": 0}, "no signer is ready: t"),
                          ({"problem": "the clock is not trusted: x"}, "the clock is not trusted"),
                          ({}, "signetd is stopping")):
        said = fake.status(REFUSED, ready=0, **changes).splitlines()
        assert said[0].startswith("NOT READY: " + text), said


@pytest.mark.parametrize("command", ["status", "operator", "enrolment", "audit", "export", "backup", "restore", "import", "crl",
                                     "clock", "pin"])
def test_help(tmp_path, command):
    """Help needs no configuration; misuse is 2 and says how it goes."""
    done = run(BIN / "signetctl", "--config", "/nowhere", command, "--help", env=tool_environment())
    assert done.stdout.startswith(f"usage: signetctl {command}") and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert command in run(BIN / "signetctl", "--help", env=tool_environment()).stdout


def test_misuse(site):
    for args in (("audit", "now"), ("backup",), ("restore", "--from", "x"), ("import",), ("crl",), ("clock", "set"),
                 ("export", "--format", "xml"), ("restore", "--from", "x", "--none", "--crl", "y"), ("nothing",)):
        done = site.ctl(*args, code=USAGE)
        assert "usage: signetctl" in done.stderr and done.stdout == "", args


# ---- crl rebuild, clock accept ----

def test_not_everybody(site):
    """Another user is told who may."""
    site.start()
    for folder in [site.dir, *site.dir.parents][:-2]:
        folder.chmod(0o755)
    done = subprocess.run([BIN / "signetctl", "--config", site.conf, "audit"], user=65534, group=65534, extra_groups=[],
                          capture_output=True, text=True, env=tool_environment(), timeout=60)
    assert done.returncode == LOCAL and "Permission denied; use root or the user that runs signetd" in done.stderr


def test_crl_rebuild(site):
    site.start()
    wait_published(site)
    (before,) = site.query("SELECT max(number) FROM crl WHERE sha256 IS NOT NULL")[0]
    (said,) = lines_of(site.ctl("crl", "rebuild", "--json").stdout)
    assert said["crl_number"] > before
    found = x509.load_der_x509_crl(site.get("/crl")[1])
    number = number_of(found)
    assert number >= said["crl_number"]


def test_clock_accept(site):
    """An event of tomorrow: nothing is signed until a person has looked at the clock."""
    site.start()
    op = site.operator()
    site.stop()
    with sqlite3.connect(site.state / "signet.db") as db:
        db.execute("UPDATE journal SET at = at + 86400 WHERE seq = (SELECT max(seq) FROM journal)")
    db.close()
    assert any("another time in the store" in text for _, text in findings(site))
    site.start(ready=False)
    site.wait_ready(503)
    assert site.issue(op, Key(mac(1))) == (503, "clock_suspect")
    done = site.ctl("status", code=REFUSED)
    assert done.stdout.startswith("NOT READY: the clock is not trusted") and "clock accept" in done.stdout
    done = site.ctl("clock", "accept")
    assert done.stdout.startswith("signetd's clock says 2") and "accepted" in done.stdout
    site.wait_ready()
    assert site.issue(op, Key(mac(1)))[0] == 200
    assert any("clock-accepted" in line for (line,) in site.query("SELECT line FROM journal"))


# ---- export ----

def test_export(site):
    site.start()
    op = site.operator("desk")
    serial, pem = issue(site, op, 1)
    issue(site, op, 2)
    assert site.ask(op, "report_device", serial=serial, state="verified")[0] == 200
    revoke(site, op, serial, "keyCompromise")
    rows = list(csv.DictReader(io.StringIO(site.ctl("export").stdout)))
    assert len(rows) == site.query("SELECT count(*) FROM certificate")[0][0]
    (row,) = [row for row in rows if row["serial"] == serial]
    cert = x509.load_pem_x509_certificate(pem)
    assert row["name"] == mac(1) and row["state"] == "revoked" and row["reason"] == "keyCompromise"
    assert row["operator"] == "desk" and row["profile"] == "device" and row["revoked_at"].endswith("Z")
    assert [r["board"] for r in rows if r["name"] == mac(2)] == ["issued"] and row["board"] == "verified"
    assert {r["board"] for r in rows if r["profile"] != "device"} == {""}
    assert row["not_after"] == f"{cert.not_valid_after:%Y-%m-%dT%H:%M:%SZ}"
    assert row["sha256"] == hashlib.sha256(cert.public_bytes(serialization.Encoding.DER)).hexdigest()
    out = site.dir / "all.jsonl"
    site.ctl("export", "--format", "jsonl", "--out", out)
    objects = lines_of(out.read_text())
    assert [o["serial"] for o in objects] == [row["serial"] for row in rows]
    (device,) = [o for o in objects if o["name"] == mac(2)]
    assert device["state"] == "issued" and "reason" not in device and "revoked_at" not in device
    assert site.ctl("--json", "export").stdout == out.read_text()
    assert list(site.dir.glob("all.jsonl?*")) == []


# ---- audit ----

class Books:
    """A site with something of everything, stopped; a copy for each damage."""

    def __init__(self, kit, where):
        with Site(kit, where / "books") as site:
            self.site = site.start()
            op = site.operator()
            self.issued, _ = issue(site, op, 1)
            self.revoked, _ = issue(site, op, 2)
            self.held, _ = issue(site, op, 3)
            lifted, _ = issue(site, op, 4)
            self.other, _ = issue(site, op, 5)
            wait_published(site)
            self.older_crl = (site.state / "crl.der").read_bytes()
            revoke(site, op, self.revoked, "keyCompromise")
            revoke(site, op, self.held, "certificateHold")
            revoke(site, op, lifted, "certificateHold")
            revoke(site, op, lifted, "removeFromCRL")
            for state in ("flashed", "verified"):
                assert site.ask(op, "report_device", serial=lifted, state=state)[0] == 200
            assert site.ask(op, "report_device", serial=self.other, state="flashed")[0] == 200
            wait_published(site)
            audit_passes(site)  # while it runs
            site.stop()
        self.number = 0

    def copy(self):
        self.number += 1
        copy = Site.__new__(Site)
        copy.dir = self.site.dir
        copy.state = self.site.dir / f"state{self.number}"
        shutil.copytree(self.site.state, copy.state)
        copy.conf = self.site.dir / f"damaged{self.number}.conf"
        copy.conf.write_text(self.site.conf.read_text().replace(str(self.site.state), str(copy.state)))
        return copy

    def file(self, copy, serial):
        return copy.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem"


@pytest.fixture(scope="module")
def books(kit, tmp_path_factory):
    return Books(kit, tmp_path_factory.mktemp("books"))


def sql(copy, statement, *values):
    db = sqlite3.connect(copy.state / "signet.db")
    with db:
        db.create_function("unhex", 1, bytes.fromhex)
        assert db.execute(statement, values).rowcount != 0
    db.close()


def edit_log(copy, change):
    path = copy.state / "journal.log"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def rewrite_journal(copy, number):
    """By somebody who knows how the chain is made: all hashes after the edit are right again."""
    db = sqlite3.connect(copy.state / "signet.db")
    head, lines = bytes(32), []
    with db:
        for seq, line in db.execute("SELECT seq, line FROM journal ORDER BY seq").fetchall():
            text = line.rsplit(" ", 1)[0]
            if seq == number:
                text += "x"
            head = hashlib.sha256(head + text.encode()).digest()
            lines.append(f"{text} {head.hex()}\n")
            db.execute("UPDATE journal SET line = ?, hash = ? WHERE seq = ?", (lines[-1][:-1], head, seq))
    db.close()
    (copy.state / "journal.log").write_text("".join(lines))


def number_of(crl):
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "journal.log edited":
        (lambda b, c: edit_log(c, lambda l: l[:4] + [l[4].replace("Z ", "Z x")] + l[5:]),
         "journal", "journal.log line 5"),
    "journal.log line gone":
        (lambda b, c: edit_log(c, lambda l: l[:4] + l[5:]), "journal", "journal.log line 5"),
    "journal.log cut":
        (lambda b, c: edit_log(c, lambda l: l[:-2]), "journal", "journal.log was cut"),
    "journal.log gone":
        (lambda b, c: (c.state / "journal.log").unlink(), "journal", "journal.log: No such file"),
    "event changed":
        (lambda b, c: sql(c, "UPDATE journal SET line = replace(line, 'Z ', 'Z x') WHERE seq = 6"),
         "journal", "event 6 in the store is not what its hash was made of"),
    "event and line changed alike":
        (lambda b, c: (sql(c, "UPDATE journal SET line = replace(line, 'Z ', 'Z x') WHERE seq = 6"),
                       edit_log(c, lambda l: l[:5] + [l[5].replace("Z ", "Z x")] + l[6:])),
         "journal", "event 6 in the store is not what its hash was made of"),
    "hash changed":
        (lambda b, c: sql(c, "UPDATE journal SET hash = zeroblob(32) WHERE seq = 6"), "journal",
         "event 6 in the store is not what its hash was made of"),
    "event gone":
        (lambda b, c: sql(c, "DELETE FROM journal WHERE seq = 6"), "journal", "events 6 to 6 are missing"),
    "last events gone":
        (lambda b, c: sql(c, "DELETE FROM journal WHERE seq > 6"), "journal", "the store ends at event 6"),
    "journal rewritten":
        (lambda b, c: rewrite_journal(c, 6), "journal", "the journal was rewritten"),
    "file gone": (lambda b, c: b.file(c, b.issued).unlink(), "files", "{issued}.pem"),
    "file changed": (lambda b, c: flip(b.file(c, b.issued), 100), "files", "{issued}.pem is not the certificate"),
    "file of another":
        (lambda b, c: shutil.copy(b.file(c, b.other), b.file(c, b.issued)), "files", "{issued}.pem is not the"),
    "file too many":
        (lambda b, c: shutil.copy(b.file(c, b.other), c.state / "certs/evil.pem"), "files", "evil.pem: the store"),
    "file of a serial unknown":
        (lambda b, c: (c.state / "certs/0a/0b").mkdir(parents=True) or
            shutil.copy(b.file(c, b.other), c.state / f"certs/0a/0b/0a0b{28 * '0'}.pem"), "files", "0a0b000"),
    "row: revocation undone":
        (lambda b, c: sql(c, "UPDATE certificate SET state=1, revoked_at=NULL, reason=NULL WHERE serial=unhex(?)",
                          b.revoked), "store", "{revoked} is issued in the store, revoked by the journal"),
    "row: hold lifted":
        (lambda b, c: sql(c, "UPDATE certificate SET state=1 WHERE serial=unhex(?)", b.held), "store", "{held}"),
    "row: other reason":
        (lambda b, c: sql(c, "UPDATE certificate SET reason=4 WHERE serial=unhex(?)", b.revoked), "store",
         "{revoked} is revoked at another time or for another reason"),
    "row: other time":
        (lambda b, c: sql(c, "UPDATE certificate SET revoked_at=revoked_at-60 WHERE serial=unhex(?)", b.revoked),
         "store", "{revoked} is revoked at another time"),
    "row: other name":
        (lambda b, c: sql(c, "UPDATE certificate SET name=? WHERE serial=unhex(?)", mac(9), b.issued), "store",
         "{issued} has the name " + mac(9)),
    "row: other dates":
        (lambda b, c: sql(c, "UPDATE certificate SET not_after=not_after+1 WHERE serial=unhex(?)", b.issued),
         "store", "{issued} has other content than its row"),
    "row: other certificate":
        (lambda b, c: sql(c, "UPDATE certificate SET (der, der_sha256) = (SELECT der, der_sha256 FROM certificate "
                             "WHERE serial=unhex(?)) WHERE serial=unhex(?)", b.other, b.issued),
         "store", "{issued} is not the one that the journal names"),
    "row: certificate changed":
        (lambda b, c: sql(c, "UPDATE certificate SET der = unhex(replace(hex(der), hex(?), hex(?))) "
                             "WHERE serial=unhex(?)", mac(1), mac(8), b.issued),
         "store", "{issued} is not signed by its CA"),
    "row: digest changed":
        (lambda b, c: sql(c, "UPDATE certificate SET tbs_sha256=zeroblob(32) WHERE serial=unhex(?)", b.issued),
         "store", "{issued} has other content than its row"),
    "row: other digest":
        (lambda b, c: sql(c, "UPDATE certificate SET der_sha256=zeroblob(32) WHERE serial=unhex(?)", b.issued),
         "store", "{issued} is not the one of its digest"),
    "row: certificate gone":
        (lambda b, c: sql(c, "UPDATE certificate SET der=NULL, der_sha256=NULL WHERE serial=unhex(?)", b.issued),
         "store", "{issued} is not the one that the journal names"),
    "row: report forgotten":
        (lambda b, c: sql(c, "UPDATE certificate SET board=0 WHERE serial=unhex(?)", b.other), "store",
         "the board of {other} is issued in the store, flashed by the journal"),
    "row: never reported":
        (lambda b, c: sql(c, "UPDATE certificate SET board=2 WHERE serial=unhex(?)", b.issued), "store",
         "the board of {issued} is verified in the store, issued by the journal"),
    "row: another good certificate":
        (lambda b, c: sql(c, "UPDATE certificate SET (der,der_sha256,tbs_sha256,spki_sha256,not_before,not_after) = "
                             "(SELECT der,der_sha256,tbs_sha256,spki_sha256,not_before,not_after FROM certificate "
                             "WHERE serial=unhex(?)) WHERE serial=unhex(?)", b.other, b.issued),
         "store", "{issued} has other content than its row"),
    "row gone":
        (lambda b, c: sql(c, "DELETE FROM certificate WHERE serial=unhex(?)", b.issued), "store",
         "{issued} is in the journal, but not in the store"),
    "row: reference broken":
        (lambda b, c: sql(c, "UPDATE request SET certificate=4711 WHERE certificate IS NOT NULL"), "store",
         "table request"),
    "row: from nowhere":
        (lambda b, c: sql(c, "INSERT INTO certificate (issuer,serial,state,profile,name,spki_sha256,tbs_sha256,"
                             "not_before,not_after,created_at) SELECT issuer,unhex('4711'),2,profile,name,spki_sha256,"
                             "tbs_sha256,not_before,not_after,created_at FROM certificate LIMIT 1"),
         "store", "4711 is in the store, but no event"),
    "issuer exchanged":
        (lambda b, c: sql(c, "UPDATE issuer SET certificate = (SELECT der FROM certificate WHERE der IS NOT NULL "
                             "LIMIT 1)"), "store", "is not a CA that the root has signed"),
    "index damaged":
        (lambda b, c: sql(c, "UPDATE sqlite_schema SET sql = replace(sql, '(name)', '(profile)') "
                             "WHERE name = 'certificate_by_name'"), "store", "signet.db: "),
    "CRL older": (lambda b, c: (c.state / "crl.der").write_bytes(b.older_crl), "CRL", "is the newest published"),
    "CRL older, its rows with it":
        (lambda b, c: (c.state / "crl.der").write_bytes(b.older_crl) and
            sql(c, "DELETE FROM crl WHERE number > ?", number_of(x509.load_der_x509_crl(b.older_crl))),
         "CRL", "the journal tells of"),
    "CRL changed": (lambda b, c: flip(c.state / "crl.der", 100), "CRL", "crl.der: "),
    "CRL gone": (lambda b, c: (c.state / "crl.der").unlink(), "CRL", "crl.der is missing"),
    "CRL of another CA":
        (lambda b, c: shutil.copy(c.state / "root-crl.der", c.state / "crl.der"), "CRL", "did not sign it"),
    "CRL's row gone":
        (lambda b, c: sql(c, "DELETE FROM crl WHERE number = (SELECT max(number) FROM crl)"), "CRL",
         "which this store never gave out"),
    "CRL's row changed":
        (lambda b, c: sql(c, "UPDATE crl SET sha256=zeroblob(32)"), "CRL", "is not the CRL"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_audit_finds(books, damage):
    """Each damage by name, and where it is the only one, nothing else of that area."""
    copy = books.copy()
    work, area, text = DAMAGES[damage]
    if "damaged" in damage:
        db = sqlite3.connect(copy.state / "signet.db")
        db.execute("PRAGMA writable_schema=ON")
        db.execute("UPDATE sqlite_schema SET sql = replace(sql, '(name)', '(profile)') "
                   "WHERE name = 'certificate_by_name'")
        db.commit()
        db.close()
    else:
        work(books, copy)
    text = text.format(**vars(books))
    found = findings(copy)
    assert any(where == area and text in what for where, what in found), found
    said = copy.ctl("audit", code=FINDINGS).stdout
    assert f"! {area:<8} " in said and "findings; docs/recovery.md" in said


def test_audit_of_a_signed_lie(site):
    """Rows are edited, then signetd itself signs CRLs from them: they verify, but the journal knows better."""
    site.start()
    op = site.operator()
    undone, _ = issue(site, op, 1)
    framed, _ = issue(site, op, 2)
    retimed, _ = issue(site, op, 3)
    softened, _ = issue(site, op, 4)
    revoke(site, op, softened, "certificateHold")
    ((held_at,),) = site.query("SELECT revoked_at FROM certificate WHERE lower(hex(serial)) = ?", softened)
    revoke(site, op, softened, "keyCompromise")
    revoke(site, op, undone, "keyCompromise")
    revoke(site, op, retimed, "keyCompromise")
    wait_published(site)
    site.stop()
    sql(site, "UPDATE certificate SET state=1, revoked_at=NULL, reason=NULL WHERE serial=unhex(?)", undone)
    sql(site, "UPDATE certificate SET state=2, revoked_at=created_at, reason=1 WHERE serial=unhex(?)", framed)
    sql(site, "UPDATE certificate SET reason=0 WHERE serial=unhex(?)", retimed)
    sql(site, "UPDATE certificate SET state=3, reason=6, revoked_at=? WHERE serial=unhex(?)", held_at, softened)
    site.start()
    wait_published(site)
    found = [text for area, text in findings(site) if area == "CRL"]
    assert len(found) == 4
    for text in (f"does not list {undone}", f"lists {framed} with a time or reason of which the journal",
                 f"lists {retimed} with a time or reason", f"lists {softened} with an older time or reason"):
        assert any(text in what for what in found), (text, found)


def test_audit_undamaged(books):
    copy = books.copy()
    assert findings(copy) == []
    said = copy.ctl("audit").stdout
    assert "the audit passed" in said and "2 entries" in said
    shutil.rmtree(copy.state)
    copy.ctl("audit", code=LOCAL)


def test_audit_while_working(site):
    """No finding comes from what goes on beside it."""
    site.start()
    op = site.operator()
    stop = threading.Event()

    def work(number):
        with site.connect(op) as c:
            for i in range(10000):
                if stop.is_set():
                    return
                status, pem = c.issue(Key(mac(number * 10000 + i)))
                assert status == 200, pem
                if i % 3 == 0:
                    serial = serial_of(x509.load_pem_x509_certificate(pem))
                    assert c.ask("revoke_cert", serial=serial, reason="superseded")[0] == 200

    def watch(_):
        try:
            for _ in range(8):
                assert findings(site) == []
        finally:
            stop.set()
    at_once(4, lambda i: watch(i) if i == 0 else work(i))
    audit_passes(site)
    issue(site, op, 1)
    site.kill()  # what a crash leaves is no finding either
    assert findings(site) == []


# ---- backup, restore, import ----

class Witness:
    """What the world has seen: every certificate, serial, revocation and CRL number."""

    def __init__(self):
        self.pems, self.revoked, self.numbers = {}, {}, []

    def saw(self, pem):
        serial = serial_of(x509.load_pem_x509_certificate(pem))
        assert serial not in self.pems, "a serial was used twice"
        self.pems[serial] = pem
        return serial

    def saw_crl(self, site):
        crl = site.crl()
        number = number_of(crl)
        assert not self.numbers or number >= self.numbers[-1], "a CRL number was lowered"
        self.numbers.append(number)
        return crl

    def check(self, site):
        listed = {f"{entry.serial_number:032x}": entry for entry in self.saw_crl(site)}
        for serial, (reason, when) in self.revoked.items():
            entry = listed[serial]
            assert entry.revocation_date == when, serial
            found = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
            assert found == reason, serial


def entries(crl):
    return {f"{e.serial_number:032x}":
            (e.extensions.get_extension_for_class(x509.CRLReason).value.reason, e.revocation_date)
            for e in crl if len(e.extensions)}


def laptop_folder(site, witness):
    """As signet saves them: a folder for each MAC."""
    out = site.dir / "laptop"
    for serial, pem in witness.pems.items():
        name = x509.load_pem_x509_certificate(pem).subject.rfc4514_string().split("=")[1]
        folder = out / name.replace(":", "")
        while folder.exists():
            folder = folder.with_name(folder.name + "x")
        folder.mkdir(parents=True)
        (folder / "device.crt").write_bytes(pem)
        shutil.copy(site.state / "ca-chain.pem", folder / "chain.pem")
        (folder / "device.key").write_text("no certificate\n")
    return out


def test_backup_restore(site):
    """Backup while eight connections issue; more is issued and revoked; all is lost. The backup, the newest CRL and
    the laptop's certificates bring back what the world relies on."""
    site.start()
    op = site.operator()
    witness, lock, numbers = Witness(), threading.Lock(), iter(range(100000))
    backup, done = site.dir / "backup", threading.Event()

    def work(_):
        with site.connect(op) as c:
            i = 0
            while not done.is_set() or i < 12:
                with lock:
                    number = next(numbers)
                status, pem = c.issue(Key(mac(number)))
                assert status == 200, pem
                with lock:
                    serial = witness.saw(pem)
                if i % 4 == 0:
                    assert c.ask("revoke_cert", serial=serial, reason="keyCompromise")[0] == 200
                i += 1

    def back_up(_):
        try:
            wait_for(lambda: len(witness.pems) > 40 or None, "some certificates")
            site.ctl("backup", "--out", backup)
        finally:
            done.set()
    at_once(9, lambda i: back_up(i) if i == 0 else work(i))
    names = {path.name for path in backup.iterdir()}
    assert names == {"signet.db", "intermediate.pem", "ca-chain.pem", "root-crl.der", "crl.der", "signet.conf",
                     "backup.txt", "SHA256SUMS"}
    run("sha256sum", "-c", "--strict", "SHA256SUMS", cwd=backup)
    everything = b"".join(path.read_bytes() for path in backup.iterdir())
    assert site.pin_file.read_bytes().strip() not in everything and b"PRIVATE KEY" not in everything
    with sqlite3.connect(f"file:{backup}/signet.db?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        in_backup = {row[0] for row in db.execute("SELECT lower(hex(serial)) FROM certificate WHERE state = 1 "
                                                  "AND profile = 'device'")}
    db.close()

    # after the backup: more certificates, revocations of older and of newer ones, a hold
    later = [witness.saw(site.issue(op, Key(mac(next(numbers))))[1]) for _ in range(6)]
    unrevoked = {row[0] for row in site.query("SELECT lower(hex(serial)) FROM certificate WHERE state = 1")}
    older = sorted(in_backup & unrevoked & set(witness.pems))[:2]
    for serial, reason in ((older[0], "cessationOfOperation"), (older[1], "certificateHold"),
                           (later[0], "keyCompromise"), (later[1], "certificateHold")):
        revoke(site, op, serial, reason)
    wait_published(site)
    newest = witness.saw_crl(site)
    witness.revoked = entries(newest)
    assert {older[0], older[1], later[0], later[1]} <= set(witness.revoked)
    newest_file = site.dir / "newest.crl"
    newest_file.write_bytes(newest.public_bytes(serialization.Encoding.PEM))
    laptop = laptop_folder(site, witness)
    site.stop()
    shutil.rmtree(site.state)

    (said,) = lines_of(site.ctl("--json", "restore", "--from", backup, "--crl", newest_file).stdout)
    assert said["certificates_lost"] >= 2 and said["next_crl_number"] > witness.numbers[-1]
    assert findings(site) == []  # also before signetd has written journal and files
    site.start()
    audit_passes(site)
    witness.check(site)
    for serial in (later[0], later[1]):
        ((state, name),) = site.query("SELECT state, name FROM certificate WHERE lower(hex(serial)) = ?", serial)
        assert (state, name) == (REVOKED if serial == later[0] else HELD, "unknown")

    site.ctl("import", laptop)
    wait_published(site)
    audit_passes(site)
    witness.check(site)
    rows = {serial: (state, name, der) for serial, state, name, der in
            site.query("SELECT lower(hex(serial)), state, name, der FROM certificate")}
    for serial, pem in witness.pems.items():
        cert = x509.load_pem_x509_certificate(pem)
        state, name, der = rows[serial]
        assert der == cert.public_bytes(serialization.Encoding.DER)
        assert cert.subject.rfc4514_string() == f"CN={name}"
        if serial not in witness.revoked:
            assert state == ISSUED or serial not in in_backup, serial  # or an intent that the backup caught
    assert rows[later[0]][0] == REVOKED and rows[later[1]][0] == HELD and rows[later[2]][0] == ISSUED

    # and life goes on: a lost one that was on hold is lifted, an operator of the backup issues
    revoke(site, op, later[1], "removeFromCRL")
    del witness.revoked[later[1]]
    for _ in range(3):
        witness.saw(site.issue(op, Key(mac(next(numbers))))[1])
    wait_published(site)
    witness.check(site)
    audit_passes(site)
    assert site.ctl("import", laptop).stdout.startswith(f"{len(witness.pems) - 3} certificates are in the store")
    site.stop()
    audit_passes(site)


def test_backup_refusals(site):
    site.start()
    site.operator()
    out = site.dir / "backup"
    out.mkdir()
    assert "is there already" in site.ctl("backup", "--out", out, code=LOCAL).stderr
    assert site.ctl("backup", "--out", site.dir / "no/such", code=LOCAL).stderr
    assert list(site.dir.glob("backup.*")) == [] and list(out.iterdir()) == []
    site.stop()
    out.rmdir()
    site.ctl("backup", "--out", f"{out}/")  # also beside no signetd
    assert out.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def restorable(site):
    """A site with a backup, stopped."""
    site.start()
    site.op = site.operator()
    site.serial, site.pem = issue(site, site.op, 1)
    site.backup = site.dir / "backup"
    site.ctl("backup", "--out", site.backup)
    wait_published(site)
    site.newest = site.dir / "newest.crl"
    shutil.copy(site.state / "crl.der", site.newest)
    return site


def test_restore_refusals(restorable, tmp_path):
    site = restorable
    crl = ("--crl", site.newest)

    def refused(word, *args, source=site.backup):
        done = site.ctl("restore", "--from", source, *args, code=LOCAL)
        assert word in done.stderr and done.stdout == "", done.stderr
        assert not (site.state / "restore.tmp").exists()

    refused("signet.db is there", *crl)  # running
    site.stop()
    refused("signet.db is there", *crl)
    for f in site.state.glob("signet.db*"):
        f.unlink()
    refused("journal.log is there", *crl)
    (site.state / "journal.log").unlink()
    refused("certs is there", *crl)
    shutil.rmtree(site.state / "certs")
    refused("crl.der is there", *crl)  # signetd would take it for its own, and make no other
    (site.state / "crl.der").unlink()

    refused("did not sign it", "--crl", site.state / "root-crl.der")
    refused("neither DER nor PEM", "--crl", site.conf)
    flip(site.newest, -1)
    refused("did not sign it", *crl)
    flip(site.newest, -1)
    refused("no folder that signetctl backup made", *crl, source=tmp_path)
    damaged = tmp_path / "damaged"
    for name, at in (("signet.db", 5000), ("intermediate.pem", 100), ("SHA256SUMS", 3)):
        shutil.copytree(site.backup, damaged)
        flip(damaged / name, at)
        refused(str(damaged), *crl, source=damaged)
        shutil.rmtree(damaged)
    shutil.copytree(site.backup, damaged)
    (damaged / "signet.db").unlink()
    refused("signet.db is missing", *crl, source=damaged)
    sums = damaged / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "signet.db" not in line))
    refused("does not list signet.db", *crl, source=damaged)
    sums.write_text(f"{64 * '0'}  ../../signet.conf\n")
    refused("in no backup", *crl, source=damaged)

    lock = run("flock", "-xn", site.state / "lock", "true")
    assert lock.returncode == 0
    own = (site.state / "intermediate.pem").read_bytes()
    foreign = Kit(tmp_path / "kit").dir / "state/intermediate.pem"  # of the same name even
    shutil.copy(foreign, site.state / "intermediate.pem")
    refused("that is another CA", *crl)
    (site.state / "intermediate.pem").write_bytes(own)
    site.ctl("restore", "--from", site.backup, *crl)
    site.start()
    audit_passes(site)


def test_restore_against_running(restorable, tmp_path):
    """Another folder's state may be locked by a signetd that has not made its store yet."""
    site = restorable
    target = tmp_path / "other"
    target.mkdir()
    with open(target / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = site.ctl("restore", "--from", site.backup, "--none", "--state", target, code=LOCAL)
        assert "stop it first" in done.stderr
    site.ctl("restore", "--from", site.backup, "--none", "--state", target)
    assert (target / "signet.db").exists() and not (target / "restore.tmp").exists()


def test_restore_without_crl(restorable):
    """What cannot be known is said; the next CRL's number is above any that can have been."""
    site = restorable
    revoke(site, site.op, site.serial, "keyCompromise")
    wait_published(site)
    before = number_of(site.crl())
    site.stop()
    shutil.rmtree(site.state)
    done = site.ctl("--config", site.backup / "signet.conf", "restore", "--from", site.backup, "--none")
    assert "revoke it anew" in done.stdout
    site.start()
    audit_passes(site)
    after = number_of(site.crl())
    assert after > before + 1000
    ((state,),) = site.query("SELECT state FROM certificate WHERE lower(hex(serial)) = ?", site.serial)
    assert state == ISSUED


def test_import_refusals(restorable, tmp_path, kit):
    site = restorable
    with Site(Kit(tmp_path / "kit"), tmp_path / "foreign") as foreign:
        foreign.start()
        _, pem = issue(foreign, foreign.operator(), 1)
    other, junk = site.dir / "foreign.crt", site.dir / "junk.pem"
    other.write_bytes(pem)
    junk.write_text("nothing\n")
    done = site.ctl("import", other, junk, site.dir / "nowhere.crt", code=REFUSED)
    assert "foreign.crt: this CA's key did not sign it" in done.stderr and "junk.pem: there is no PEM" in done.stderr
    assert "0 certificates are in the store" in done.stdout and "3 refused" in done.stdout
    folder = site.dir / "mixed"
    folder.mkdir()
    shutil.copy(other, folder)
    (folder / "ours.crt").write_bytes(site.pem)
    assert site.ctl("import", folder).stdout.startswith("1 certificates are in the store; 1 files of others")
    assert site.ctl("import", "--profile", "nothing", folder / "ours.crt", code=REFUSED).stderr
    assert findings(site) == []


def test_orphan_turns_up(site):
    """An intent that the backup caught: signetd makes it an orphan; the laptop's certificate fills it in, revoked."""
    site.start()
    op = site.operator()
    serial, pem = issue(site, op, 1)
    site.ctl("backup", "--out", site.dir / "backup")
    wait_published(site)
    shutil.copy(site.state / "crl.der", site.dir / "newest.crl")
    site.stop()
    db = sqlite3.connect(site.dir / "backup/signet.db")  # as if taken between intent and certificate
    with db:
        (last,) = db.execute("SELECT seq FROM journal WHERE line LIKE ?", (f"% issued serial={serial} %",)).fetchone()
        db.execute("DELETE FROM journal WHERE seq >= ?", (last,))
        db.execute("UPDATE certificate SET state=0, der=NULL, der_sha256=NULL, issued_at=NULL WHERE serial=?",
                   (bytes.fromhex(serial),))
        db.execute("DELETE FROM crl WHERE journal_seq >= ?", (last,))
    db.close()
    run("bash", "-c", "sha256sum $(awk '{print $2}' SHA256SUMS) > new; mv new SHA256SUMS", cwd=site.dir / "backup")
    shutil.rmtree(site.state)
    site.ctl("restore", "--from", site.dir / "backup", "--crl", site.dir / "newest.crl")
    site.start()
    state = "SELECT state, reason FROM certificate WHERE lower(hex(serial)) = ?"
    assert site.query(state, serial) == [(ORPHAN, 0)]
    audit_passes(site)
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    sql(site, "UPDATE certificate SET der=?, der_sha256=? WHERE serial=unhex(?)", der, hashlib.sha256(der).digest(),
        serial)
    assert any("is not the one that the journal names by digest" in what for _, what in findings(site))
    sql(site, "UPDATE certificate SET der=NULL, der_sha256=NULL WHERE serial=unhex(?)", serial)

    cert = site.dir / "device.crt"
    cert.write_bytes(pem)
    site.ctl("import", cert)
    assert site.query(state, serial) == [(REVOKED, 0)]
    wait_published(site)
    audit_passes(site)
    assert serial in {f"{e.serial_number:032x}" for e in site.crl()}


# ---- docs/recovery.md ----

class SecondKit(Kit):
    """Another token with another intermediate, under the root of a kit that there is."""

    def __init__(self, where, first):
        self.dir = where
        self.dir.mkdir()
        for name in ("pin", "so-pin", "root-pin", "root-so-pin"):
            shutil.copy(first.dir / name, self.dir / name)
        for name in ("root", "root-hsm"):
            shutil.copytree(first.dir / name, self.dir / name)
        path = self.dir / "root-hsm/softhsm2.conf"
        path.write_text(path.read_text().replace(str(first.dir), str(self.dir)))
        own = ("--softhsm", "hsm", "--pin-file", "pin", "--so-pin-file", "so-pin")
        self.script("intermediate.sh", *own, "--subject", "CN=Second Device CA", "--out", "ca.csr")
        self.root("--sign-csr", "ca.csr", "--out-certificate", "ca.pem")
        self.script("intermediate.sh", *own, "--install", "ca.pem", "--root", "root/root.pem", "--crl",
                    "root/root-crl.der", "--state", "state", "--config", "signet.conf", "--listen",
                    "127.0.0.1:1", "--http-listen", "127.0.0.1:2", "--public-url", "http://127.0.0.1:2")

    def root(self, *args):
        self.script("root-ceremony.sh", "--softhsm", "root-hsm", "--pin-file", "root-pin", "--so-pin-file",
                    "root-so-pin", "--token", "Signet Root", "--key-label", "root", "--out", "root", *args)


def verify(site, cert, *crls, code=0):
    """openssl's word, with the chain as site has it and these CRLs (DER)."""
    chain = site.dir / "untrusted.pem"
    chain.write_bytes((site.state / "intermediate.pem").read_bytes())
    args = []
    for number, der in enumerate(crls):
        path = site.dir / f"verify{number}.pem"
        path.write_bytes(x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM))
        args += ["-CRLfile", path]
    done = run("openssl", "verify", "-x509_strict", "-crl_check_all", "-CAfile", site.root, "-untrusted", chain, *args,
               cert, code=code)
    return done.stdout + done.stderr


def test_new_intermediate(kit, site, tmp_path):
    """The token is lost, or is to be another one: a second signetd with a new intermediate under the same root. Boards
    get new certificates there, and at last the root revokes the old intermediate."""
    site.start()
    old_cert, new_cert = site.dir / "old.crt", site.dir / "new.crt"
    old_cert.write_bytes(issue(site, site.operator(), 1)[1])
    wait_published(site)
    old_crl = (site.state / "crl.der").read_bytes()
    second = SecondKit(tmp_path / "second-kit", kit)
    with Site(second, tmp_path / "second") as new:
        new.start()
        op = new.operator("laptop")
        status, pem = new.issue(op, Key(mac(1)))
        assert status == 200
        new_cert.write_bytes(pem)
        wait_published(new)
        audit_passes(new)
        new_crl = (new.state / "crl.der").read_bytes()
        root_crl = (site.state / "root-crl.der").read_bytes()
        assert "OK" in verify(site, old_cert, old_crl, root_crl)
        assert "OK" in verify(new, new_cert, new_crl, root_crl)
        shutil.copy(site.state / "intermediate.pem", second.dir / "lost.pem")
        second.root("--revoke", "lost.pem", "--reason", "keyCompromise")
        second.script("intermediate.sh", "--crl", "root/root-crl.der", "--root", "root/root.pem", "--state", new.state)
        root_crl = (new.state / "root-crl.der").read_bytes()
        assert "certificate revoked" in verify(site, old_cert, old_crl, root_crl, code=2)
        assert "OK" in verify(new, new_cert, new_crl, root_crl)


def test_lost_token(site):
    """Without its token signetd goes on with the CRL and lookups, and export says which boards need a certificate."""
    site.start()
    op = site.operator()
    serial, _ = issue(site, op, 1)
    wait_published(site)
    site.stop()
    shutil.rmtree(site.dir / "hsm/tokens", ignore_errors=True)
    site.start(ready=False)
    site.wait_ready(503)
    assert site.ctl("status", code=REFUSED).stdout.startswith("NOT READY: no signer is ready")
    assert site.get("/crl")[0] == 200
    assert site.ask(op, "get_cert", serial=serial)[1]["state"] == "issued"
    assert site.issue(op, Key(mac(2)))[0] == 503
    assert f"{serial},{mac(1)},device,issued" in site.ctl("export").stdout
    site.ctl("backup", "--out", site.dir / "backup")


def test_lost_laptop(site):
    """What its operator had issued since a time is revoked in one request, and the operator with it."""
    site.start()
    lost, other = site.operator("lost"), site.operator("other")
    serials = {issue(site, lost, number)[0] for number in range(3)}
    kept, _ = issue(site, other, 9)
    site.ctl("operator", "revoke", "--name", "lost", "--reason", "keyCompromise")
    assert site.issue(lost, Key(mac(10))) == (401, "certificate_revoked")
    body = json.dumps({"operation": "revoke_cert", "issued_by": "lost", "from": "2020-01-01T00:00:00Z",
                       "to": "2120-01-01T00:00:00Z", "reason": "keyCompromise", "request_id": "lost-1"})
    signature = run("openssl", "cms", "-sign", "-binary", "-md", "sha256", "-nocerts", "-signer", other.cert, "-inkey",
                    other.key, "-outform", "PEM", input=body).stdout
    with site.connect(other) as c:
        c.http.request("POST", "/v1", body, {"Content-Type": "application/json",
                                             "Signet-Signature": "".join(signature.splitlines()[1:-1])})
        answer = json.loads(c.http.getresponse().read())
    assert answer["status"] == "OK" and answer["count"] == 3, answer
    wait_published(site)
    assert serials <= set(entries(site.crl())) and kept not in entries(site.crl())
    audit_passes(site)
