"""The whole way, once: tokens, CAs, signetd, an operator, a device, its revocation. The verdicts are those of
programs that this project did not write."""

import base64
import json
import shutil
import ssl
import time
import urllib.request
from email.utils import parsedate_to_datetime

import pytest
from cryptography import x509

from signet_site import ISSUED, REVOKED, Key, Kit, Site, mac, run, serial_of

MAC = "24:0a:c4:12:34:56"


def der_to_pem(source, target):
    run("openssl", "crl", "-inform", "DER", "-in", source, "-out", target)
    return target


class Verdicts:
    """openssl and certtool on a certificate, with the CRLs as a verifier would fetch them."""

    def __init__(self, site):
        self.site, self.dir = site, site.dir
        site.crl()  # wait until it is fresh
        for name, path in (("crl", "/crl"), ("root-crl", "/root-crl")):
            status, body = site.get(path)
            assert status == 200, path
            (self.dir / f"{name}.der").write_bytes(body)
            der_to_pem(self.dir / f"{name}.der", self.dir / f"{name}.pem")
        self.intermediate = site.state / "intermediate.pem"

    def openssl(self, cert, *more, code=0):
        return run("openssl", "verify", "-x509_strict", "-CAfile", self.site.root, "-untrusted", self.intermediate,
                   "-CRLfile", self.dir / "crl.pem", "-CRLfile", self.dir / "root-crl.pem", *more, cert, code=code)

    def good(self, cert):
        for more in (["-crl_check"], ["-crl_check_all"], ["-crl_check_all", "-purpose", "sslclient"]):
            assert "OK" in self.openssl(cert, *more).stdout
        self.openssl(cert, "-purpose", "sslserver", code=2)
        assert "Chain verification output: Verified" in self.certtool(cert)

    def revoked(self, cert):
        done = self.openssl(cert, "-crl_check_all", code=2)
        assert "certificate revoked" in done.stdout + done.stderr
        assert "revoked" in self.certtool(cert, code=1)

    def certtool(self, cert, code=0):
        chain, crls = self.dir / "whole.pem", self.dir / "crls.pem"
        chain.write_bytes(cert.read_bytes() + self.intermediate.read_bytes())
        crls.write_bytes((self.dir / "crl.pem").read_bytes() + (self.dir / "root-crl.pem").read_bytes())
        return run("certtool", "--verify", "--infile", chain, "--load-ca-certificate", self.site.root,
                   "--load-crl", crls, code=code).stdout

    def certtool_crls(self):
        for crl, issuer in (("crl", self.intermediate), ("root-crl", self.site.root)):
            out = run("certtool", "--verify-crl", "--load-crl", self.dir / f"{crl}.pem", "--load-ca-certificate",
                      issuer, "--infile", self.dir / f"{crl}.pem").stdout
            assert "Verification output: Verified." in out, out


@pytest.mark.parametrize("key_type, root_type", [("ec:p256", "ec:p384"), ("rsa:2048", "rsa:2048"),
                                                 ("ec:p384", "ec:p384"), ("rsa:3072", "rsa:4096")])
def test_whole_way(tmp_path, key_type, root_type):
    with Site(Kit(tmp_path / "kit", key_type, root_type), tmp_path / "site") as site:
        site.start()
        assert "warning" not in site.log(), site.log()
        site.client()
        out = site.dir / "devices"
        site.signet("provision", "--mac", MAC, "--key-type", "ec:p256" if key_type < "r" else "rsa:2048", "--out", out)
        (cert,) = out.glob("*/device.crt")
        key = cert.parent / "device.key"
        assert key.stat().st_mode & 0o777 == 0o600
        assert run("openssl", "x509", "-in", cert, "-noout", "-pubkey").stdout == \
            run("openssl", "pkey", "-in", key, "-pubout").stdout
        text = run("openssl", "x509", "-in", cert, "-noout", "-subject", "-ext",
                   "basicConstraints,keyUsage,extendedKeyUsage,crlDistributionPoints,authorityInfoAccess").stdout
        for word in (f"CN = {MAC}", "CA:FALSE", "Digital Signature", "TLS Web Client Authentication",
                     f"URI:http://127.0.0.1:{site.http_port}/crl", f"URI:http://127.0.0.1:{site.http_port}/ca.cer"):
            assert word in text, (word, text)

        verdicts = Verdicts(site)
        verdicts.good(cert)
        verdicts.certtool_crls()
        site.signet("verify", "--mac", MAC, "--out", out)

        site.signet("revoke", "--certificate", cert, "--reason", "keyCompromise")
        verdicts = Verdicts(site)
        verdicts.revoked(cert)
        verdicts.certtool_crls()
        site.signet("crl", "--out", site.dir / "fetched.crl")
        assert site.signet("verify", "--mac", MAC, "--out", out, code=None).returncode == 6
        (entry,) = site.crl()
        serial = serial_of(x509.load_pem_x509_certificate(cert.read_bytes()))
        assert f"{entry.serial_number:032x}" == serial
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        assert reason == x509.ReasonFlags.key_compromise

        books = site.check_books([cert.read_bytes()])
        assert books[serial][0] == REVOKED
        file = site.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem"
        assert file.read_bytes() == cert.read_bytes()

        site.stop()
        site.start()  # and all is as it was
        assert site.check_books([cert.read_bytes()])[serial] == books[serial]
        Verdicts(site).revoked(cert)
        site.stop()


