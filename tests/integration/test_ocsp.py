"""OCSP by the whole of signetd, its responder's key in the token. Those who ask and judge are openssl and ocsptool;
how often the token signed is what a shim before it counted."""

import base64
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from hsm_harness import Shim
from ocsp_responder import MALFORMED, TRY_LATER, TYPE, UNAUTHORIZED
from signet_site import Key, Site, mac, run, serial_of, wait_for

REQUEST_TYPE = "application/ocsp-request"
REASONS = ("keyCompromise", "superseded", "certificateHold")


class Desk:
    """A signetd with an operator; devices; what programs that this project did not write say of them."""

    def __init__(self, site):
        self.site, self.made = site, 0
        self.chain, self.issuer = site.state / "ca-chain.pem", site.state / "intermediate.pem"
        self.anchors = site.dir / "anchors.pem"
        self.operator = site.operator()
        self.anchors.write_bytes(self.issuer.read_bytes() + site.root.read_bytes())
        self.url = f"http://127.0.0.1:{site.http_port}/ocsp"

    def answers(self):
        """Waits until the responder has its certificate, and a signer with its key."""
        der = self.request(self.device())
        wait_for(lambda: self.curl(der)[2] != TRY_LATER, "the responder answers")

    def device(self):
        self.made += 1
        key = Key(mac(self.made))
        status, answer = self.site.issue(self.operator, key)
        assert status == 200, answer
        path = self.site.dir / f"device-{self.made}.pem"
        path.write_bytes(answer)
        return path

    def serial(self, path):
        return serial_of(x509.load_pem_x509_certificate(path.read_bytes()))

    def revoke(self, path, reason="keyCompromise"):
        status, answer = self.site.ask(self.operator, "revoke_cert", serial=self.serial(path), reason=reason)
        assert status == 200, answer

    def openssl(self, *certs, args=("-no_nonce",), out=None, code=0):
        """{certificate: state} and all that it said."""
        which = [a for c in certs for a in ("-cert", c)]
        done = run("openssl", "ocsp", *args, "-issuer", self.issuer, *which, "-url", self.url, "-CAfile", self.anchors,
                   *(["-respout", out] if out else []), code=code)
        said = done.stdout + done.stderr
        assert code or "Response verify OK" in said, said
        return [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith(str(self.site.dir))], said

    def ocsptool(self, cert, *args):
        return run("ocsptool", f"--ask={self.url}", "--load-cert", cert, "--load-issuer", self.issuer, "--load-trust",
                   self.anchors, *args).stdout

    def request(self, cert, algorithm=None, nonce=b""):
        builder = ocsp.OCSPRequestBuilder().add_certificate(x509.load_pem_x509_certificate(cert.read_bytes()), x509
                  .load_pem_x509_certificate(self.issuer.read_bytes()), algorithm or hashes.SHA1())
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.build().public_bytes(serialization.Encoding.DER)

    def curl(self, der, *args, get=False, url=None):
        """(status, headers, body)"""
        body, head = self.site.dir / "curl-body", self.site.dir / "curl-head"
        (self.site.dir / "curl-request").write_bytes(der)
        quoted = "".join(f"%{ord(c):02X}" if c in "+/=" else c for c in base64.b64encode(der).decode())
        how = [f"{url or self.url}/{quoted}"] if get else \
            ["-H", f"Content-Type: {REQUEST_TYPE}", "--data-binary", f"@{self.site.dir}/curl-request", url or self.url]
        body.write_bytes(b"")
        status = run("curl", "-s", "--max-time", "20", "-D", head, "-o", body, "-w", "%{http_code}", *args, *how).stdout
        headers = dict(line.lower().split(": ", 1) for line in head.read_text().splitlines() if ": " in line)
        return int(status), headers, body.read_bytes()


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return Shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def site(kit, tmp_path, shim):
    with Site(kit, tmp_path / "site", ocsp=True) as s:
        s.set("token_module", shim.library)
        for name, value in shim.env.items():
            s.set(f"token_env.{name}", value)
        yield s
    shim.order()


@pytest.fixture
def desk(site):
    site.start()
    d = Desk(site)
    d.answers()
    return d


def signatures(shim, pause=0.3):
    time.sleep(pause)  # what is under way
    return len(shim.signatures())


# ---- what the independent programs say ----


def test_openssl_and_ocsptool(desk):
    good, revoked, held = (desk.device() for _ in range(3))
    desk.revoke(revoked)
    desk.revoke(held, "certificateHold")
    for args in (("-no_nonce",), ("-nonce",), ("-sha256", "-no_nonce"), ("-sha256", "-nonce")):
        assert desk.openssl(good, args=args)[0] == ["good"]
        states, said = desk.openssl(revoked, args=args)
        assert states == ["revoked"] and "Reason: keyCompromise" in said
        assert "WARNING" not in said, said
        states, said = desk.openssl(good, revoked, held, args=args)
        assert states == ["good", "revoked", "revoked"] and "Reason: certificateHold" in said
    for args in (("--no-nonce",), ("--nonce",)):
        said = desk.ocsptool(good, *args[args[0] == "--no-nonce":])
        assert "Certificate Status: good" in said and "Success" in said, said
    assert "Certificate Status: revoked" in desk.ocsptool(revoked)


