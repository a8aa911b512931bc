"""CRLs of many entries: shards, how often one is made, and what a crash in between leaves. The store is seeded, not
issued; verdicts on CRLs are OpenSSL's and GnuTLS's."""

import argparse
import contextlib
import http.client
import os
import re
import shutil
import signal
import sys
import time

import pytest
from cryptography import x509

from signet_site import BUILD, REPO, Key, Site, anchor_of, mac, run, serial_of, wait_for

SHARDS = 4


class Crls(Site):
    """With shards, and a public_url that leads here."""

    def __init__(self, kit, where, shards=SHARDS, **settings):
        super().__init__(kit, where, ca_crl_shards=shards, **settings)
        self.set("server_public_url", f"http://127.0.0.1:{self.http_port}")
        self.url = f"http://127.0.0.1:{self.http_port}"

    def seed(self, count, revoked, *more):
        """Into the stopped state, by the shape of a device's certificate."""
        self.start()
        op = self.operator()
        assert self.issue(op, Key(mac(1)))[0] == 200
        self.stop()
        shards = self.query("SELECT value FROM meta WHERE name = 'crl_shards'")
        run(BUILD / "tests/seed-store", "--revoked", revoked, "--shards", shards[0][0] if shards else 0, *more,
            self.state, count, timeout=600)
        return op

    def der(self, scope):
        status, der = self.get(f"/crl/{scope}" if scope else "/crl")
        return der if status == 200 else None

    def scope(self, scope):
        """The CRL of a scope as it is served, once there is one."""
        return x509.load_der_x509_crl(wait_for(lambda: self.der(scope), f"the CRL {scope} is served"))

    def listed(self, scope, serial):
        """The CRL of a scope, once it lists this serial."""
        def look():
            crl = self.scope(scope)
            return crl if crl.get_revoked_certificate_by_serial_number(int(serial, 16)) else None
        return wait_for(look, f"CRL {scope} lists {serial}")

    def numbers(self, scope):
        """Of this scope: those given out; those published."""
        rows = self.query("SELECT number, sha256 IS NOT NULL FROM crl WHERE shard = ? ORDER BY number", scope)
        return [n for n, _ in rows], [n for n, published in rows if published]

    def new(self, op, number, **fields):
        status, pem = self.issue(op, Key(mac(number)), **fields)
        assert status == 200, pem
        return x509.load_pem_x509_certificate(pem)

    def revoke(self, op, serial):
        status, answer = self.ask(op, "revoke_cert", serial=serial, reason="keyCompromise")
        assert status == 200, answer

    def shard_of(self, serial):
        return self.query("SELECT shard FROM certificate WHERE serial = ?", bytes.fromhex(serial))[0][0]

    def signers(self, number):
        for pid in self.roles()["signer"]:
            os.kill(pid, number)

    def verify(self, cert, scope, code):
        """openssl's verdict on a certificate, with the CRL of this scope alone."""
        pem, crl = self.dir / "cert.pem", self.dir / "crl.pem"
        pem.write_bytes(cert.public_bytes(x509.base.serialization.Encoding.PEM))
        crl.write_bytes(self.scope(scope).public_bytes(x509.base.serialization.Encoding.PEM))
        done = run("openssl", "verify", "-crl_check", "-extended_crl", "-CAfile", self.root, "-untrusted",
                   self.state / "ca-chain.pem", "-CRLfile", crl, pem, code=code)
        return done.stdout + done.stderr


def point(cert):
    (found,) = cert.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    return found.full_name[0].value


def shard_named(cert):
    found = re.search(r"/crl/(\d+)$", point(cert))
    return int(found.group(1)) if found else 0


def number_of(crl):
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


@pytest.fixture
def crls(kit, tmp_path):
    with Crls(kit, tmp_path / "site") as s:
        yield s


def issue_of_each(site, op, shards, first=100):
    """A certificate of each shard."""
    found = {}
    for number in range(first, first + 100 * shards):
        cert = site.new(op, number)
        found.setdefault(shard_named(cert), cert)
        if len(found) == shards:
            return found
    raise AssertionError(f"only the shards {sorted(found)}")


# ---- shards ----

