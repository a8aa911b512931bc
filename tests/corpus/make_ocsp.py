#!/usr/bin/env python3
"""Makes the hostile OCSP requests in ocsp/.

    tests/corpus/make_ocsp.py         writes the same files each time

A file's name begins with what must come of it, "ok" or "malformed", then "--" and what is special
about it. tests/unit/test_ocsp.c holds each to its name; the fuzzer starts from them.
"""
import pathlib

from make_csr import integer, long_form, oid, seq, tlv

HERE = pathlib.Path(__file__).resolve().parent
HASHES = {"sha1": ("1.3.14.3.2.26", 20), "sha256": ("2.16.840.1.101.3.4.2.1", 32),
          "md5": ("1.2.840.113549.2.5", 16), "sha384": ("2.16.840.1.101.3.4.2.2", 48)}
NONCE = "1.3.6.1.5.5.7.48.1.2"
SERIAL = 0x112233445566778899AABBCCDDEEFF00
NULL = tlv(5)


def octets(data):
    return tlv(4, data)


def certid(name="sha1", size=None, serial=None, params=NULL, key_size=None):
    algorithm, n = HASHES[name]
    n = n if size is None else size
    return seq(seq(oid(algorithm), params), octets(b"\x11" * n),
               octets(b"\x22" * (n if key_size is None else key_size)),
               integer(SERIAL) if serial is None else serial)


def extension(name, value, critical=None):
    flag = b"" if critical is None else tlv(1, b"\xff" if critical else b"\x00")
    return seq(oid(name), flag, octets(value))


def request(*ids, extensions=b"", before=b"", after=b"", signature=b""):
    ids = ids or (certid(),)
    body = seq(before, seq(*(seq(i) for i in ids)), extensions, after)
    return seq(body, signature)


def exts(*all_of_them):
    return tlv(0xA2, seq(*all_of_them))


def nonce(n, raw=False, critical=None):
    value = b"\xa5" * n
    return extension(NONCE, value if raw else octets(value), critical)


def single_extension(ext):
    return seq(seq(seq(seq(certid(), tlv(0xA0, seq(ext))))))