def test_curl_and_openssl_alone(site):
    """One request, with what is on every machine."""
    site.start()
    op = site.operator()
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
        "device.key", "-subj", f"/CN={MAC}", "-out", "device.csr", cwd=site.dir)
    csr = run("base64", "-w0", "device.csr", cwd=site.dir).stdout
    answer = run("curl", "-sS", "--fail-with-body", "--cacert", site.root, "--cert", op.cert, "--key", op.key, "-H",
                 "Content-Type: application/json", "-d",
                 json.dumps({"operation": "req_client_cert", "csr": csr}), f"https://127.0.0.1:{site.port}/v1")
    body = json.loads(answer.stdout)
    assert body["status"] == "OK" and body["operation"] == "req_client_cert"
    cert = site.dir / "device.crt"
    cert.write_bytes(base64.b64decode(body["certificate"]))
    assert base64.b64decode(body["chain"]) == (site.state / "ca-chain.pem").read_bytes()
    Verdicts(site).good(cert)
    assert site.check_books([cert.read_bytes()])[body["serial"]][0] == ISSUED


def test_plain_http(site):
    """What verifiers fetch: the CA as DER under AIA's address, both CRLs, nothing else."""
    site.start()
    for path, pem in (("/ca.cer", site.state / "intermediate.pem"), ("/root.cer", site.root)):
        status, body = site.get(path)
        assert (status, body) == (200, ssl.PEM_cert_to_DER_cert(pem.read_text())), path
    site.crl()
    status, body = site.get("/crl")
    assert status == 200 and body == (site.state / "crl.der").read_bytes()
    status, body = site.get("/root-crl")
    assert status == 200 and body == (site.state / "root-crl.der").read_bytes()
    for path in ("/", "/v1", "/crl/", "/../signet.conf", "/signet.db"):
        assert site.get(path)[0] in (400, 404, 405), path
    at = int((site.state / "crl.der").stat().st_mtime)
    site.stop()
    time.sleep(max(0, at + 1 - time.time()))
    site.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{site.http_port}/crl") as r:
        assert parsedate_to_datetime(r.headers["Last-Modified"]).timestamp() == at, "it is the same CRL"


def test_anyone_and_operator(site):
    """get_ca_chain, get_crl and liveness without a certificate; detail with one."""
    site.start()
    op, auditor = site.operator(), site.operator("audit", "auditor")
    status, body = site.ask(None, "get_ca_chain")
    assert status == 200 and base64.b64decode(body["chain"]) == (site.state / "ca-chain.pem").read_bytes()
    site.crl()
    status, body = site.ask(None, "get_crl")
    assert status == 200
    x509.load_pem_x509_crl(base64.b64decode(body["crl"]))
    status, body = site.ask(None, "get_status")
    assert status == 200 and body["ready"] is True and "certificates" not in body
    assert site.issue(op, Key(MAC))[0] == 200
    status, body = site.ask(auditor, "get_status")
    assert body["signers"] == {"ready": 2, "wanted": 2} and body["certificates"]["issued"] == 4, body


def test_cannot_be_made_anew(site):
    """A store that is lost while its journal stands is not made anew behind one's back; a journal that was cut or
    edited is noticed."""
    site.start()
    op = site.operator()
    for i in range(3):
        assert site.issue(op, Key(mac(i)))[0] == 200
    site.stop()
    whole = site.dir / "whole"
    shutil.copytree(site.state, whole)

    def refused(word):
        code, said = site.run_to_end()
        assert code == 1 and word in said, said
        shutil.rmtree(site.state)
        shutil.copytree(whole, site.state)

    for f in site.state.glob("signet.db*"):
        f.unlink()
    refused("signet.db")
    journal = site.state / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    refused("it was cut")
    journal.write_text("".join(lines[:-1]) + lines[-1].replace("T", "t", 1))
    refused("journal.log")
    for f in site.state.glob("signet.db-*"):
        f.unlink()  # a write-ahead log, where there is one, would heal it
    (site.state / "signet.db").write_bytes(b"SQLite format 3\0" + bytes(4096))
    refused("signet.db")
    site.start()
    assert site.issue(op, Key(mac(9)))[0] == 200
    site.check_books()
