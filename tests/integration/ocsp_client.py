"""OCSP as clients ask it: requests made here, answers read and verified by cryptography or by `openssl ocsp`."""

import calendar
import contextlib
import hashlib
import http.client
import os
import random
import re
import sys
import time

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from desk import REASONS
from signet_site import ISSUED, PATIENCE, REPO, Connection, run, wait_for

sys.path.insert(0, str(REPO / "tests" / "corpus"))
from make_csr import integer, oid, seq, tlv  # noqa: E402

NONCE = "1.3.6.1.5.5.7.48.1.2"
SHA1, SHA256 = ("1.3.14.3.2.26", "sha1"), ("2.16.840.1.101.3.4.2.1", "sha256")
MALFORMED, INTERNAL, TRY_LATER, UNAUTHORIZED = (bytes([0x30, 3, 0x0A, 1, n]) for n in (1, 2, 3, 6))
GOOD, UNKNOWN = ("good", None, None), ("unknown", None, None)


def word_of(state, reason, at):
    """What an answer must say of a row of the store."""
    return GOOD if state == ISSUED else ("revoked", REASONS[reason], at)


def request(issuer, *serials, nonce=b"", by=SHA1):
    """DER of an OCSPRequest for serials (hex) of the issuer (x509)."""
    algorithm, name = by
    spki = issuer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    hashes = [hashlib.new(name, data).digest() for data in (issuer.subject.public_bytes(), spki)]
    singles = [seq(seq(seq(oid(algorithm), tlv(5)), *(tlv(4, h) for h in hashes), integer(int(s, 16)))) for s in serials]
    extensions = tlv(0xA2, seq(seq(oid(NONCE), tlv(4, tlv(4, nonce))))) if nonce else b""
    return seq(seq(seq(*singles), extensions))


class Answer:
    """A response: its status, and what it says of each certificate, in the words of word_of()."""

    def __init__(self, der, issuer=None, headers=None):
        self.der, self.headers = der, headers
        self.read = ocsp.load_der_ocsp_response(der)
        self.status = self.read.response_status.name
        if self.status != "SUCCESSFUL":
            return
        if issuer:
            self.verify(issuer)
        self.words = {f"{one.serial_number:032x}": self.word(one) for one in self.read.responses}
        first = next(iter(self.read.responses))
        self.this_update, self.next_update = (calendar.timegm(t.timetuple()) for t in (first.this_update, first.next_update))
        nonces = [e.value.nonce for e in self.read.extensions if isinstance(e.value, x509.OCSPNonce)]
        self.nonce = nonces[0] if nonces else b""

    @staticmethod
    def word(one):
        if one.certificate_status != ocsp.OCSPCertStatus.REVOKED:
            return GOOD if one.certificate_status == ocsp.OCSPCertStatus.GOOD else UNKNOWN
        reason = one.revocation_reason
        return "revoked", reason.value if reason else None, calendar.timegm(one.revocation_time.timetuple())

    def verify(self, issuer):
        """Signed by a responder whose certificate the issuer signed, for nothing else."""
        (cert,) = self.read.certificates
        issuer.public_key().verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(cert.signature_hash_algorithm))
        cert.public_key().verify(self.read.signature, self.read.tbs_response_bytes,
                                 ec.ECDSA(self.read.signature_hash_algorithm))
        usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [x509.ExtendedKeyUsageOID.OCSP_SIGNING]
        cert.extensions.get_extension_for_class(x509.OCSPNoCheck)
        self.responder = cert


class Ocsp:
    """One kept-alive connection to the plain port (or, with over_tls, to the other)."""

    def __init__(self, site, over_tls=False):
        self.site = site
        self.issuer = x509.load_pem_x509_certificate((site.state / "intermediate.pem").read_bytes())
        self.http = Connection(site).http if over_tls else \
            http.client.HTTPConnection("127.0.0.1", site.http_port, timeout=PATIENCE)
        self.http.connect()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def send(self, der):
        self.http.request("POST", "/ocsp", der, {"Content-Type": "application/ocsp-request"})
        response = self.http.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        return Answer(body, self.issuer, response.headers)

    def ask(self, *serials, patient=False, **how):
        """patient: None instead of tryLater."""
        answer = self.send(request(self.issuer, *serials, **how))
        return None if patient and answer.der == TRY_LATER else answer

    def word(self, serial, **how):
        answer = self.ask(serial, **how)
        assert answer.status == "SUCCESSFUL", answer.status
        assert list(answer.words) == [f"{int(serial, 16):032x}"]
        return answer.words[serial]

    def front(self):
        """The pid of the front at the other end."""
        local, remote = self.http.sock.getsockname()[1], self.http.sock.getpeername()[1]
        for line in open("/proc/net/tcp"):
            fields = line.split()
            if fields[1].endswith(f":{remote:04X}") and fields[2].endswith(f":{local:04X}"):
                for pid in self.site.roles()["front"]:
                    for fd in os.listdir(f"/proc/{pid}/fd"):
                        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                            if os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{fields[9]}]":
                                return pid
        return None


def one_of_each_front(site, make):
    """A connection to each front; make() opens one, to whichever front."""
    found, spare = {}, []

    def all_there():
        c = make()
        front = c.front()
        if front is None or front in found:
            spare.append(c)
        else:
            found[front] = c
        return len(found) == len(site.roles()["front"])
    wait_for(all_there, "a connection to each front")
    for c in spare:
        c.http.close()
    return list(found.values())


def has_ocsp(site):
    return re.search(r"^\s*ocsp_key_(label|id)\s*=", site.conf.read_text(), re.M) is not None


def answers_begin(site):
    """Waits until the responder has its certificate."""
    with Ocsp(site) as c:
        wait_for(lambda: c.ask("1").status == "SUCCESSFUL", "the responder has a certificate")


def by_openssl(site, serial, *more, env=None, code=0):
    """`openssl ocsp`'s verdict on one certificate, in the words of word_of(), or what it said."""
    said = run("openssl", "ocsp", "-issuer", site.state / "intermediate.pem", "-serial", f"0x{serial}", "-url",
               f"http://127.0.0.1:{site.http_port}/ocsp", "-CAfile", site.state / "ca-chain.pem", "-resp_text", *more,
               env=env, code=code)
    if "Response verify OK" not in said.stderr:
        return said.stdout + said.stderr
    fields = dict(re.findall(r"^\s*([^:\n]+): (.*)$", said.stdout, re.M))
    word = fields[f"0x{serial}"]
    assert word in ("good", "revoked", "unknown"), said.stdout
    at = fields.get("Revocation Time")
    reason = re.search(r"Revocation Reason: .* \(0x(\w+)\)", said.stdout)  # by its number: it has no names from 9 on
    return word, REASONS[int(reason.group(1), 16)] if reason else None, at and calendar.timegm(time.strptime(at, "%b %d %H:%M:%S %Y GMT"))


def some_serial():
    return f"{random.getrandbits(126):032x}"
