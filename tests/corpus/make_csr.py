#!/usr/bin/env python3
"""Makes the hostile requests in csr/ and the hostile keys in key/.

    tests/corpus/make_csr.py          writes the same files each time

A file's name begins with what must come of it: an error code of src/common/err.h, or "ok", then
"--" and what is special about it. tests/unit/test_csr.c and test_key.c hold each to its name; the
fuzzers start from them. Standard library only: the DER and the weak keys are made here, because no
sound tool makes them.
"""
import base64
import hashlib
import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
RNG = random.Random(20240101)
MAC = "24:0a:c4:12:34:56"

# --- DER (X.690) -----------------------------------------------------------------------------


def tlv(tag, *content):
    body = b"".join(content)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + len(body).to_bytes(size, "big") + body


def long_form(der):
    """The same with its length in one byte more than it needs: BER, not DER."""
    assert der[1] < 128
    return bytes([der[0], 0x81, der[1]]) + der[2:]


def seq(*content):
    return tlv(0x30, *content)


def set_of(*content, in_order=True):
    return tlv(0x31, *(sorted(content) if in_order else content))


def integer(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def oid(text):
    first, second, *rest = map(int, text.split("."))
    out = b""
    for arc in [first * 40 + second, *rest]:
        digits = [arc & 127]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 127)
        out += bytes(reversed(digits))
    return tlv(6, out)


def bits(data, unused=0):
    return tlv(3, bytes([unused]), data)


def octets(data):
    return tlv(4, data)


def utf8(text):
    return tlv(12, text.encode())


NULL = tlv(5)
TRUE = tlv(1, b"\xff")

# --- RSA (RFC 8017) --------------------------------------------------------------------------

RSA = oid("1.2.840.113549.1.1.1")
SHA_RSA = {"sha1": 5, "sha256": 11, "sha384": 12, "sha512": 13}
HASH_OID = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1",
            "sha384": "2.16.840.1.101.3.4.2.2", "sha512": "2.16.840.1.101.3.4.2.3"}


SMALL = [p for p in range(2, 5000) if all(p % d for d in range(2, math.isqrt(p) + 1))]


