"""[server] certificate_files: with it off there is a journal and no file for each certificate, and nobody misses one;
on again, what was issued meanwhile gets its files while requests go on."""

import re
import shutil
import sqlite3
import subprocess
import threading

import pytest
from cryptography import x509

from desk import reload
from signet_site import BUILD, REVOKED, Key, mac, run, serial_of, wait_for
from test_ctl import audit_passes, findings, issue, lines_of, revoke, wait_published

OFF, ON = "certificate_files is off", "certs: each certificate has its file"


def file_of(site, serial):
    return site.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem"


def files(site):
    return {path.stem: path.read_bytes() for path in (site.state / "certs").rglob("*.pem")}


def stored(site):
    """{serial: PEM by openssl} of all that the store has."""
    rows = site.query("SELECT lower(hex(serial)), der FROM certificate WHERE der IS NOT NULL")
    return {serial: subprocess.run(["openssl", "x509", "-inform", "DER"], input=der, capture_output=True,
                                   check=True).stdout for serial, der in rows}


def marks(site):
    """The last event of all, and up to which events journal.log and the files are complete."""
    (head,) = site.query("SELECT max(seq) FROM journal")[0]
    found = dict(site.query("SELECT name, value FROM meta WHERE name IN ('projected', 'filed')"))
    return head, found.get("projected", 0), found.get("filed", 0)


def wait_complete(site):
    wait_for(lambda: len(set(marks(site))) == 1, lambda: f"journal and files are complete: {marks(site)}")


def switch(site, value, how):
    site.set("server_certificate_files", value)
    if how == "SIGHUP":
        reload(site)
    else:
        site.stop()
        site.start()


def test_off_from_the_start(site):
    site.set("server_certificate_files", "off")
    site.start()
    op = site.operator()
    made = [issue(site, op, n) for n in range(3)]
    revoke(site, op, made[0][0], "keyCompromise")
    wait_published(site)
    assert len(site.check_journal()) > 6  # journal.log, line by line
    assert not (site.state / "certs").exists()
    audit_passes(site)
    assert f"files     0, {OFF}" in site.ctl("audit").stdout
    assert {row["serial"] for row in lines_of(site.ctl("--json", "export").stdout)} >= {serial for serial, _ in made}
    assert site.ctl("status").stdout.startswith("READY")

    # what a backup, a restore of it and an import make of that
    backup, newest, late = site.dir / "backup", site.dir / "newest.crl", site.dir / "late.pem"
    site.ctl("backup", "--out", backup)
    serial, pem = issue(site, op, 9)
    late.write_bytes(pem)
    wait_published(site)
    shutil.copy(site.state / "crl.der", newest)
    site.stop()
    for path in [*site.state.glob("signet.db*"), site.state / "journal.log", site.state / "crl.der"]:
        path.unlink()
    site.ctl("restore", "--from", backup, "--crl", newest)
    site.start()
    site.ctl("import", late)
    wait_published(site)
    audit_passes(site)
    assert site.query("SELECT state FROM certificate WHERE lower(hex(serial)) = ?", made[0][0]) == [(REVOKED,)]
    assert set(stored(site)) >= {serial, *(s for s, _ in made)}
    assert not (site.state / "certs").exists()
    site.stop()
    site.start()
    assert not (site.state / "certs").exists()


