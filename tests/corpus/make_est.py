#!/usr/bin/env python3
"""Makes the EST bodies in est/ of the requests in csr/: base64 as clients send it, and as none should.

    tests/corpus/make_est.py          writes the same files each time

A file's name begins with what must come of decoding it: "ok" (a CSR) or the error's code. tests/unit/test_est.c
holds each to its name; the fuzzer starts from them.
"""
import base64
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
P256, RSA = ((HERE / "csr" / f"ok--{name}.der").read_bytes() for name in ("p256", "rsa-sha256"))
ONE = base64.b64encode(P256)


def lines(data, width, end):
    return b"".join(data[i:i + width] + end for i in range(0, len(data), width))


OUT = {
    "ok--one-line": ONE,
    "ok--one-line-and-newline": ONE + b"\n",
    "ok--lines-of-64": lines(ONE, 64, b"\n"),
    "ok--lines-of-76-crlf": lines(base64.b64encode(RSA), 76, b"\r\n"),
    "ok--lines-of-1": lines(ONE, 1, b"\n"),
    "ok--white-space-before-padding": ONE.rstrip(b"=") + b" \t\r\n" + b"=" * ONE.count(b"="),
    "csr_base64--pem": (HERE / "csr" / "ok--pem.pem").read_bytes(),
    "csr_base64--der": P256,
    "csr_base64--no-padding": base64.b64encode(P256 + b"\0" * (3 - len(P256) % 3 or 1)).rstrip(b"=")[:-1],
    "csr_base64--more-after-padding": b"Zm9vYg==" + ONE,
    "csr_base64--nul": ONE[:40] + b"\0" + ONE[40:],
    "csr_base64--form-feed": ONE[:40] + b"\f" + ONE[40:],
    "csr_base64--url-alphabet": b"-_-_" + ONE,
    "csr_base64--utf-8": "Ünïcödé".encode(),
    "csr_malformed--empty": b"",
    "csr_malformed--newlines": b"\n" * 100,
    "csr_malformed--of-base64": base64.b64encode(ONE),
    "csr_malformed--trailing": base64.b64encode(P256 + b"\0"),
    "csr_malformed--twice": base64.b64encode(P256 * 2),
}

for name, data in OUT.items():
    (HERE / "est" / name).write_bytes(data)