def is_prime(n):
    if any(n % p == 0 for p in SMALL):
        return n in SMALL
    d, r = n - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    for _ in range(8):
        x = pow(RNG.randrange(2, n - 1), d, n)
        if x in (1, n - 1):
            continue
        for _ in range(r - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def next_prime(n):
    n |= 1
    while not is_prime(n):
        n += 2
    return n


def prime(size):
    return next_prime(RNG.getrandbits(size) | 3 << (size - 2))


class Rsa:
    def __init__(self, p, q, e=65537):
        self.n, self.e = p * q, e
        if math.gcd(e, (p - 1) * (q - 1)) == 1:
            self.d = pow(e, -1, (p - 1) * (q - 1))

    def spki(self, algorithm=seq(RSA, NULL)):
        return seq(algorithm, bits(seq(integer(self.n), integer(self.e))))

    def algorithm(self, digest):
        return seq(oid(f"1.2.840.113549.1.1.{SHA_RSA[digest]}"), NULL)

    def sign(self, data, digest):
        info = seq(seq(oid(HASH_OID[digest]), NULL), octets(hashlib.new(digest, data).digest()))
        size = (self.n.bit_length() + 7) // 8
        padded = b"\0\1" + b"\xff" * (size - 3 - len(info)) + b"\0" + info
        return pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(size, "big")


def roca_prime(size):
    """k * M + (65537^a mod M), as the library of CVE-2017-15361 made them."""
    m = math.prod(SMALL[:126])  # for keys of 2048 bits
    while True:
        k = RNG.getrandbits(size - m.bit_length() + 1) | 1 << (size - m.bit_length())
        n = k * m + pow(65537, RNG.getrandbits(256), m)
        if n.bit_length() == size and n >> (size - 2) == 3 and is_prime(n):
            return n


# --- EC (SEC 1, RFC 5480) --------------------------------------------------------------------

EC = oid("1.2.840.10045.2.1")


class Curve:
    def __init__(self, name, p, b, gx, gy, n):
        self.name, self.p, self.b, self.g, self.n = oid(name), p, b, (gx, gy), n
        self.size = (p.bit_length() + 7) // 8

    def add(self, u, v):
        if u is None or v is None:
            return u or v
        if u == v:
            slope = (3 * u[0] * u[0] - 3) * pow(2 * u[1], -1, self.p)
        elif u[0] == v[0]:
            return None
        else:
            slope = (v[1] - u[1]) * pow(v[0] - u[0], -1, self.p)
        x = (slope * slope - u[0] - v[0]) % self.p
        return x, (slope * (u[0] - x) - u[1]) % self.p

    def times(self, k, point):
        out = None
        for bit in bin(k)[2:]:
            out = self.add(out, out) if out else None
            out = self.add(out, point) if bit == "1" else out
        return out

    def explicit(self):
        number = lambda v: octets(v.to_bytes(self.size, "big"))
        field = seq(oid("1.2.840.10045.1.1"), integer(self.p))
        return seq(integer(1), field, seq(number(self.p - 3), number(self.b)),
                   octets(b"\4" + point_bytes(self, self.g)), integer(self.n), integer(1))


def point_bytes(curve, point):
    return b"".join(v.to_bytes(curve.size, "big") for v in point)


P256 = Curve("1.2.840.10045.3.1.7", 2**256 - 2**224 + 2**192 + 2**96 - 1,
             0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
             0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
             0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
             0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551)
P384 = Curve("1.3.132.0.34", 2**384 - 2**128 - 2**96 + 2**32 - 1,
             0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
             0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
             0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
             0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973)
SHA_ECDSA = {"sha256": "4.3.2", "sha384": "4.3.3", "sha512": "4.3.4", "sha1": "4.1"}


class Ec:
    def __init__(self, curve):
        self.curve, self.d = curve, RNG.randrange(1, curve.n)
        self.q = curve.times(self.d, curve.g)

    def spki(self, point=None, parameters=None):
        if point is None:
            point = b"\4" + point_bytes(self.curve, self.q)
        return seq(seq(EC, self.curve.name if parameters is None else parameters), bits(point))

    def algorithm(self, digest):
        return seq(oid("1.2.840.10045." + SHA_ECDSA[digest]))

    def sign(self, data, digest):
        h = hashlib.new(digest, data).digest()
        z = int.from_bytes(h[: self.curve.size], "big")
        k = RNG.randrange(1, self.curve.n)
        r = self.curve.times(k, self.curve.g)[0] % self.curve.n
        return seq(integer(r), integer(pow(k, -1, self.curve.n) * (z + r * self.d) % self.curve.n))


# --- PKCS#10 (RFC 2986) ----------------------------------------------------------------------

CN = oid("2.5.4.3")


def rdn(kind, value):
    return set_of(seq(kind, value))


def name(*rdns):
    return seq(*rdns)


def extension(text, value, *critical):
    return seq(oid(text), *critical, octets(value))


def extension_request(*extensions):
    return seq(oid("1.2.840.113549.1.9.14"), set_of(seq(*extensions)))


def info(key, subject=None, spki=None, attributes=(), version=0, attribute_field=None):
    if attribute_field is None:
        attribute_field = tlv(0xA0, *sorted(attributes))
    return seq(integer(version), name(rdn(CN, utf8(MAC))) if subject is None else subject,
               key.spki() if spki is None else spki, attribute_field)


def request(key, digest="sha256", signer=None, algorithm=None, signature=None, unused=0, **parts):
    body = info(key, **parts)
    signer = signer or key
    if signature is None:
        signature = signer.sign(body, digest)
    return seq(body, algorithm or signer.algorithm(digest), bits(signature, unused))


def pem(der, label="CERTIFICATE REQUEST", headers=""):
    text = base64.encodebytes(der).replace(b"\n", b"")
    lines = b"".join(text[i:i + 64] + b"\n" for i in range(0, len(text), 64))
    return (f"-----BEGIN {label}-----\n{headers}".encode() + lines +
            f"-----END {label}-----\n".encode())


# --- the cases -------------------------------------------------------------------------------

EMPTY = seq()
EXTENSIONS = {"subject-alt-name": "2.5.29.17", "issuer-alt-name": "2.5.29.18",
              "key-usage": "2.5.29.15", "extended-key-usage": "2.5.29.37",
              "name-constraints": "2.5.29.30", "crl-distribution-points": "2.5.29.31",
              "certificate-policies": "2.5.29.32", "policy-mappings": "2.5.29.33",
              "policy-constraints": "2.5.29.36", "inhibit-any-policy": "2.5.29.54",
              "authority-key-id": "2.5.29.35", "subject-key-id": "2.5.29.14",
              "private-key-usage-period": "2.5.29.16", "issuing-distribution-point": "2.5.29.28",
              "freshest-crl": "2.5.29.46", "subject-directory-attributes": "2.5.29.9",
              "authority-info-access": "1.3.6.1.5.5.7.1.1", "subject-info-access": "1.3.6.1.5.5.7.1.11",
              "tls-feature": "1.3.6.1.5.5.7.1.24", "ip-addr-blocks": "1.3.6.1.5.5.7.1.7",
              "autonomous-sys-ids": "1.3.6.1.5.5.7.1.8", "proxy-cert-info": "1.3.6.1.5.5.7.1.14",
              "netscape-cert-type": "2.16.840.1.113730.1.1", "ocsp-nocheck": "1.3.6.1.5.5.7.48.1.5",
              "sct-list": "1.3.6.1.4.1.11129.2.4.2", "unknown": "1.3.6.1.4.1.99999.1"}
SAN = extension("2.5.29.17", seq(tlv(0x82, b"board.example")))


def keys():
    """(code, name, SPKI) of each key, and the sound ones to sign with."""
    p, q = prime(1024), prime(1024)
    rsa, ec, ec384 = Rsa(p, q), Ec(P256), Ec(P384)
    x, y = ec.q
    point = point_bytes(P256, ec.q)
    ends_in_0 = point_bytes(P256, (x, y if y % 2 == 0 else P256.p - y))  # on the curve as well
    wrong = b"\4" + point_bytes(P256, (x, (y + 1) % P256.p))
    modulus = lambda n, e=65537: seq(seq(RSA, NULL), bits(seq(integer(n), integer(e))))
    negative = tlv(2, rsa.n.to_bytes(256, "big"))  # no leading zero
    padded = tlv(2, b"\0\0" + rsa.n.to_bytes(256, "big"))
    rsa_bits = lambda *content: seq(seq(RSA, NULL), bits(seq(*content)))
    ed25519 = seq(seq(oid("1.3.101.112")), bits(bytes(32)))
    dsa = seq(seq(oid("1.2.840.10040.4.1"), seq(integer(7), integer(3), integer(2))),
              bits(integer(5)))
    small = 65521 * next_prime(RNG.getrandbits(2032) | 3 << 2030)
    below_4096 = 3 * next_prime(RNG.getrandbits(4094) | 3 << 4092)
    even = 2 * next_prime(RNG.getrandbits(2047) | 3 << 2045)
    close = next_prime(p + 2**500)
    far = Rsa(roca_prime(1024), roca_prime(1024))
    hybrid = bytes([6 + y % 2]) + point
    other = "1.3.132.0.10"  # secp256k1
    cases = [
        ("ok", "rsa-2048", rsa.spki()),
        ("ok", "rsa-3072", Rsa(prime(1536), prime(1536)).spki()),
        ("ok", "p256", ec.spki()),
        ("ok", "p384", ec384.spki()),
        ("key_type_refused", "rsa-1024", Rsa(prime(512), prime(512)).spki()),
        ("key_type_refused", "rsa-2047", modulus(rsa.n >> 1 | 1)),
        ("key_type_refused", "rsa-8192", modulus(RNG.getrandbits(8192) | 1 << 8191 | 1)),
        ("key_type_refused", "rsa-modulus-0", modulus(0)),
        ("key_exponent", "rsa-e-3", modulus(rsa.n, 3)),
        ("key_exponent", "rsa-e-1", modulus(rsa.n, 1)),
        ("key_exponent", "rsa-e-65539", modulus(rsa.n, 65539)),
        ("key_exponent", "rsa-e-as-large-as-n", modulus(rsa.n, rsa.n - 2)),
        ("key_weak", "rsa-even", modulus(even)),
        ("key_weak", "rsa-factor-65521", modulus(small)),
        ("key_weak", "rsa-4096-factor-3", modulus(below_4096)),
        ("key_weak", "rsa-close-primes", modulus(p * close)),
        ("key_weak", "rsa-square", modulus(p * p)),
        ("key_weak", "rsa-roca", far.spki()),
        ("key_invalid", "rsa-negative", rsa_bits(negative, integer(65537))),
        ("key_invalid", "rsa-not-minimal", rsa_bits(padded, integer(65537))),
        ("key_invalid", "rsa-three-numbers", rsa_bits(integer(rsa.n), integer(65537), integer(1))),
        ("key_invalid", "rsa-no-parameters", rsa.spki(seq(RSA))),
        ("key_invalid", "rsa-parameters-not-null", rsa.spki(seq(RSA, integer(0)))),
        ("key_invalid", "rsa-trailing", seq(seq(RSA, NULL), bits(seq(integer(rsa.n), integer(65537)) + b"\0"))),
        ("key_invalid", "rsa-empty", seq(seq(RSA, NULL), bits(b""))),
        ("key_type_refused", "rsa-pss", rsa.spki(seq(oid("1.2.840.113549.1.1.10")))),
        ("key_type_refused", "ed25519", ed25519),
        ("key_type_refused", "dsa", dsa),
        ("key_type_refused", "secp256k1", ec.spki(parameters=oid(other))),
        ("key_curve", "p256-explicit", ec.spki(parameters=P256.explicit())),
        ("key_curve", "p256-implicit", ec.spki(parameters=NULL)),
        ("key_curve", "p256-compressed", ec.spki(bytes([2 + y % 2]) + point[:32])),
        ("key_curve", "p256-hybrid", ec.spki(hybrid)),
        ("key_curve", "p256-infinity", ec.spki(b"\0")),
        ("key_curve", "p256-point-of-p384", ec.spki(b"\4" + point_bytes(P384, ec384.q))),
        ("key_invalid", "p256-off-curve", ec.spki(wrong)),
        ("key_invalid", "p256-not-reduced", ec.spki(b"\4" + b"\xff" * 32 + point[32:])),
        ("key_invalid", "p256-zero", ec.spki(b"\4" + bytes(64))),
        ("key_invalid", "p384-off-curve", ec384.spki(b"\4" + point_bytes(P384, (5, 7)))),
        ("key_invalid", "unused-bits", seq(seq(EC, P256.name), bits(b"\4" + ends_in_0, 1))),
        ("key_invalid", "trailing", ec.spki() + b"\0"),
        ("key_invalid", "long-length", long_form(ec.spki())),
        ("key_invalid", "third-element", seq(seq(EC, P256.name), bits(b"\4" + point), NULL)),
        ("key_invalid", "third-parameter", ec.spki(parameters=P256.name + NULL)),
        ("key_invalid", "empty-sequence", EMPTY),
        ("key_invalid", "empty", b""),
    ]
    return cases, rsa, ec, ec384


def requests(rsa, ec, ec384):
    good = request(ec)
    flipped = bytearray(good)
    flipped[-1] ^= 1
    challenge = seq(oid("1.2.840.113549.1.9.7"), set_of(utf8("please")))
    ca_false = extension("2.5.29.19", EMPTY)
    a, b = sorted([challenge, extension_request(SAN)])
    subject = lambda *values: name(*(rdn(CN, v) for v in values))
    wrong_name = lambda value: request(ec, subject=subject(value))
    with_extensions = lambda *e: request(ec, attributes=[extension_request(*e)])
    indefinite = b"\x30\x80" + good[good.index(b"\x30", 1):] + b"\0\0"
    country = rdn(oid("2.5.4.6"), long_form(tlv(19, b"DE")))
    cases = [
        ("ok", "rsa-sha256", request(rsa)),
        ("ok", "rsa-sha384", request(rsa, "sha384")),
        ("ok", "rsa-sha512", request(rsa, "sha512")),
        ("ok", "rsa-signature-without-null", request(rsa, algorithm=seq(oid("1.2.840.113549.1.1.11")))),
        ("ok", "p256", good),
        ("ok", "p256-sha512", request(ec, "sha512")),
        ("ok", "p384", request(ec384, "sha384")),
        ("ok", "printable-string", wrong_name(tlv(19, MAC.encode()))),
        ("ok", "ia5-string", wrong_name(tlv(22, MAC.encode()))),
        ("ok", "more-in-subject", request(ec, subject=name(rdn(oid("2.5.4.10"), utf8("Boards")), rdn(CN, utf8(MAC))))),
        ("ok", "attributes-left-out", request(ec, attribute_field=b"")),
        ("ok", "challenge-and-extensions", request(ec, attributes=[challenge, extension_request(SAN)])),
        ("ok", "basic-constraints-ca-false", with_extensions(ca_false)),
        ("ok", "unknown-extension", with_extensions(extension("1.3.6.1.4.1.99999.1", utf8("x"), TRUE))),
        ("ok", "pem", pem(good)),
        ("ok", "pem-in-white-space", b"\r\n  " + pem(good) + b"\n\t\n"),
        ("csr_malformed", "empty", b""),
        ("csr_malformed", "zeros", bytes(64)),
        ("csr_malformed", "empty-sequence", EMPTY),
        ("csr_malformed", "truncated", good[:-1]),
        ("csr_malformed", "trailing", good + b"\0"),
        ("csr_malformed", "twice", good + good),
        ("csr_malformed", "indefinite-length", indefinite),
        ("csr_malformed", "nested-200", b"\x30\x80" * 200),
        ("csr_malformed", "length-of-4-gb", b"\x30\x84\xff\xff\xff\xff" + good[3:]),
        ("csr_malformed", "too-long", request(ec, attributes=[seq(oid("1.2.840.113549.1.9.7"), set_of(utf8("x" * 33000)))])),
        ("csr_malformed", "version-2", request(ec, version=1)),
        ("csr_malformed", "version-huge", request(ec, version=2**64)),
        ("csr_malformed", "signature-unused-bits", request(ec, unused=1, signature=bytes(72))),
        ("csr_malformed", "spki-not-a-sequence", request(ec, spki=integer(1))),
        ("csr_malformed", "subject-long-length", request(ec, subject=name(country, rdn(CN, utf8(MAC))))),
        ("csr_malformed", "subject-empty-rdn-value", request(ec, subject=name(set_of(seq(CN))))),
        ("csr_malformed", "attributes-not-sorted", request(ec, attribute_field=tlv(0xA0, b, a))),
        ("csr_malformed", "two-extension-requests", request(ec, attributes=[extension_request(SAN), extension_request(ca_false)])),
        ("csr_malformed", "two-lists-in-one", request(ec, attributes=[seq(oid("1.2.840.113549.1.9.14"), set_of(seq(SAN), seq(ca_false)))])),
        ("csr_malformed", "no-list", request(ec, attributes=[seq(oid("1.2.840.113549.1.9.14"), set_of())])),
        ("csr_malformed", "list-not-a-sequence", request(ec, attributes=[seq(oid("1.2.840.113549.1.9.14"), set_of(utf8("x")))])),
        ("csr_malformed", "list-empty", with_extensions()),
        ("csr_malformed", "list-empty-microsoft", request(ec, attributes=[seq(oid("1.3.6.1.4.1.311.2.1.14"), set_of(EMPTY))])),
        ("csr_malformed", "extension-twice", with_extensions(SAN, SAN)),
        ("csr_malformed", "extension-empty", with_extensions(extension("2.5.29.17", b""))),
        ("csr_malformed", "extension-trailing", with_extensions(extension("2.5.29.17", seq(tlv(0x82, b"a")) + b"\0"))),
        ("csr_malformed", "extension-wrong-type", with_extensions(extension("2.5.29.15", utf8("x")))),
        # not DER (X.690 11.1, 11.5), but OpenSSL and others read these two, and nothing of them is used
        ("ok", "critical-false-encoded", with_extensions(extension("2.5.29.17", seq(tlv(0x82, b"a")), tlv(1, b"\0")))),
        ("ok", "critical-true-as-1", with_extensions(extension("2.5.29.17", seq(tlv(0x82, b"a")), tlv(1, b"\1")))),
        ("csr_malformed", "pem-twice", pem(good) + pem(good)),
        ("csr_malformed", "pem-text-before", b"# mine\n" + pem(good)),
        ("csr_malformed", "pem-text-after", pem(good) + b"x"),
        ("csr_malformed", "pem-nul-after", pem(good) + b"\0"),
        ("csr_malformed", "pem-headers", pem(good, headers="Proc-Type: 4,ENCRYPTED\n\n")),
        ("csr_malformed", "pem-certificate", pem(good, "CERTIFICATE")),
        ("csr_malformed", "pem-old-label", pem(good, "NEW CERTIFICATE REQUEST")),
        ("csr_malformed", "pem-not-base64", pem(good).replace(b"M", b"*")),
        ("csr_malformed", "pem-begin-only", b"-----BEGIN CERTIFICATE REQUEST-----\n"),
        ("csr_cn_invalid", "none", request(ec, subject=name())),
        ("csr_cn_invalid", "only-o", request(ec, subject=name(rdn(oid("2.5.4.10"), utf8(MAC))))),
        ("csr_cn_invalid", "two", request(ec, subject=subject(utf8(MAC), utf8(MAC)))),
        ("csr_cn_invalid", "two-in-one-rdn", request(ec, subject=name(set_of(seq(CN, utf8(MAC)), seq(CN, utf8("a")))))),
        ("csr_cn_invalid", "nul", wrong_name(utf8(MAC + "\0.evil"))),
        ("csr_cn_invalid", "utf-8", wrong_name(utf8("24:0a:c4:12:34:5ö"))),
        ("csr_cn_invalid", "not-utf-8", wrong_name(tlv(12, b"\xff\xfe"))),
        ("csr_cn_invalid", "newline", wrong_name(utf8(MAC + "\n"))),
        ("csr_cn_invalid", "delete", wrong_name(utf8(MAC + "\x7f"))),
        ("csr_cn_invalid", "empty", wrong_name(utf8(""))),
        ("csr_cn_invalid", "65-characters", wrong_name(utf8("a" * 65))),
        ("csr_cn_invalid", "bmp-string", wrong_name(tlv(30, MAC.encode("utf-16-be")))),
        ("csr_cn_invalid", "universal-string", wrong_name(tlv(28, MAC.encode("utf-32-be")))),
        ("csr_cn_invalid", "t61-string", wrong_name(tlv(20, MAC.encode()))),
        ("csr_signature_invalid", "last-bit", bytes(flipped)),
        ("csr_signature_invalid", "empty", request(ec, signature=b"")),
        ("csr_signature_invalid", "other-key", request(ec, signer=Ec(P256))),
        ("csr_signature_invalid", "other-kind-of-key", request(ec, signer=rsa)),
        ("csr_signature_invalid", "ecdsa-0-0", request(ec, signature=seq(integer(0), integer(0)))),
        ("csr_signature_invalid", "rsa-sha1", request(rsa, "sha1")),
        ("csr_signature_invalid", "ecdsa-sha1", request(ec, "sha1")),
        ("csr_signature_invalid", "ecdsa-null", request(ec, algorithm=seq(oid("1.2.840.10045.4.3.2"), NULL))),
        ("csr_signature_invalid", "digest-of-another", request(ec, "sha384", algorithm=ec.algorithm("sha256"))),
        ("csr_signature_invalid", "rsa-pss", request(rsa, algorithm=seq(oid("1.2.840.113549.1.1.10")))),
        ("csr_signature_invalid", "rsa-short", request(rsa, signature=bytes(255))),
        ("csr_signature_invalid", "algorithm-unknown", request(ec, algorithm=seq(oid("1.2.3.4")))),
    ]
    cases += [("csr_malformed", "empty-" + text, with_extensions(extension(number, EMPTY)))
              for text, number in EXTENSIONS.items()]
    return cases


def write(folder, cases):
    path = HERE / folder
    path.mkdir(exist_ok=True)
    for old in path.iterdir():
        old.unlink()
    for code, text, data in cases:
        file = path / f"{code}--{text}.{'pem' if data.strip()[:1] in (b'-', b'#') else 'der'}"
        assert not file.exists(), file
        file.write_bytes(data)
    print(f"{folder}: {len(cases)} files")


def main():
    key_cases, rsa, ec, ec384 = keys()
    request_cases = requests(rsa, ec, ec384)
    weak = [(code, "key-" + text, request(ec, spki=spki, signature=b"\0"))
            for code, text, spki in key_cases
            if code != "ok" and not text.startswith(("empty", "trailing"))
            and text not in ("third-element",)]
    write("key", key_cases)
    write("csr", request_cases + weak)


if __name__ == "__main__":
    main()