@pytest.mark.parametrize("how", ["SIGHUP", "restart"])
def test_off_and_on_again(site, how):
    site.start()
    op = site.operator()
    before, _ = issue(site, op, 1)
    wait_complete(site)
    switch(site, "off", how)
    meanwhile = [issue(site, op, n)[0] for n in range(2, 6)]
    wait_published(site)
    assert before in files(site) and not set(meanwhile) & set(files(site))
    assert findings(site) == []

    # of the files that are there none may be a wrong one; one that is gone is missed by nobody
    shutil.copy(file_of(site, before), file_of(site, before).with_name(f"{before[:30]}00.pem"))
    file_of(site, before).write_bytes(b"another\n")
    assert [area for area, _ in findings(site)] == ["files", "files"]
    shutil.rmtree(file_of(site, before).parent)
    assert findings(site) == []
    site.ctl("backup", "--out", site.dir / "backup")

    switch(site, "on", how)
    serial, pem = issue(site, op, 6)
    wait_complete(site)
    there = files(site)
    assert {s: there.get(s) for s in (*meanwhile, serial)} == {s: stored(site)[s] for s in (*meanwhile, serial)}
    assert [area for area, text in findings(site) if before in text] == ["files"]  # from before: it is missed again
    file_of(site, serial).unlink()
    assert len(findings(site)) == 2

    # the whole folder was thrown away while nobody wanted it
    switch(site, "off", how)
    shutil.rmtree(site.state / "certs")
    issue(site, op, 7)
    switch(site, "on", how)
    wait_complete(site)
    assert files(site) == stored(site)
    audit_passes(site)


def test_many_files_while_requests_go_on(site):
    """More than one batch of them: new events are in the journal meanwhile; a stop does not wait for them, and the next
    start goes on where they were."""
    site.start()
    op = site.operator()
    issue(site, op, 1)
    site.stop()
    run(BUILD / "tests/seed-store", site.state, 8000, timeout=600)
    shutil.rmtree(site.state / "certs")
    site.set("server_certificate_files", "off")
    site.start()
    head = marks(site)[0]
    site.set("server_certificate_files", "on")
    reload(site)
    samples, done = [], threading.Event()

    def watch():  # both marks of one moment
        while not done.wait(0.01):
            samples.append(marks(site)[1:])
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        wait_for(lambda: any(0 < filed < head for _, filed in samples), "the first files")
        serial, _ = issue(site, op, 2)
        last = site.query("SELECT max(seq) FROM journal WHERE line LIKE ?", f"% issued serial={serial}%")[0][0]
        wait_for(lambda: any(written >= last for written, _ in samples), "the new event in the journal")
    finally:
        done.set()
        watcher.join()
    assert any(written >= last and filed < head for written, filed in samples), "new events waited for old files"
    site.stop()
    end, written, filed = marks(site)
    assert written == end and 0 < filed < head, "the stop waited for all files"
    site.start()
    (begin,) = re.findall(r"certs: the files of events (\d+) to \d+ are written while", site.log())[-1:]
    assert int(begin) > filed
    wait_complete(site)
    assert ON in site.log()
    assert len(files(site)) == site.query("SELECT count(*) FROM certificate WHERE der IS NOT NULL")[0][0]
    assert [text for area, text in findings(site) if area == "files"] == []


def test_where_no_files_can_be_written(site):
    """Off is the way out, without a restart: a disk has room for store and journal when it has no inode left."""
    site.start()
    op = site.operator()
    issue(site, op, 1)
    wait_complete(site)
    certs = site.state / "certs"
    shutil.rmtree(certs)
    certs.write_text("")
    switch(site, "off", "SIGHUP")
    issue(site, op, 2)
    switch(site, "on", "SIGHUP")
    wait_for(lambda: "certs exists and is not a folder" in site.ctl("status").stdout, "it is told")
    certs.unlink()
    wait_complete(site)
    assert files(site) == stored(site)

    switch(site, "off", "SIGHUP")
    shutil.rmtree(certs)
    certs.mkdir()
    for name in range(256):
        (certs / f"{name:02x}").touch()  # where a folder would be
    switch(site, "on", "SIGHUP")
    serial, _ = issue(site, op, 3)
    wait_for(lambda: "certs: cannot make a" in site.ctl("status").stdout, "it is told")
    switch(site, "off", "SIGHUP")
    wait_for(lambda: "certs" not in site.ctl("status").stdout, "all is well")
    assert any(text.startswith(f"issued serial={serial}") for text in site.check_journal())
    shutil.rmtree(certs)
    switch(site, "on", "SIGHUP")
    wait_complete(site)
    assert files(site) == stored(site)


def test_on_or_off(site):
    site.set("server_certificate_files", "perhaps")
    code, said = site.run_to_end()
    assert code == 1 and "[server] certificate_files: it is on or off" in said