def test_each_certificate_names_its_shard_and_openssl_judges_by_it(crls):
    crls.start()
    op = crls.operator()
    certs = issue_of_each(crls, op, SHARDS)
    assert sorted(certs) == list(range(1, SHARDS + 1))
    gone, kept = certs[1], certs[2]
    assert crls.shard_of(serial_of(gone)) == 1 and point(gone) == f"{crls.url}/crl/1"
    crls.revoke(op, serial_of(gone))
    crls.listed(0, serial_of(gone))
    crls.listed(1, serial_of(gone))
    assert "certificate revoked" in crls.verify(gone, 1, 2)
    assert "certificate revoked" in crls.verify(gone, 0, 2)
    assert ": OK" in crls.verify(kept, 2, 0) and ": OK" in crls.verify(kept, 0, 0)
    # the critical extension says that another shard's CRL says nothing of it
    assert "CRL" in crls.verify(kept, 1, 2) and "CRL" in crls.verify(gone, 2, 2)
    for scope in range(SHARDS + 1):
        found = list(crls.scope(scope).extensions)
        points = [e for e in found if e.oid == x509.oid.ExtensionOID.ISSUING_DISTRIBUTION_POINT]
        assert len(points) == (scope > 0)
        if scope:
            assert points[0].critical and points[0].value.full_name[0].value == f"{crls.url}/crl/{scope}"
    crls.ctl("audit")


def test_the_full_crl_is_all_shards_together(crls):
    """10,000 rows. GnuTLS verifies each; the extension of a shard's is one that it does not know."""
    op = crls.seed(10000, 5000)
    crls.start()
    wait_for(lambda: len(crls.scope(0)) == 5000, "the full CRL has the seeded")
    parts = wait_for(lambda: (lambda all: all if sum(map(len, all)) == 5000 else None)
                     ([crls.scope(i) for i in range(1, SHARDS + 1)]), "and so have the shards")
    full = {r.serial_number for r in crls.scope(0)}
    assert full == {r.serial_number for part in parts for r in part} and all(len(p) > 1000 for p in parts)
    ca = crls.dir / "ca.der"
    run("openssl", "x509", "-in", crls.state / "intermediate.pem", "-outform", "DER", "-out", ca)
    for scope in range(SHARDS + 1):
        path = crls.dir / f"{scope}.der"
        path.write_bytes(crls.der(scope))
        run("openssl", "crl", "-inform", "DER", "-in", path, "-noout", "-CAfile", crls.state / "intermediate.pem",
            "-verify")
        said = run("certtool", "--verify-crl", "--load-ca-certificate", ca, "--inder", "--infile", path).stdout
        assert "Verified" in said and ("2.5.29.28 (critical)" in said) == (scope > 0), said[-200:]
    # one more: on its shard and on the full one; the others stay as they are
    serial, shard = crls.query("SELECT lower(hex(serial)), shard FROM certificate WHERE state = 1 AND"
                               " profile = 'device' AND shard = 2 LIMIT 1")[0]
    before = {i: number_of(crls.scope(i)) for i in range(SHARDS + 1)}
    crls.revoke(op, serial)
    crls.listed(shard, serial)
    crls.listed(0, serial)
    after = {i: number_of(crls.scope(i)) for i in range(SHARDS + 1)}
    assert [i for i in after if after[i] != before[i]] == [0, 2]


def test_conditional_requests(crls):
    crls.start()
    wait_for(lambda: crls.der(3), "a shard's CRL")

    def ask(**headers):
        c = http.client.HTTPConnection("127.0.0.1", crls.http_port, timeout=60)
        with contextlib.closing(c):
            c.request("GET", "/crl/3", headers={k.replace("_", "-"): v for k, v in headers.items()})
            r = c.getresponse()
            return r.status, r.headers, r.read()
    status, first, body = ask()
    assert status == 200 and body and first["Content-Type"] == "application/pkix-crl"
    assert ask(If_None_Match=first["ETag"])[::2] == (304, b"")
    assert ask(If_Modified_Since=first["Last-Modified"])[::2] == (304, b"")
    assert ask(If_None_Match='"another"')[0] == 200
    crls.ctl("crl", "rebuild")
    wait_for(lambda: ask(If_None_Match=first["ETag"])[0] == 200, "a new one has another tag")


# ---- another configuration ----

def test_shards_once_named_are_published_for_ever(crls):
    crls.start()
    op = crls.operator()
    certs = issue_of_each(crls, op, SHARDS)
    crls.stop()
    crls.set("ca_crl_shards", 1)
    crls.start()
    plain = crls.new(op, 50)
    assert point(plain) == f"{crls.url}/crl" and crls.shard_of(serial_of(plain)) == 0
    crls.revoke(op, serial_of(certs[4]))
    crls.revoke(op, serial_of(plain))
    crls.listed(4, serial_of(certs[4]))
    assert "certificate revoked" in crls.verify(certs[4], 4, 2)
    assert not any(crls.scope(i).get_revoked_certificate_by_serial_number(plain.serial_number)
                   for i in range(1, SHARDS + 1))
    # more again, without a restart
    crls.set("ca_crl_shards", 6)
    crls.process.send_signal(signal.SIGHUP)
    wait_for(lambda: crls.der(6), "six shards")
    issue_of_each(crls, op, 6, 1000)
    crls.ctl("audit")
    crls.stop()
    crls.start()
    assert crls.der(6) and crls.der(5), "what the store has published is served at once"