CASES = {
    "ok--plain": request(),
    "ok--sha256": request(certid("sha256")),
    "ok--no-parameters": request(certid(params=b"")),
    "ok--explicit-version": request(before=tlv(0xA0, integer(0))),
    "ok--requestor": request(before=tlv(0xA1, tlv(0xA4, seq()))),
    "ok--signed": request(signature=tlv(0xA0, seq(seq(oid("1.2.840.10045.4.3.2")), tlv(3, b"\0\1\2")))),
    "ok--signature-of-anything": request(signature=tlv(0xA0, tlv(5))),
    "ok--eight": request(*[certid()] * 8),
    "ok--two-hashes": request(certid(), certid("sha256")),
    "ok--serial-0": request(certid(serial=integer(0))),
    "ok--serial-20-bytes": request(certid(serial=integer(2**159 + 5))),
    "ok--unknown-extension": request(extensions=exts(extension("1.2.3.4", b"\5\0"))),
    "ok--unknown-extension-says-false": request(extensions=exts(extension("1.2.3.4", b"\5\0", False))),
    "ok--response-types": request(extensions=exts(
        extension("1.3.6.1.5.5.7.48.1.4", seq(oid("1.3.6.1.5.5.7.48.1.1"))))),
    "ok--single-unknown-extension": single_extension(extension("1.2.3.4", b"\5\0")),
    "ok--single-service-locator": single_extension(extension("1.3.6.1.5.5.7.48.1.7", seq(seq()))),
    "ok--nonce-critical": request(extensions=exts(nonce(32, critical=True))),
    "ok--empty-sequence-in-extension": request(extensions=exts(extension("1.2.3.4", seq()))),
    "ok--empty-sequence-in-nonce": request(extensions=exts(extension(NONCE, seq()))),
    "malformed--empty-file": b"",
    "malformed--empty-sequence": seq(),
    "malformed--empty-tbs": seq(seq()),
    "malformed--empty-list": seq(seq(seq())),
    "malformed--empty-single": seq(seq(seq(seq()))),
    "malformed--empty-certid": seq(seq(seq(seq(seq())))),
    "malformed--empty-algorithm": seq(seq(seq(seq(seq(seq(), octets(b"\1" * 20), octets(b"\1" * 20),
                                                      integer(1)))))),
    "malformed--empty-extensions-tag": request(extensions=tlv(0xA2)),
    "malformed--empty-extension": request(extensions=exts(seq())),
    "malformed--single-empty-extension": single_extension(seq()),
    "malformed--extension-without-value": request(extensions=exts(seq(oid("1.2.3.4")))),
    "malformed--nine": request(*[certid()] * 9),
    "malformed--md5": request(certid("md5")),
    "malformed--sha384": request(certid("sha384")),
    "malformed--sha1-of-32": request(certid(size=32)),
    "malformed--sha256-of-20": request(certid("sha256", size=20)),
    "malformed--key-hash-short": request(certid(key_size=19)),
    "malformed--key-hash-long": request(certid(key_size=4000)),
    "malformed--hashes-empty": request(certid(size=0)),
    "malformed--serial-negative": request(certid(serial=tlv(2, b"\xff"))),
    "malformed--serial-empty": request(certid(serial=tlv(2))),
    "malformed--serial-padded": request(certid(serial=tlv(2, b"\0\1"))),
    "malformed--serial-21-bytes": request(certid(serial=integer(2**167))),
    "malformed--serial-huge": request(certid(serial=integer(2**(8 * 3000)))),
    "malformed--version-2": request(before=tlv(0xA0, integer(1))),
    "malformed--version-huge": request(before=tlv(0xA0, integer(2**64))),
    "malformed--version-negative": request(before=tlv(0xA0, tlv(2, b"\x80"))),
    "malformed--critical-unknown": request(extensions=exts(extension("1.2.3.4", b"\5\0", True))),
    "malformed--single-critical-unknown": single_extension(extension("1.2.3.4", b"\5\0", True)),
    "malformed--single-critical-nonce": single_extension(nonce(32, critical=True)),
    "malformed--two-nonces": request(extensions=exts(nonce(16), nonce(16))),
    "malformed--trailing": request() + b"\0",
    "malformed--trailing-inside": request(after=NULL),
    "malformed--twice": request() + request(),
    "malformed--length-form": long_form(request(certid(size=1, serial=integer(1)))),
    "malformed--indefinite": b"\x30\x80" + request()[2:] + b"\0\0",
    "malformed--length-4-gb": b"\x30\x84\xff\xff\xff\xff" + request()[2:],
    "malformed--length-8-bytes": b"\x30\x88" + b"\xff" * 8 + request()[2:],
    "malformed--length-one-more": bytes([0x30, request()[1] + 1]) + request()[2:],
    "malformed--inner-length-huge": request().replace(b"\x04\x14\x11", b"\x04\x7f\x11"),
    "malformed--too-large": request(extensions=exts(extension("1.2.3.4", b"\0" * 4096))),
    "malformed--nested": (lambda d: [d := seq(d) for _ in range(500)][-1])(seq()),
    "malformed--text": b"GET / HTTP/1.1\r\n\r\n",
    "malformed--response": bytes.fromhex("30030a0106"),
}
for size in (1, 16, 32, 127, 128):
    CASES[f"ok--nonce-{size}"] = request(extensions=exts(nonce(size)))
    CASES[f"ok--nonce-{size}-raw"] = request(extensions=exts(nonce(size, raw=True)))
for size in (0, 129, 1000):
    CASES[f"malformed--nonce-{size}"] = request(extensions=exts(nonce(size)))
    CASES[f"malformed--nonce-{size}-raw"] = request(extensions=exts(nonce(size, raw=True)))
WHOLE = request(extensions=exts(nonce(2)))
for cut in range(1, len(WHOLE), 4):
    CASES[f"malformed--cut-{cut:03}"] = WHOLE[:cut]


def main():
    folder = HERE / "ocsp"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in CASES.items():
        (folder / f"{name}.der").write_bytes(data)


if __name__ == "__main__":
    main()