def test_unknown_unauthorized_malformed(desk, kit):
    done = run("openssl", "ocsp", "-issuer", desk.issuer, "-serial", "0x4f0011223344", "-url", desk.url, "-CAfile",
               desk.anchors)
    assert "0x4f0011223344: unknown" in done.stdout and "Response verify OK" in done.stderr
    foreign = run("openssl", "ocsp", "-issuer", desk.site.root, "-serial", "1", "-url", desk.url, "-CAfile",
                  desk.anchors, code=1)
    assert "unauthorized" in foreign.stdout + foreign.stderr
    for how in ({}, {"get": True}):
        status, headers, body = desk.curl(b"not a request", **how)
        assert (status, body, headers["content-type"], headers["cache-control"]) == (200, MALFORMED, TYPE, "no-store")


def test_no_key_no_ocsp(kit, tmp_path):
    with Site(kit, tmp_path / "site") as s:
        s.start()
        d = Desk(s)
        for how in ({}, {"get": True}):
            assert d.curl(d.request(d.issuer), **how)[0] == 404


def test_the_word_of_the_crl(desk):
    """Reason and time, to the second."""
    revoked = {}
    for reason in REASONS:
        device = desk.device()
        desk.openssl(device)
        desk.revoke(device, reason)
        revoked[device] = desk.curl(desk.request(device))[2]
    for device, der in revoked.items():
        answer = ocsp.load_der_ocsp_response(der)
        serial = int(desk.serial(device), 16)
        entry = wait_for(lambda: desk.site.crl().get_revoked_certificate_by_serial_number(serial), "it is on the CRL")
        assert answer.certificate_status.name == "REVOKED"
        assert answer.revocation_time == entry.revocation_date
        assert answer.revocation_reason == entry.extensions.get_extension_for_class(x509.CRLReason).value.reason


# ---- signed once ----


def test_signed_once_in_whatever_way_it_is_asked(desk, shim):
    desk.site.stop()
    desk.site.set("server_fronts", 1)
    desk.site.start()
    desk.answers()
    device = desk.device()
    der = desk.request(device)
    wait_for(lambda: desk.curl(der)[2] != TRY_LATER, "an answer")
    before = signatures(shim)
    tls = ("--cacert", desk.site.root)
    https = f"https://127.0.0.1:{desk.site.port}/ocsp"
    answers = [desk.curl(der), desk.curl(der, get=True), desk.curl(der, *tls, url=https),
               desk.curl(der, *tls, get=True, url=https)]
    assert len({(status, headers["etag"], body) for status, headers, body in answers}) == 1
    status, headers, body = answers[1]
    assert headers["content-type"] == TYPE and "max-age=" in headers["cache-control"]
    assert desk.curl(der, "-H", f"If-None-Match: {headers['etag']}", get=True)[0] == 304
    assert desk.openssl(device)[0] == ["good"]
    assert signatures(shim) == before
    assert desk.curl(desk.request(device, hashes.SHA256()))[2] != body
    assert signatures(shim) == before + 1
    nonced = [desk.curl(desk.request(device, nonce=bytes([n]) * 32)) for n in (1, 2)]
    assert nonced[0][2] != nonced[1][2] and {h["cache-control"] for _, h, _ in nonced} == {"no-store"}
    assert signatures(shim) == before + 3
    desk.revoke(device)
    changed = desk.curl(der)[2]
    assert ocsp.load_der_ocsp_response(changed).certificate_status.name == "REVOKED"
    assert desk.curl(der, get=True)[2] == changed


def test_known_to_every_front_at_once(desk):
    """All fronts have it as good; from the acknowledgement on none says so."""
    desk.site.stop()
    desk.site.set("server_fronts", 2)
    desk.site.start()
    desk.answers()
    for _ in range(5):
        device = desk.device()
        der = desk.request(device)
        for _ in range(8):  # new connections: whichever front takes them
            assert ocsp.load_der_ocsp_response(desk.curl(der)[2]).certificate_status.name == "GOOD"
        desk.revoke(device)
        for _ in range(8):
            assert ocsp.load_der_ocsp_response(desk.curl(der)[2]).certificate_status.name == "REVOKED"


# ---- what is missing ----


def test_while_the_token_is_away(desk, shim):
    desk.site.stop()
    desk.site.set("server_fronts", 1)
    desk.site.start()
    desk.answers()
    kept, other = desk.device(), desk.device()
    der = desk.request(kept)
    body = wait_for(lambda: (desk.curl(der)[2] != TRY_LATER) and desk.curl(der)[2], "an answer")
    shim.order("token gone e0")
    desk.curl(desk.request(other, nonce=b"n" * 16))  # so that it is noticed
    wait_for(lambda: desk.curl(desk.request(other))[2] == TRY_LATER, "it is away")
    assert desk.curl(der)[2] == body
    assert desk.curl(desk.request(kept, nonce=b"n" * 16))[2] == body
    assert "Response verify OK" in desk.openssl(kept)[1]
    shim.order()
    wait_for(lambda: desk.curl(desk.request(other))[2] != TRY_LATER, "it is back")
    assert desk.openssl(other)[0] == ["good"]


def test_strangers_do_not_spend_the_token(desk, shim):
    desk.site.stop()
    desk.site.set("server_fronts", 1)
    desk.site.set("ca_ocsp_budget", 1)
    desk.site.start()
    desk.answers()
    device = desk.device()
    der = desk.request(device)
    body = wait_for(lambda: (desk.curl(der)[2] != TRY_LATER) and desk.curl(der)[2], "an answer")
    before, began = signatures(shim), time.monotonic()
    bodies = [desk.curl(desk.request(device, nonce=bytes([n]) * 32))[2] for n in range(30)]
    most = 2 + time.monotonic() - began
    signed = signatures(shim) - before
    assert signed <= most and sum(b != body for b in bodies) == signed < 30