def test_a_new_public_url_leaves_the_old_certificates_verifiable(crls):
    crls.start()
    op = crls.operator()
    old = issue_of_each(crls, op, SHARDS)[1]
    wait_for(lambda: all(crls.der(i) for i in range(SHARDS + 1)), "the first CRLs")
    crls.stop()
    crls.set("server_public_url", f"http://localhost:{crls.http_port}")
    crls.start()
    point_of = x509.IssuingDistributionPoint
    wait_for(lambda: len(crls.scope(1).extensions.get_extension_for_class(point_of).value.full_name) == 2,
             "the shard's CRL names both")
    new = issue_of_each(crls, op, SHARDS, 1000)[1]
    assert point(old) != point(new)
    for cert in (old, new):
        assert ": OK" in crls.verify(cert, 1, 0)


def test_shards_need_a_url(site):
    site.set("ca_crl_shards", 4)
    site.conf.write_text(re.sub(r"(?m)^public_url.*\n", "", site.conf.read_text()))
    code, said = site.run_to_end("--check")
    assert code != 0 and "crl_shards" in said and "public_url" in said


# ---- how often ----

def test_revocations_are_gathered(kit, tmp_path):
    """Of steady revocations each is on a CRL soon, but not each has one of its own."""
    with Crls(kit, tmp_path / "site", shards=1) as site:
        op = site.seed(2000, 10)
        site.start()
        wait_for(lambda: len(site.scope(0)) == 10, "the first CRL")
        serials = [s for s, in site.query("SELECT lower(hex(serial)) FROM certificate WHERE state = 1 AND"
                                          " profile = 'device' LIMIT 40")]
        before, begun = len(site.numbers(0)[1]), time.monotonic()
        for serial in serials:
            site.revoke(op, serial)
            time.sleep(0.1)
        site.listed(0, serials[-1])
        took, made = time.monotonic() - begun, len(site.numbers(0)[1]) - before
        assert made <= took + 2, f"{made} CRLs in {took:.1f} s of {len(serials)} revocations"


def test_the_next_waits_in_proportion_but_who_asks_does_not(kit, tmp_path):
    """The signers stand still for a while, so that a CRL takes long."""
    with Crls(kit, tmp_path / "site", shards=1) as site:
        site.start()
        op = site.operator()
        certs = [serial_of(site.new(op, i)) for i in range(2)]
        wait_for(lambda: site.der(0), "the first CRL")
        time.sleep(1.5)
        site.signers(signal.SIGSTOP)
        try:
            site.revoke(op, certs[0])
            time.sleep(3)
        finally:
            site.signers(signal.SIGCONT)
        site.listed(0, certs[0])
        site.revoke(op, certs[1])
        time.sleep(4)  # of four times what it took, which was two seconds at the least
        assert not site.scope(0).get_revoked_certificate_by_serial_number(int(certs[1], 16))
        site.ctl("crl", "rebuild")
        assert site.scope(0).get_revoked_certificate_by_serial_number(int(certs[1], 16))


# ---- ends ----

def test_a_publisher_killed_in_a_shard_is_followed_by_another(crls):
    crls.start()
    op = crls.operator()
    certs = issue_of_each(crls, op, SHARDS)
    wait_for(lambda: all(crls.der(i) for i in range(SHARDS + 1)), "the first CRLs")
    time.sleep(1.5)
    crls.signers(signal.SIGSTOP)
    try:
        crls.revoke(op, serial_of(certs[3]))
        pid = wait_for(lambda: crls.roles().get("publisher"), "a publisher")[0]
        os.kill(pid, signal.SIGKILL)
    finally:
        crls.signers(signal.SIGCONT)
    crls.listed(3, serial_of(certs[3]))
    crls.listed(0, serial_of(certs[3]))
    for scope in range(SHARDS + 1):
        given, published = crls.numbers(scope)
        assert given == list(range(1, len(given) + 1)) and published
        assert number_of(crls.scope(scope)) == published[-1]
    crls.ctl("audit")


