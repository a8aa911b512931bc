"""EST by hand: requests as raw bytes, and what an answer has to be."""

import base64
import re

from front_harness import REPO, run

EST = "/.well-known/est/"
STATUS_OF = dict(re.findall(r"X\((\w+), (\d+)", (REPO / "src/common/err.h").read_text()))


def http(method="POST", path="simpleenroll", headers=(), body=b"", kind="application/pkcs10"):
    lines = [f"{method} {EST}{path} HTTP/1.1", "Host: x"]
    lines += [f"Content-Type: {kind}"] if kind and method == "POST" else []
    lines += [f"Content-Length: {len(body)}"] if method == "POST" else []
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def basic(user, password, scheme="Basic"):
    return f"Authorization: {scheme} " + base64.b64encode(f"{user}:{password}".encode()).decode()


def refused(answer):
    """(status, code); what belongs to the status is there."""
    code = answer.text_code
    assert str(answer.status) == STATUS_OF[code], answer
    assert (answer.headers.get("www-authenticate") == 'Basic realm="signet"') == (answer.status == 401), answer
    assert ("retry-after" in answer.headers) == (answer.status in (429, 503)), answer
    return answer.status, code


def certificates(answer):
    """The PEM of each certificate in the answer, by openssl."""
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.headers["content-transfer-encoding"] == "base64"
    pem = run("openssl", "pkcs7", "-inform", "DER", "-print_certs", input=base64.b64decode(answer.body)).stdout
    return re.findall(rb"-----BEGIN.*?-----END CERTIFICATE-----\n", pem, re.S)
