"""signet-front alone, with real TLS and HTTP on one side and a made-up authority on the other."""

import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from front_harness import ERRORS, MESSAGES, PROGRAM, REPO, Front, Pki, read_answer, run, wait_until


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def front(pki):
    f = Front(pki)
    yield f
    f.stop()


@pytest.fixture(scope="module")
def shared(pki):
    """For tests that change nothing."""
    f = Front(pki)
    yield f
    f.stop()


def request_for(pki, **more):
    return {"operation": "req_client_cert", "csr": base64.b64encode(pki.csr()).decode(), **more}


STATUS = b'{"operation":"get_status"}'


def http(method="POST", path="/v1", headers=(), body=STATUS, version="1.1", length=True):
    lines = [f"{method} {path} HTTP/{version}", "Host: x", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


# ---- operations ----


def test_certificate_and_what_the_authority_is_told(shared, pki):
    body = json.dumps(request_for(pki, profile="device", request_id="a-1"))
    answer = shared.post(body)
    assert answer.status == 200, answer
    assert answer.json["operation"] == "req_client_cert" and answer.json["serial"] == "4f" + "01" * 15
    pem = base64.b64decode(answer.json["certificate"], validate=True)
    assert pki.der(pem) == pki.der(pki.client.read_bytes())
    assert base64.b64decode(answer.json["chain"], validate=True) == pki.ca.read_bytes()

    name, told = shared.asked[-1]
    client = pki.der(pki.client.read_bytes())
    assert name == "issue"
    assert told["caller_digest"] == hashlib.sha256(client).digest()
    assert told["caller_serial"] == bytes.fromhex("4f00112233445566778899aabbccddee")
    assert told["caller_issuer"] == hashlib.sha256(subject_der(pki)).digest()
    assert told["caller_address"].startswith("127.0.0.1:")
    assert told["operation"] == "req_client_cert" and told["profile"] == "device"
    assert told["request_id"] == "a-1" and told["name"] == "24:0a:c4:12:34:56"
    assert told["body_digest"] == hashlib.sha256(body.encode()).digest()
    csr = pki.der(pki.path("device.csr").read_bytes(), "req")
    assert told["csr_digest"] == hashlib.sha256(csr).digest()
    public = run("openssl", "req", "-in", pki.path("device.csr"), "-noout", "-pubkey").stdout
    assert told["spki"] == run("openssl", "pkey", "-pubin", "-outform", "DER", input=public).stdout


def subject_der(pki):
    """The CA's subject, cut out of its certificate by openssl asn1parse."""
    lines = run("openssl", "asn1parse", "-in", pki.ca).stdout.decode().splitlines()
    names = [l for l in lines if "d=2" in l and "SEQUENCE" in l]
    offset = int(names[1].split(":")[0])  # algorithm, issuer, validity, subject, …
    out = pki.path("name.der")
    run("openssl", "asn1parse", "-in", pki.ca, "-strparse", offset, "-noout", "-out", out)
    return out.read_bytes()


def test_csr_as_der_and_defaults(shared, pki):
    der = pki.der(pki.csr(), "req")
    assert shared.post({"operation": "req_client_cert", "csr": base64.b64encode(der).decode()}).status == 200
    assert shared.asked[-1][1]["profile"] == "device" and shared.asked[-1][1]["request_id"] == ""


def test_revocation(shared):
    answer = shared.post({"operation": "revoke_cert", "serial": "4F01", "reason": "keyCompromise", "request_id": "r"})
    assert answer.json == {"status": "OK", "operation": "revoke_cert", "serial": "4f01",
                           "revoked_at": "2026-11-23T12:00:00Z", "reason": "keyCompromise"}
    assert shared.asked[-1][1]["serial"] == b"\x4f\x01" and shared.asked[-1][1]["reason"] == 1
    assert shared.post({"operation": "revoke_cert", "serial": "4f01"}).json["reason"] == "unspecified"


@pytest.mark.parametrize("reason", ["KeyCompromise", "aACompromise", "x", "1"])
def test_reason_refused(shared, reason):
    answer = shared.post({"operation": "revoke_cert", "serial": "4f", "reason": reason})
    assert (answer.status, answer.code) == (400, "field_value") and "keyCompromise" in answer.message


@pytest.mark.parametrize("operation", ["req_client_cert", "revoke_cert"])
def test_no_certificate(shared, operation):
    before = len(shared.asked)
    body = {"operation": operation, **({"csr": "AAAA"} if operation == "req_client_cert" else {"serial": "4f"})}
    answer = shared.post(body, client=False)
    assert (answer.status, answer.code) == (401, "certificate_required")
    assert answer.json["operation"] == operation
    assert len(shared.asked) == before


def test_chain_and_crl_for_anyone(shared, pki):
    answer = shared.post({"operation": "get_ca_chain"}, client=False).json
    assert pki.der(base64.b64decode(answer["certificate"])) == pki.der(pki.ca.read_bytes())
    assert base64.b64decode(answer["chain"]) == pki.ca.read_bytes()
    crl = base64.b64decode(shared.post({"operation": "get_crl"}, client=False).json["crl"])
    assert crl.startswith(b"-----BEGIN X509 CRL-----") and pki.der(crl, "crl") == pki.crl


def test_crl_changes_is_missing_or_too_large(pki):
    front = Front(pki)
    try:
        front.document("/crl", "application/pkix-crl", b"0" * 4 * 1024 * 1024)
        wait_until(lambda: len(front.post({"operation": "get_crl"}).body) > 5_000_000)
        front.document("/crl", "application/pkix-crl", b"0" * (4 * 1024 * 1024 + 1))
        wait_until(lambda: front.post({"operation": "get_crl"}).status == 413)
        assert front.post({"operation": "get_crl"}).code == "crl_too_large"
        assert len(front.exchange(b"GET /crl HTTP/1.1\r\nHost: x\r\n\r\n", tls=False).body) == 4 * 1024 * 1024 + 1
    finally:
        front.stop()


def test_status(shared):
    assert shared.post({"operation": "get_status"}, client=False).json == {
        "status": "OK", "operation": "get_status", "ready": True, "version": "0.1.0"}
    assert shared.asked[-1][1]["caller_digest"] == b""
    detail = shared.post({"operation": "get_status"}).json
    assert detail["signers"] == {"ready": 2, "wanted": 2} and detail["token"]["state"] == "ok"
    assert detail["certificates"]["issued"] == 2**60
    assert detail["crl"] == {"number": 3, "this_update": "2026-11-23T12:00:00Z", "next_update": None}


def test_not_ready(front):
    front.answer = lambda name, values: ("answer_status", {"ready": 0})
    assert front.exchange(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", tls=False).status == 503
    assert front.exchange(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", tls=False).status == 200
    answer = front.post({"operation": "get_status"})
    assert answer.status == 200 and answer.json["ready"] is False


@pytest.mark.parametrize("code", ERRORS[1:])
def test_errors_of_the_authority(shared, pki, code):
    shared.answer = lambda name, values: ("answer_error", {"code": ERRORS.index(code), "retry_after": 7, "detail": "so"})
    try:
        answer = shared.post({"operation": "revoke_cert", "serial": "4f"})
    finally:
        shared.answer = shared.default_answer
    assert answer.code == code and answer.message == "so" and answer.status >= 400
    assert answer.headers.get("retry-after") == ("7" if answer.status in (429, 503) else None)


@pytest.mark.parametrize("number", [0, 999, 2**32 - 1])
def test_unknown_error_of_the_authority(shared, number):
    shared.answer = lambda name, values: ("answer_error", {"code": number})
    try:
        answer = shared.post({"operation": "revoke_cert", "serial": "4f"})
    finally:
        shared.answer = shared.default_answer
    assert (answer.status, answer.code) == (500, "internal")


# ---- refusals of the body ----

REFUSALS = [
    (b"", "body_not_json"),
    (b"[]", "body_not_json"),
    (b'"a"', "body_not_json"),
    (b"{", "body_not_json"),
    (b'{"operation":"get_status",}', "body_not_json"),
    (b"\xef\xbb\xbf" + STATUS, "body_not_json"),
    (b'{"operation":"get_\x01status"}', "body_not_json"),
    (b'{"operation":"\\q"}', "body_not_json"),
    (b'{"operation":"get_status"}x', "body_trailing"),
    (STATUS + STATUS, "body_trailing"),
    (b'{"operation":"\xc0\x80"}', "body_invalid_utf8"),
    (b'{"operation":"\xed\xa0\x80"}', "body_invalid_utf8"),
    (b'{"operation":"\\ud800"}', "body_invalid_utf8"),
    (b'{"operation":"\\udc00\\ud800"}', "body_invalid_utf8"),
    (b'{"operation":"get_status\x00"}', "body_nul"),
    (STATUS + b"\x00", "body_nul"),
    (b'{"operation":"get_status\\u0000"}', "body_nul"),
    (b'{"operation":"get_status","operation":"get_crl"}', "body_duplicate_name"),
    (b'{"operation":"get_status","\\u006fperation":"get_crl"}', "body_duplicate_name"),
    (b'{"operation":"get_status","a":{"b":1,"b":1}}', "body_duplicate_name"),
    (b'{"operation":"get_status","a":[[[[1]]]]}', "body_too_deep"),
    (b"[" * 60000, "body_too_deep"),
    (b"{}", "field_missing"),
    (b'{"Operation":"get_status"}', "field_missing"),
    (b'{"operation":1}', "field_type"),
    (b'{"operation":"GET_STATUS"}', "operation_unknown"),
    (b'{"operation":"get_status "}', "operation_unknown"),
    (b'{"operation":"get_status","csr":"x"}', "field_unknown"),
    (b'{"operation":"get_crl","":"x"}', "field_unknown"),
    (b'{"operation":"req_client_cert","CSR":"AAAA"}', "field_unknown"),
    (b'{"operation":"req_client_cert"}', "field_missing"),
    (b'{"operation":"req_client_cert","csr":null}', "field_type"),
    (b'{"operation":"req_client_cert","csr":["AAAA"]}', "field_type"),
    (b'{"operation":"req_client_cert","csr":""}', "field_value"),
    (b'{"operation":"req_client_cert","csr":"AAAA","request_id":"a b"}', "field_value"),
    (b'{"operation":"req_client_cert","csr":"AAAA","request_id":""}', "field_value"),
    (b'{"operation":"req_client_cert","csr":"AAAA","request_id":"' + b"a" * 65 + b'"}', "field_value"),
    (b'{"operation":"req_client_cert","csr":"AAAA","profile":"../x"}', "field_value"),
    (b'{"operation":"req_client_cert","csr":"AAA"}', "csr_base64"),
    (b'{"operation":"req_client_cert","csr":"AAAA AAAA"}', "csr_base64"),
    (b'{"operation":"req_client_cert","csr":"AAB="}', "csr_base64"),
    (b'{"operation":"req_client_cert","csr":"AAAA"}', "csr_malformed"),
    (b'{"operation":"revoke_cert","serial":"4"}', "field_value"),
    (b'{"operation":"revoke_cert","serial":""}', "field_value"),
    (b'{"operation":"revoke_cert","serial":"0x4f"}', "field_value"),
    (b'{"operation":"revoke_cert","serial":"' + b"4f" * 21 + b'"}', "field_value"),
]


@pytest.mark.parametrize("body, code", REFUSALS)
def test_body_refused(shared, body, code):
    before = len(shared.asked)
    answer = shared.post(body)
    assert (answer.code, answer.status) == (code, 400), answer
    assert len(shared.asked) == before


def test_refusal_names_the_field(shared):
    assert '"request_id"' in shared.post(b'{"operation":"revoke_cert","serial":"4f","request_id":"*"}').message
    assert '"serial"' in shared.post(b'{"operation":"revoke_cert"}').message
    assert '"sirial"' in shared.post(b'{"operation":"revoke_cert","sirial":"4f"}').message


def test_white_space_around_is_fine(shared):
    assert shared.post(b" \r\n\t" + STATUS + b"\n \n").status == 200


@pytest.mark.parametrize("cn, code", [("AA:bb:cc:dd:ee:ff", "csr_cn_not_mac"), ("sensor", "csr_cn_not_mac"),
                                      ("ff:ff:ff:ff:ff:ff", "mac_not_unicast"),
                                      ("00:00:00:00:00:00", "mac_not_unicast")])
def test_csr_name_refused(shared, pki, cn, code):
    csr = pki.csr(cn, "other")
    answer = shared.post({"operation": "req_client_cert", "csr": base64.b64encode(csr).decode()})
    assert (answer.status, answer.code) == (422, code)


def test_csr_key_and_signature_refused(shared, pki):
    csr = pki.csr(name="small", args=("-newkey", "rsa:1024"))
    assert shared.post({"operation": "req_client_cert", "csr": base64.b64encode(csr).decode()}).code == "key_type_refused"
    der = bytearray(pki.der(pki.csr(name="broken"), "req"))
    der[-1] ^= 1
    answer = shared.post({"operation": "req_client_cert", "csr": base64.b64encode(bytes(der)).decode()})
    assert (answer.status, answer.code) == (422, "csr_signature_invalid")


# ---- HTTP ----


@pytest.mark.parametrize("method, path, status, code", [
    ("GET", "/v1", 405, "method_not_allowed"), ("PUT", "/v1", 405, "method_not_allowed"),
    ("OPTIONS", "/v1", 405, "method_not_allowed"), ("DELETE", "/v1", 405, "method_not_allowed"),
    ("PATCH", "/v1", 405, "method_not_allowed"), ("POST", "/crl", 405, "method_not_allowed"),
    ("POST", "/", 404, "not_found"), ("POST", "/v1/", 404, "not_found"), ("POST", "/V1", 404, "not_found"),
    ("POST", "/v1?a=b", 404, "not_found"), ("POST", "/%76%31", 404, "not_found"), ("POST", "//v1", 404, "not_found"),
    ("POST", "/../v1", 404, "not_found")])
def test_routes(shared, method, path, status, code):
    answer = shared.exchange(http(method, path))
    assert (answer.status, answer.code) == (status, code)
    if status == 405:
        assert answer.headers["allow"] in ("POST", "GET, HEAD")


@pytest.mark.parametrize("method", ["BREW", "TRACE", "CONNECT", "PROPFIND"])
def test_odd_methods(shared, method):
    target = "x:443" if method == "CONNECT" else "/v1"
    answer = shared.exchange(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.status in (404, 405) and answer.code in ("not_found", "method_not_allowed")


@pytest.mark.parametrize("headers, code, status", [
    (["Origin: https://evil.example"], "origin_refused", 403), (["Origin: null"], "origin_refused", 403),
    (["Content-Type: text/plain"], "content_type", 415), (["Content-Encoding: gzip"], "content_type", 415)])
def test_headers_refused(shared, headers, code, status):
    data = http(headers=headers)
    if any(h.startswith("Content-Type") for h in headers):
        data = data.replace(b"Content-Type: application/json\r\n", b"", 1)
    answer = shared.exchange(data)
    assert (answer.code, answer.status) == (code, status)


@pytest.mark.parametrize("value, status", [
    ("application/json; charset=utf-8", 200), ("Application/JSON", 200), ("application/json ;x=y", 200),
    ("application/jsonp", 415), ("application/json, text/html", 415), ("application/x-www-form-urlencoded", 415)])
def test_content_type(shared, value, status):
    assert shared.post(STATUS, headers=[f"Content-Type: {value}"]).status == status


def test_no_content_type(shared):
    assert shared.exchange(http().replace(b"Content-Type: application/json\r\n", b"")).status == 415


@pytest.mark.parametrize("data", [
    http(headers=["Content-Length: 26"]),
    http(headers=["Transfer-Encoding: chunked"]),
    http(headers=["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], length=False),
    http(headers=["Transfer-Encoding: identity"], length=False, body=http(path="/smuggled")),
    http(headers=["Transfer-Encoding: gzip, chunked"], length=False, body=b"0\r\n\r\n"),
    http(headers=["Transfer-Encoding:"], length=False, body=http(path="/smuggled")),
    http(version="1.0", headers=["Transfer-Encoding: chunked"], length=False,
         body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(STATUS), STATUS)),
    http(length=False, headers=["Content-Length: +26"]),
    http(length=False, headers=["Content-Length: 26, 26"]),
    http(length=False, headers=["Content-Length: -1"]),
    http(length=False, headers=["Content-Length : 26"]),
    http(headers=["Bad Name: x"]), http(headers=[": x"]), http(headers=["no colon"]),
    http(headers=["Host: y"]),
    http().replace(b"Host: x\r\n", b""),
    http(version="2.0"), http(version="0.9"), http(version="1.2"), http(version="1.1x"),
    b"GET\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01\x02\x00" * 10 + b"\r\n\r\n",
    b"POST /v1\r\nHost: x\r\n\r\n",
    http(headers=["X: " + "a" * 9000]), http(path="/" + "a" * 9000),
    http(headers=["Expect: the-unexpected"]),
    http("HEAD", "/crl"),
    b"POST /v1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
], ids=lambda d: repr(d[:60]))
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_malformed_http_is_answered_in_json_and_closed(shared, data, tls):
    answer = shared.exchange(data, tls=tls)
    if isinstance(answer, bytes) or answer is None:
        pytest.fail(f"no answer: {answer!r}")
    if data.startswith(b"POST /v1 HTTP/1.1\r\nHost: x\r\nTransfer"):  # libevent calls it too long
        assert answer.status in (400, 413)
    elif data.startswith(b"HEAD"):
        assert answer.status == 400 and answer.body == b""
    elif tls and len(data) > 8192:  # the plain port does not count
        assert (answer.status, answer.code) == (431, "header_too_large"), answer
    else:
        assert (answer.status, answer.code) == (400, "http_malformed"), answer
    assert b"<" not in answer.body and answer.headers["connection"] == "close" and answer.closed


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_size_of_the_header(shared, pieces):
    """Counted from the first byte to the empty line, however it comes; a body, or what is pipelined, is none of it."""
    def send(s, data):
        step = max(1, len(data) // pieces)
        for at in range(0, len(data), step):
            s.sendall(data[at:at + step])
    with shared.connect() as s:
        for _ in range(3):
            send(s, http(headers=["X: " + "a" * 3900, "Y: " + "b" * 3900], body=STATUS + b" " * 20000) + http())
            assert read_answer(s).status == 200 and read_answer(s).status == 200
        try:
            send(s, http(headers=["X: " + "a" * 3900, "Y: " + "b" * 3900, "Z: " + "c" * 600], body=b""))
        except (ConnectionError, ssl.SSLError):
            pass  # it does not wait for the rest
        answer = read_answer(s)
        assert (answer.status, answer.code) == (431, "header_too_large") and answer.closed
    with shared.connect() as s:  # each is counted from its own first byte
        for _ in range(3):
            send(s, http(headers=["X: " + "a" * 3900]))
            assert read_answer(s).status == 200
        send(s, http(headers=["no colon"]))
        assert read_answer(s).code == "http_malformed"
    with shared.connect() as s:  # what is malformed is no large header because a body comes with it
        try:
            send(s, http(headers=["no colon"], body=b" " * 12000))
        except (ConnectionError, ssl.SSLError):
            pass
        assert read_answer(s).code == "http_malformed"


def test_body_at_the_limit_and_over(shared):
    assert shared.post(STATUS + b" " * (65536 - len(STATUS))).status == 200
    for size in (65537, 8_000_000):
        answer = shared.post(STATUS + b" " * (size - len(STATUS)))
        assert (answer.status, answer.code) == (413, "body_too_large")
    chunk = b"10000\r\n" + STATUS + b" " * (65536 - len(STATUS)) + b"\r\n"
    head = http(length=False, headers=["Transfer-Encoding: chunked"], body=b"")
    assert shared.exchange(head + chunk + b"0\r\n\r\n").status == 200
    answer = shared.exchange(head + chunk + b"1\r\n \r\n0\r\n\r\n")
    assert (answer.status, answer.code) == (413, "body_too_large")


def test_chunked(shared):
    body = b"".join(b"1\r\n" + bytes([c]) + b"\r\n" for c in STATUS) + b"0\r\n\r\n"
    assert shared.exchange(http(length=False, headers=["Transfer-Encoding: chunked"], body=body)).status == 200


def test_pipelined_and_in_pieces(shared):
    with shared.connect() as s:
        s.sendall(http() * 3)
        for _ in range(3):
            assert read_answer(s).status == 200
        for byte in http():
            s.sendall(bytes([byte]))
        assert read_answer(s).status == 200


def test_http_1_0(shared):
    data = b"POST /v1 HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 26\r\n%s\r\n" + STATUS
    with shared.connect() as s:
        s.sendall(data % b"Connection: keep-alive\r\n")
        assert read_answer(s).status == 200
        s.sendall(data % b"")
        assert read_answer(s).status == 200
        assert s.recv(1) == b""


def test_close_says_goodbye(shared):
    """close_notify, so that a client can tell the end from a cut (RFC 8446 section 6.1)."""
    raw = socket.create_connection(("127.0.0.1", shared.port), timeout=20)
    context = shared.context()
    context.options &= ~0x80  # SSL_OP_IGNORE_UNEXPECTED_EOF, which Python sets
    with context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as s:
        s.sendall(http(headers=["Connection: close"]))
        assert read_answer(s, to_end=False).status == 200
        assert s.recv(1) == b""  # a cut would raise SSLEOFError


@pytest.mark.parametrize("size", [500, 3000, 70000])
def test_curl(shared, pki, size):
    """Above 1024 bytes curl says Expect: 100-continue and waits for it."""
    body = pki.path("body.json")
    body.write_bytes(STATUS + b" " * (size - len(STATUS)))
    out = run("curl", "-sS", "--http1.1", "--cacert", pki.ca, "--cert", pki.client, "--key", pki.client_key,
              "-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--data-binary", f"@{body}",
              "-w", "\n%{http_code}", f"https://127.0.0.1:{shared.port}/v1").stdout.decode()
    assert out.splitlines()[-1] == ("200" if size <= 65536 else "413"), out
    assert json.loads(out.splitlines()[0])


def test_100_continue_comes(shared):
    with shared.connect() as s:
        s.sendall(http(headers=["Expect: 100-continue"], body=b"").replace(b"Content-Length: 0", b"Content-Length: 26"))
        assert read_answer(s).status == 100
        s.sendall(STATUS)
        assert read_answer(s).status == 200


# ---- documents ----


def get(path, method="GET", *headers):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_documents(shared, pki, tls):
    answer = shared.exchange(get("/crl"), tls=tls)
    assert answer.body == pki.crl and answer.headers["content-type"] == "application/pkix-crl"
    assert answer.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert answer.headers["etag"] == '"%s"' % hashlib.sha256(pki.crl).hexdigest()[:32]
    assert shared.exchange(get("/ca.cer"), tls=tls).body == pki.der(pki.ca.read_bytes())
    with (shared.connect() if tls else shared.plain()) as s:
        s.sendall(get("/crl", "HEAD"))
        head = read_answer(s, head_only=True)
        assert head.status == 200 and head.headers["content-length"] == str(len(pki.crl)) and head.body == b""
        s.sendall(get("/crl"))  # nothing of a body was left on the connection
        assert read_answer(s).body == pki.crl
    assert shared.exchange(get("/nothing"), tls=tls).status == 404
    assert shared.exchange(get("/crl?x"), tls=tls).status == 404


@pytest.mark.parametrize("header, status", [
    ('If-None-Match: {etag}', 304), ('If-None-Match: "x", W/{etag}', 304), ("If-None-Match: *", 304),
    ('If-None-Match: "x"', 200), ("If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT", 304),
    ("If-Modified-Since: Tue, 14 Nov 2023 22:13:19 GMT", 200), ("If-Modified-Since: yesterday", 200)])
def test_conditional(shared, pki, header, status):
    etag = '"%s"' % hashlib.sha256(pki.crl).hexdigest()[:32]
    answer = shared.exchange(get("/crl", "GET", header.format(etag=etag)), tls=False)
    assert answer.status == status and answer.headers["etag"] == etag
    assert answer.body == (b"" if status == 304 else pki.crl)


def test_two_of_one_second(front):
    """Who has the first must not hear by its date that there is nothing new."""
    date = "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT"

    def status(body, modified):
        front.document("/x", "text/plain", body, modified=modified)
        wait_until(lambda: front.exchange(get("/x"), tls=False).body == body)
        return front.exchange(get("/x", "GET", date), tls=False).status
    assert [status(b"1", 1_700_000_000), status(b"2", 1_700_000_000), status(b"3", 1_700_000_001),
            status(b"4", 1_700_000_000)] == [304, 200, 200, 304]


def test_cache_control_until_it_expires(front):
    front.document("/x", "text/plain", b"x", expires=int(time.time()) + 1000)
    front.document("/old", "text/plain", b"x", expires=1)
    wait_until(lambda: front.exchange(get("/old"), tls=False).status == 200)
    age = int(front.exchange(get("/x"), tls=False).headers["cache-control"].split("max-age=")[1])
    assert 900 < age <= 1000
    assert front.exchange(get("/old"), tls=False).headers["cache-control"].endswith("max-age=0")


def test_plain_port_has_no_api(shared):
    answer = shared.exchange(http(), tls=False)
    assert (answer.status, answer.code) == (404, "not_found") and "HTTPS" in answer.message


def test_large_document_while_it_is_replaced(front):
    """The one that is being sent stays whole."""
    old, new = b"a" * 30_000_000, b"b" * 1000
    front.document("/big", "text/plain", old)
    wait_until(lambda: front.exchange(get("/big"), tls=False).status == 200)
    with front.plain() as s:
        s.sendall(get("/big"))
        first = s.recv(10)
        front.document("/big", "text/plain", new)
        wait_until(lambda: front.exchange(get("/big"), tls=False).body == new)
        rest = b""
        while len(rest) < len(old):
            rest += s.recv(1 << 20)
        assert first == b"HTTP/1.1 2" and rest.endswith(old[-1000:]) and b"b" * 1000 not in rest


def memory_of(pid, what):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{what}:\s+(\d+)", text, re.M).group(1)) * 1024


def content_type(front):
    """Of /big, of which only the header is read."""
    with front.plain() as s:
        s.sendall(get("/big", "HEAD"))
        head = s.recv(4096).decode()
    found = re.search(r"(?im)^content-type: (\S+)", head)
    return found.group(1) if found else None


def mapped_documents(pid):
    """Bytes of sealed documents that are mapped."""
    spans = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*/memfd:", Path(f"/proc/{pid}/maps").read_text(), re.M)
    return sum(int(end, 16) - int(begin, 16) for begin, end in spans)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_slow_readers_cost_nothing_and_stop_nobody(front, tls):
    big = os.urandom(1000) * 45_000
    front.document("/big", "text/plain", big)
    wait_until(lambda: content_type(front) == "text/plain")
    before = memory_of(front.process.pid, "RssAnon")
    with contextlib.ExitStack() as all_of_them:
        readers = [all_of_them.enter_context(front.connect() if tls else front.plain()) for _ in range(50)]
        for s in readers:
            s.sendall(get("/big"))
        assert all(s.recv(10) == b"HTTP/1.1 2" for s in readers)
        for _ in range(20):
            assert front.post(STATUS).status == 200
        if "ASAN_OPTIONS" not in os.environ:  # which keeps what was freed
            assert memory_of(front.process.pid, "RssAnon") - before < 32 * 1024 * 1024
        assert mapped_documents(front.process.pid) < 2 * len(big)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_who_reads_what_was_replaced_long_since_is_ended(front, tls):
    """One CRL after the other, and of each a reader that hardly reads."""
    size, count = 100_000_000, 6

    def is_sent(s):
        """More than lies in buffers: it was not ended."""
        got = 0
        with contextlib.suppress(OSError):
            while got < size // 4 and (n := len(s.recv(1 << 20))):
                got += n
        return got >= size // 4
    with contextlib.ExitStack() as all_of_them:
        readers = []
        for number in range(count):
            front.document("/big", f"text/{number}", bytes(size))
            wait_until(lambda n=number: content_type(front) == f"text/{n}")
            readers.append(all_of_them.enter_context(front.connect() if tls else front.plain()))
            readers[-1].sendall(get("/big"))
            assert readers[-1].recv(10) == b"HTTP/1.1 2"
        # the present one, and of those before as many as are within 256 MiB
        assert mapped_documents(front.process.pid) < 3.1 * size
        assert [is_sent(s) for s in readers] == [False] * 3 + [True] * 3
    wait_until(lambda: mapped_documents(front.process.pid) < 1.1 * size)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_who_sends_and_does_not_read_is_held_back(front, tls):
    front.document("/big", "text/plain", b"a" * 30_000_000)
    wait_until(lambda: front.exchange(get("/big"), tls=False).status == 200)
    with (front.connect(timeout=3) if tls else front.plain(3)) as s:
        s.sendall(get("/big"))
        with pytest.raises(TimeoutError):
            for _ in range(64):
                s.sendall(b"x" * 1_000_000)
    assert front.post(STATUS).status == 200


def test_log_of_refusals_has_an_end(pki):
    front = Front(pki)
    with front.connect() as s:
        for _ in range(500):
            s.sendall(http(body=b"{}"))
            assert read_answer(s).status == 400
    wait_until(lambda: "more refusals in this second" in front.log.read_text())
    assert front.stop().count("field_missing") < 200


def test_no_plain_port(pki):
    front = Front(pki, plain=False)
    try:
        assert front.post(STATUS).status == 200
    finally:
        front.stop()


# ---- TLS ----


def s_client(front, *args):
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{front.port}", *map(str, args)],
                          input=b"", capture_output=True, timeout=30)


def test_tls_versions_and_suites(shared, pki):
    assert b"TLSv1.2" in s_client(shared, "-tls1_2").stdout
    for args in (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
                 ["-tls1_2", "-cipher", "ECDHE+AES:!AESGCM"], ["-tls1_2", "-cipher", "DHE"]):
        assert s_client(shared, *args).returncode != 0, args
    out = s_client(shared, "-tls1_2").stdout.decode()
    assert "CN = Test ca" in out.split("Acceptable client certificate CA names")[1].split("\n")[1]
    assert "Compression: NONE" in out and "New, TLSv1.2, Cipher is ECDHE-" in out


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_tickets_no_resumption(shared, version):
    context = shared.context()
    context.maximum_version = version
    session = None
    for _ in range(2):
        raw = socket.create_connection(("127.0.0.1", shared.port), timeout=20)
        with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as s:
            s.sendall(http())
            assert read_answer(s).status == 200
            assert not s.session_reused
            session = s.session
            assert not session or not session.has_ticket


def test_foreign_certificates(shared, pki):
    """Any certificate passes TLS; who it is, the authority decides. One that no CA may issue is nobody."""
    key, cert = pki.authority("self")
    for kind, k, c, expect in [("self-signed", key, cert, None),
                               ("negative", *pki.leaf("negative", "/CN=n", "", serial="-5"), "certificate_unknown"),
                               ("long", *pki.leaf("long", "/CN=l", "", serial="0x" + "7f" * 21), "certificate_unknown")]:
        context = ssl.create_default_context(cafile=str(pki.ca))
        context.load_cert_chain(c, k)
        raw = socket.create_connection(("127.0.0.1", shared.port), timeout=20)
        before = len(shared.asked)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as s:
            body = b'{"operation":"revoke_cert","serial":"4f"}'
            s.sendall(http(body=body))
            answer = read_answer(s)
            if expect:
                assert (answer.status, answer.code) == (401, expect), kind
                assert len(shared.asked) == before
                s.sendall(http())
                assert "signers" not in read_answer(s).json
            else:
                assert answer.status == 200
                assert shared.asked[-1][1]["caller_digest"] == hashlib.sha256(pki.der(c.read_bytes())).digest()


def test_monstrous_client_key_is_not_verified(shared, pki):
    key, cert = pki.path("huge.key"), pki.path("huge.pem")
    if not cert.exists():
        run("openssl", "req", "-x509", "-newkey", "rsa:4104", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=h")
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(cert, key)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        raw = socket.create_connection(("127.0.0.1", shared.port), timeout=20)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as s:
            s.sendall(http())
            if s.recv(1) == b"":
                raise ConnectionError


def test_new_listener_certificate_leaves_connections_alone(front, pki):
    with front.connect() as old:
        key, cert = pki.leaf("server2", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1", serial="77")
        front.send("listener", credits=8, certificate_pem=cert.read_bytes(), key_pem=key.read_bytes())

        def serial():
            with front.connect() as s:
                return s.getpeercert()["serialNumber"]
        wait_until(lambda: serial() == "4D")
        old.sendall(http())
        assert read_answer(old).status == 200


# ---- the authority: credits, deadlines, ends ----


def test_credits(pki):
    front = Front(pki, credits=4)
    front.answer = lambda name, values: None
    waiting = []
    try:
        for _ in range(4):
            s = front.connect()
            s.sendall(http(body=b'{"operation":"revoke_cert","serial":"4f"}'))
            waiting.append(s)
        wait_until(lambda: len(front.asked) == 4)
        answer = front.post(b'{"operation":"revoke_cert","serial":"4f"}')
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "busy", "1")
        assert front.post({"operation": "get_ca_chain"}).status == 200
        for ident in range(1, 5):
            front.send("answer_revoked", ident, serial=b"O", revoked_at=1, reason=0)
        for s in waiting:
            assert read_answer(s).status == 200
            s.close()
        front.answer = front.default_answer
        assert front.post(b'{"operation":"revoke_cert","serial":"4f"}').status == 200
    finally:
        front.stop()


def test_strangers_get_half_of_the_credits(pki):
    front = Front(pki, credits=4)
    front.answer = lambda name, values: None if name == "status" else front.default_answer(name, values)
    try:
        waiting = []
        for _ in range(2):
            s = front.connect(client=False)
            s.sendall(http())
            waiting.append(s)
        wait_until(lambda: len(front.asked) == 2)
        assert front.post(STATUS, client=False).status == 503
        assert front.exchange(get("/readyz"), tls=False).status == 503
        assert front.post(b'{"operation":"revoke_cert","serial":"4f"}').status == 200
        for ident in (1, 2):
            front.send("answer_status", ident, ready=1)
        for s in waiting:
            assert read_answer(s).status == 200
            s.close()
    finally:
        front.stop()


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_clients_that_go_in_the_middle(pki, tls):
    """200 connections closed before, while and after the authority answers."""
    front = Front(pki, credits=300)
    pause = threading.Event()
    held = []

    def answer(name, values):
        if not pause.is_set():
            held.append(name)
            return None
        return front.default_answer(name, values)
    front.answer = answer
    data = http() if tls else get("/readyz")
    try:
        with (front.connect() if tls else front.plain()) as kept:
            for i in range(200):
                s = front.connect() if tls else front.plain()
                if i % 4 == 0:  # a part of the request
                    s.sendall(data[:-5])
                elif i % 4 == 1:  # all, and gone at once
                    s.sendall(data)
                elif i % 4 == 2:  # all, with a reset
                    s.sendall(data)
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:  # two of them, and only half closed
                    s.sendall(data * 2)
                    s.shutdown(socket.SHUT_WR)
                s.close()
            wait_until(lambda: len(held) > 0)
            time.sleep(0.3)
            for ident in range(1, len(front.asked) + 1):
                front.send("answer_status", ident, ready=1)
            pause.set()
            kept.sendall(data)
            assert read_answer(kept).status == 200
        answers = [front.exchange(data, tls=tls).status for _ in range(20)]
        assert answers == [200] * 20
    finally:
        front.stop()


@pytest.mark.parametrize("record", [
    b"", b"x", b"\x01" * 16, b"\x00" * 200,
    MESSAGES.encode("answer_status", 10**6, ready=1),
    MESSAGES.encode("ready", 0, detail=""),
    MESSAGES.encode("issue", 1),
    MESSAGES.encode("listener", 0, credits=4),
    MESSAGES.encode("listener", 0, credits=0, certificate_pem=b"x", key_pem=b"x"),
    MESSAGES.encode("chain", 0, issuer_der=b"0\x00", chain_pem=b""),
    MESSAGES.encode("document", 0, path="/x", content_type="a", digest=b"0" * 32),
    MESSAGES.encode("answer_status", 1, ready=1) + b"x",
], ids=lambda r: repr(r[:20]))
def test_garbage_from_the_authority_ends_the_front(pki, record):
    front = Front(pki)
    front.authority.send(record)
    front.process.wait(timeout=20)
    text = front.stop(expect=1)
    assert "authority is gone" in text or "does not parse" in text or "cannot be mapped" in text


def test_second_answer_ends_the_front(pki):
    front = Front(pki)
    assert front.post(STATUS).status == 200
    front.send("answer_status", 1, ready=1)
    front.process.wait(timeout=20)
    front.stop(expect=1)


def test_wrong_kind_of_answer_ends_the_front(pki):
    front = Front(pki)
    front.answer = lambda name, values: ("answer_revoked", {"serial": b"O"})
    try:
        assert front.post(STATUS) is None
    except (ConnectionError, ssl.SSLError):
        pass
    front.process.wait(timeout=20)
    front.stop(expect=1)


def test_end_of_the_authority_and_of_the_supervisor(pki):
    front = Front(pki)
    front.authority.shutdown(socket.SHUT_RDWR)
    front.process.wait(timeout=20)
    front.stop(expect=1)
    front = Front(pki)
    front.supervisor.close()
    assert front.process.wait(timeout=20) == 0
    front.stop()


def test_document_that_is_no_file(front, pki):
    a, b = socket.socketpair()
    socket.send_fds(front.authority, [MESSAGES.encode("document", 0, path="/x", content_type="a", digest=b"0" * 32)],
                    [a.fileno()])
    assert front.process.wait(timeout=20) == 1
    a.close()
    b.close()
    front.stop(expect=1)
    front.stop = lambda *_: None


# ---- the end ----


def test_drain(pki):
    """What is in flight is answered; a new request on a kept connection is refused; then the end."""
    front = Front(pki)
    front.answer = lambda name, values: None
    with front.connect() as asking, front.connect() as kept:
        asking.sendall(http())
        wait_until(lambda: len(front.asked) == 1)
        front.process.send_signal(signal.SIGTERM)
        front.process.send_signal(signal.SIGINT)  # ignored
        time.sleep(0.3)
        assert front.alive()
        kept.sendall(http())
        refused = read_answer(kept)
        assert (refused.status, refused.code) == (503, "draining") and refused.closed
        assert refused.headers["retry-after"] == "1"
        front.send("answer_status", 1, ready=1)
        answer = read_answer(asking)
        assert answer.status == 200 and answer.headers["connection"] == "close"
        assert front.process.wait(timeout=5) == 0
    front.stop()


def test_retired_it_still_answers_what_it_has(pki):
    """SIGUSR1: others take what is new; a connection that it had gets one more answer, and its end."""
    front = Front(pki)
    with front.connect() as kept, front.connect() as fresh:
        kept.sendall(http())
        assert read_answer(kept).status == 200
        front.process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        for s in (kept, fresh):
            s.sendall(http())
            answer = read_answer(s)
            assert answer.status == 200 and answer.headers["connection"] == "close" and answer.closed
        front.process.wait(timeout=10)
    front.stop()


def test_drain_with_nothing_in_flight_is_quick(pki):
    front = Front(pki)
    with front.connect():
        start = time.monotonic()
        front.stop()
        assert time.monotonic() - start < 5


def test_a_large_answer_is_sent_before_the_end(pki):
    front = Front(pki)
    front.document("/big", "text/plain", b"x" * 20_000_000)
    wait_until(lambda: front.exchange(get("/big"), tls=False).status == 200)
    with front.plain() as s:
        s.sendall(get("/big"))
        s.recv(10)
        front.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        total = 10
        while more := s.recv(1 << 20):
            total += len(more)
        assert total > 20_000_000
    front.stop()


def test_before_it_has_a_certificate_nobody_is_served(pki):
    front = Front(pki, start=False)
    s = socket.create_connection(("127.0.0.1", front.port), timeout=20)
    s.settimeout(0.5)
    with pytest.raises(TimeoutError):
        s.recv(1)
    s.close()
    front.give_all()
    assert front.post(STATUS).status == 200
    front.stop()


# ---- what the process holds ----


def test_what_it_maps_and_holds(shared):
    maps = open(f"/proc/{shared.process.pid}/maps").read() if os.geteuid() == 0 else ""
    for library in ("sqlite", "p11", "pkcs11", "softhsm", "libcurl", "engines"):
        assert library not in maps
    if maps:
        links = [os.readlink(f"/proc/{shared.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{shared.process.pid}/fd")]
        files = [l for l in links if not l.startswith(("socket:", "anon_inode:", "pipe:")) and "front-" not in l
                 and l != "/dev/null"]
        assert all("memfd" in f or f.startswith(("/dev/pts", "/tmp")) for f in files), files
    status = open(f"/proc/{shared.process.pid}/status").read()
    assert "NoNewPrivs:\t1" in status


def test_out_of_descriptors_it_goes_on_later(pki):
    """Accepting pauses; it neither spins nor dies."""
    front = Front(pki)
    held = []
    run("prlimit", f"--pid={front.process.pid}", "--nofile=40:40")
    try:
        for _ in range(60):
            held.append(socket.create_connection(("127.0.0.1", front.port), timeout=20))
        wait_until(lambda: "cannot accept" in front.log.read_text())
        cpu = cpu_of(front)
        time.sleep(1.5)
        assert cpu_of(front) - cpu < 0.5
        for s in held:
            s.close()
        wait_until(lambda: answered(front))
    finally:
        front.stop()


def cpu_of(front):
    fields = open(f"/proc/{front.process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answered(front):
    try:
        answer = front.post(STATUS)
        return answer is not None and answer.status == 200
    except (OSError, ssl.SSLError):
        return False


def test_the_protocol_page_names_every_code_with_its_status():
    table = (REPO / "src/common/err.h").read_text()
    table = table[table.index("#define ERR_TABLE"):table.index("enum err_code")]
    page = (REPO / "docs/protocol.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|$", page, re.M)
    said = {(code, status) for status, codes in rows for code in re.findall(r"`([a-z_0-9]+)`", codes)}
    assert said == set(re.findall(r"X\((\w+), (\d+)", table))


def test_usage():
    assert subprocess.run([PROGRAM, "--help"], capture_output=True).returncode == 0
    assert subprocess.run([PROGRAM, "--version"], capture_output=True).stdout.startswith(b"signet-front ")
    assert subprocess.run([PROGRAM], capture_output=True).returncode == 2


# ---- what takes its 30 seconds ----


@pytest.mark.long
def test_deadlines(pki):
    """Who does not get on is closed; who waits for the authority is told, and the late answer is dropped."""
    front = Front(pki, credits=1)
    front.answer = lambda name, values: None
    try:
        start = time.monotonic()
        silent = socket.create_connection(("127.0.0.1", front.port), timeout=60)
        idle, idle_plain, half, asking = front.connect(timeout=60), front.plain(60), front.connect(timeout=60), \
            front.connect(timeout=60)
        half.sendall(http()[:-5])
        body = b'{"operation":"revoke_cert","serial":"4f"}'
        asking.sendall(http(body=body))
        answer = read_answer(asking)
        assert (answer.status, answer.code) == (503, "busy") and time.monotonic() - start > 25
        assert read_answer(half).code == "request_timeout"
        for s in (silent, idle, idle_plain, half):
            try:
                assert s.recv(1) == b""
            except (ConnectionError, ssl.SSLError):
                pass
        assert time.monotonic() - start < 50
        assert front.post(body).status == 503  # the authority still has the question
        front.send("answer_revoked", 1, serial=b"O", revoked_at=1, reason=0)
        front.answer = front.default_answer
        wait_until(lambda: front.post(body).status == 200)
    finally:
        front.stop()