def test_signetd_killed_in_a_shard_forgets_nothing(crls):
    crls.start()
    op = crls.operator()
    certs = issue_of_each(crls, op, SHARDS)
    wait_for(lambda: all(crls.der(i) for i in range(SHARDS + 1)), "the first CRLs")
    time.sleep(1.5)
    crls.signers(signal.SIGSTOP)
    for shard in (1, 2):
        crls.revoke(op, serial_of(certs[shard]))
    wait_for(lambda: crls.roles().get("publisher"), "a publisher")
    pids = crls.roles()["signer"]
    crls.process.kill()
    crls.process.wait(60)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the signers end")
    crls.start()
    for shard in (1, 2):
        for scope in (shard, 0):
            crls.listed(scope, serial_of(certs[shard]))
    for scope in range(SHARDS + 1):
        given, published = crls.numbers(scope)
        assert given == sorted(set(given)) and number_of(crls.scope(scope)) == published[-1]
        assert anchor_of(crls.scope(scope))[0] > 0
    crls.ctl("audit")


# ---- signetctl ----

def test_audit_sees_a_shard_that_was_exchanged(crls):
    crls.start()
    op = crls.operator()
    certs = issue_of_each(crls, op, SHARDS)
    crls.revoke(op, serial_of(certs[1]))
    crls.listed(1, serial_of(certs[1]))
    crls.listed(0, serial_of(certs[1]))
    crls.stop()
    one, two, kept = crls.state / "crl-1.der", crls.state / "crl-2.der", crls.dir / "kept.der"
    crls.ctl("audit")
    shutil.copy(one, kept)
    shutil.copy(two, one)
    said = crls.ctl("audit", code=6).stdout
    assert "crl-1.der is not the CRL" in said or "crl-1.der is number" in said, said
    one.unlink()
    assert "crl-1.der is missing" in crls.ctl("audit", code=6).stdout
    shutil.copy(kept, one)
    crls.ctl("audit")
    one.unlink()
    crls.start()
    crls.listed(1, serial_of(certs[1]))  # made anew
    crls.ctl("audit")


def test_a_restore_forgets_no_shard(crls):
    crls.start()
    op = crls.operator()
    before = issue_of_each(crls, op, SHARDS)
    backup = crls.dir / "backup"
    wait_for(lambda: all(crls.der(i) for i in range(SHARDS + 1)), "the CRLs")
    crls.ctl("backup", "--out", backup)
    assert (backup / "crl-1.der").exists() and "crl-1.der" in (backup / "SHA256SUMS").read_text()
    lost = crls.new(op, 77)
    shard = shard_named(lost)
    for cert in (lost, before[1]):
        crls.revoke(op, serial_of(cert))
        crls.listed(0, serial_of(cert))
        crls.listed(shard_named(cert), serial_of(cert))
    newest = crls.dir / "newest.der"
    newest.write_bytes(crls.der(0))
    had = {i: number_of(crls.scope(i)) for i in range(SHARDS + 1)}
    device = crls.dir / "lost.crt"
    device.write_bytes(lost.public_bytes(x509.base.serialization.Encoding.PEM))
    crls.stop()
    crls.state.rename(crls.dir / "old")
    crls.state.mkdir(0o750)
    crls.ctl("restore", "--from", backup, "--crl", newest)
    crls.start()
    for scope in range(SHARDS + 1):
        # nobody knows the shard of the lost one: all of them list it
        assert number_of(crls.listed(scope, serial_of(lost))) > had[scope] + 1000
    crls.listed(1, serial_of(before[1]))
    crls.ctl("audit")
    crls.ctl("import", device)
    assert crls.shard_of(serial_of(lost)) == shard
    crls.ctl("crl", "rebuild")
    crls.listed(shard, serial_of(lost))
    wait_for(lambda: not any(crls.scope(i).get_revoked_certificate_by_serial_number(lost.serial_number)
                             for i in range(1, SHARDS + 1) if i != shard), "only its own shard lists it")
    assert "certificate revoked" in crls.verify(lost, shard, 2)


# ---- a million ----

@pytest.mark.long
def test_a_million_entries(kit, tmp_path):
    """The figures of tests/bench/crl.py, printed (-s), and what they must keep to, against each other in one run."""
    sys.path.insert(0, str(REPO / "tests/bench"))
    import crl
    asked = argparse.Namespace(sizes=os.environ.get("SIGNET_CRL_SIZES", "10000,100000,1000000"), rounds=3, count=2000,
                               revocations=300)
    rows = crl.table(asked, kit, tmp_path)
    few, most = rows[0], rows[-1]
    assert all(row["peak_mib"] <= 64 for row in rows), rows
    assert most["seconds"] / few["seconds"] <= 1.5 * most["entries"] / few["entries"], rows
    assert most["beside"] >= 0.5 * most["alone"], rows
    at_few, at_most = crl.revocations(asked, kit, tmp_path)
    assert at_most[0] <= 1.5 * at_few[0], (at_few, at_most)
