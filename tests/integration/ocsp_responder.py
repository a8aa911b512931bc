"""The authority's part of OCSP, made up: `openssl ocsp` signs what a front asks. And OCSP clients."""

import base64
import sys
import time
import urllib.parse

from front_harness import ERRORS, REPO, run

sys.path.insert(0, str(REPO / "tests" / "corpus"))
from make_csr import integer, oid, seq, tlv  # noqa: E402

HASHES = {20: "1.3.14.3.2.26", 32: "2.16.840.1.101.3.4.2.1"}
NONCE = "1.3.6.1.5.5.7.48.1.2"
TYPE = "application/ocsp-response"
MALFORMED, INTERNAL, TRY_LATER, UNAUTHORIZED = (bytes([0x30, 3, 0x0A, 1, n]) for n in (1, 2, 3, 6))


def unpack(packed):
    ids = []
    while packed:
        h, s = packed[0], packed[1]
        fields, packed = packed[2:2 + 2 * h + s], packed[2 + 2 * h + s:]
        assert len(fields) == 2 * h + s
        ids.append((fields[:h], fields[h:2 * h], int.from_bytes(fields[2 * h:], "big")))
    return ids


def request(ids, nonce=b""):
    """DER of an OCSPRequest; nonce: the extension's value."""
    singles = [seq(seq(seq(oid(HASHES[len(name)]), tlv(5)), tlv(4, name), tlv(4, key), integer(serial)))
               for name, key, serial in ids]
    extensions = tlv(0xA2, seq(seq(oid(NONCE), tlv(4, nonce)))) if nonce else b""
    return seq(seq(seq(*singles), extensions))


class Responder:
    """Front.answer may be one. Serials that it was given are good or revoked, all others unknown."""

    def __init__(self, pki, life=3600):
        self.pki, self.life, self.states, self.signed = pki, life, {}, 0
        self.refuse = None  # the code with which a question is refused
        self.refuse_nonces = None
        self.hold = None  # an event: answers wait for it
        self.age = 0  # how long ago the answers began
        self.key, self.cert = pki.leaf("ocsp", "/CN=responder", "extendedKeyUsage=OCSPSigning",
                                       serial="0x77")

    def __call__(self, name, values):
        if name != "ocsp":
            return "answer_status", {"ready": 1}
        if self.hold:
            self.hold.wait(20)
        code = self.refuse_nonces if values["nonce"] and self.refuse_nonces else self.refuse
        if code:
            return "answer_error", {"code": ERRORS.index(code)}
        return "answer_ocsp", self.sign(unpack(values["certids"]), values["nonce"])

    def sign(self, ids, nonce=b""):
        self.signed += 1
        index, ask, out = (self.pki.path(f"ocsp-{n}") for n in ("index", "request", "response"))
        index.write_text("".join(f"{state}\t351231235959Z\t{'261101000000Z,keyCompromise' if state == 'R' else ''}"
                                 f"\t{serial:0{len(f'{serial:x}') + len(f'{serial:x}') % 2}X}\tunknown\t/CN={serial}\n"
                                 for serial, state in self.states.items()))
        ask.write_bytes(request(ids, nonce))
        run("openssl", "ocsp", "-index", index, "-CA", self.pki.ca, "-rsigner", self.cert, "-rkey", self.key,
            "-reqin", ask, "-respout", out, "-nmin", "60", "-noverify")
        now = int(time.time())
        alone = bool(nonce) or len(ids) > 1 or ids[0][2] not in self.states
        return {"response": out.read_bytes(), "this_update": now - self.age,
                "next_update": 0 if alone else now - self.age + self.life}


def ask_openssl(pki, url, *serials, args=("-no_nonce",), out="ocsp-out.der"):
    """Each serial's state by `openssl ocsp`, which verifies the answer."""
    which = [a for s in serials for a in ("-serial", str(s))]
    text = run("openssl", "ocsp", *args, "-issuer", pki.ca, *which, "-url", url, "-CAfile", pki.ca, "-respout",
               pki.path(out))
    assert b"Response verify OK" in text.stderr, text.stderr
    states = [line.split(": ")[1] for line in text.stdout.decode().splitlines() if line.startswith(tuple(map(str, serials)))]
    return states, text.stderr.decode()


def make_request(pki, *serials, args=("-no_nonce",), issuer=None):
    out = pki.path("made-request.der")
    which = [a for s in serials for a in ("-serial", str(s))]
    run("openssl", "ocsp", *args, "-issuer", issuer or pki.ca, *which, "-reqout", out)
    return out.read_bytes()


def post_bytes(body, headers=(), method="POST", path="/ocsp", type="application/ocsp-request"):
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    head += [f"Content-Type: {type}"] if type else []
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


def get_bytes(der, headers=(), method="GET", quote=True):
    text = base64.b64encode(der).decode()
    text = urllib.parse.quote(text, safe="") if quote else text
    return "\r\n".join([f"{method} /ocsp/{text} HTTP/1.1", "Host: x", *headers, "", ""]).encode()
