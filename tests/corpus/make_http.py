#!/usr/bin/env python3
"""Makes what strangers send to a front, in http/, and what an operator signs, in signed/.

    tests/corpus/make_http.py         writes the same files each time

Of http/ the first byte says who is connected (tests/fuzz/fuzz_http.c), the rest is HTTP. Of signed/ the
first two bytes are the length of a signature, which follows, and the rest is the body (fuzz_signed.c).
"""
import base64
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
CSR = (HERE / "csr" / "ok--p256.der").read_bytes()
OCSP = (HERE / "ocsp" / "ok--plain.der").read_bytes()
CSR64 = base64.b64encode(CSR).decode()


def request(method, path, *headers, body=None, version="1.1"):
    if body is not None:
        headers += (f"Content-Length: {len(body)}",)
    lines = [f"{method} {path} HTTP/{version}", "Host: ca.example:8443", *headers, "", ""]
    return "\r\n".join(lines).encode() + (body or b"")


def v1(who, _operation, *headers, **fields):
    body = json.dumps({"operation": _operation, **fields}).encode()
    return who + request("POST", "/v1", "Content-Type: application/json", *headers, body=body)


def est(who, operation, *headers, body=None):
    path = "/.well-known/est/" + operation
    if body is None:
        return who + request("GET", path)
    return who + request("POST", path, "Content-Type: application/pkcs10", *headers, body=body)


BASIC = "Authorization: Basic " + base64.b64encode(b"board:secret").decode()
HTTP = {
    "v1-issue": v1(b"1", "req_client_cert", csr=CSR64, profile="device", request_id="r-1", replace=True),
    "v1-issue-nobody": v1(b"0", "req_client_cert", csr=CSR64),
    "v1-issue-foreign": v1(b"2", "req_client_cert", csr=CSR64),
    "v1-renew": v1(b"1", "renew_client_cert", csr=CSR64),
    "v1-server": v1(b"1", "req_server_cert", "Signet-Signature: MAA=", csr=CSR64, request_id="r"),
    "v1-revoke": v1(b"1", "revoke_cert", serial="4f01", reason="keyCompromise"),
    "v1-revoke-mac": v1(b"1", "revoke_cert", mac="24:0a:c4:00:00:01", request_id="r"),
    "v1-revoke-many": v1(b"1", "revoke_cert", "Signet-Signature: MAA=", serials=["4f01", "4f02"], request_id="r"),
    "v1-get": v1(b"1", "get_cert", serial="4f01"),
    "v1-list": v1(b"1", "list_certs", mac="24:0a:c4:00:00:01", state="issued", **{"from": "2026-01-01T00:00:00Z"}, limit=5),
    "v1-report": v1(b"1", "report_device", serial="4f01", state="verified"),
    "v1-status": v1(b"0", "get_status"),
    "v1-chain": v1(b"0", "get_ca_chain"),
    "v1-crl": v1(b"0", "get_crl"),
    "v1-busy": v1(b"e", "req_client_cert", csr=CSR64),
    "v1-origin": v1(b"1", "get_status", "Origin: https://example.org"),
    "v1-chunked": b"0" + request("POST", "/v1", "Content-Type: application/json; charset=utf-8",
                                 "Transfer-Encoding: chunked") + b"8\r\n{\"operat\r\n12;a=b\r\nion\":\"get_status\"}\r\n0\r\n\r\n",
    "v1-expect": v1(b"0", "get_status", "Expect: 100-continue"),
    "est-cacerts": est(b"0", "cacerts"),
    "est-csrattrs": est(b"0", "device/csrattrs"),
    "est-enroll": est(b"1", "simpleenroll", body=base64.b64encode(CSR)),
    "est-enroll-label": est(b"1", "device/simpleenroll", "User-Agent: libest 3", body=base64.b64encode(CSR)),
    "est-password": est(b"0", "simpleenroll", BASIC, body=base64.b64encode(CSR)),
    "est-reenroll": est(b"1", "simplereenroll", body=base64.encodebytes(CSR)),
    "est-unknown": est(b"1", "other/fullcmc", body=b""),
    "ocsp-post": b"0" + request("POST", "/ocsp", "Content-Type: application/ocsp-request", body=OCSP),
    "ocsp-get": b"0" + request("GET", "/ocsp/" + base64.b64encode(OCSP).decode().replace("/", "%2F").replace("+", "%2B")),
    "ocsp-twice": b"0" + 2 * request("POST", "/ocsp", "Content-Type: application/ocsp-request", body=OCSP),
    "crl": b"0" + request("GET", "/crl", 'If-None-Match: W/"a", "b"', "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"),
    "head": b"0" + request("HEAD", "/ca.cer") + request("HEAD", "/readyz", "Connection: close"),
    "query": b"0" + request("GET", "/crl?a=b#c"),
    "absolute": b"0" + request("GET", "http://ca.example/healthz"),
    "http-1.0": b"0" + request("GET", "/healthz", "Connection: keep-alive", version="1.0"),
    "http-0.9": b"0GET /crl\r\n",
    "methods": b"0" + b"".join(request(m, "/v1") for m in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")),
    "two-lengths": b"0" + request("POST", "/v1", "Content-Length: 1", body=b"{}"),
    "length-and-chunked": b"0" + request("POST", "/v1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "folded": b"0GET /crl HTTP/1.1\r\nHost: a\r\n b\r\nX:y\r\n\r\n",
    "bare-lf": b"0GET /crl HTTP/1.1\nHost: a\n\n",
    "no-host": b"0GET /crl HTTP/1.1\r\n\r\n",
    "not-http": b"0\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


def signed(signature=b"", **fields):
    return len(signature).to_bytes(2, "big") + signature + json.dumps(fields).encode()


SERVER = base64.b64encode((HERE / "csr" / "ok--challenge-and-extensions.der").read_bytes()).decode()
SIGNED = {
    "server": signed(operation="req_server_cert", csr=SERVER, profile="server", request_id="r-1"),
    "serial": signed(operation="revoke_cert", serial="4f01", reason="superseded", request_id="r-2"),
    "serials": signed(operation="revoke_cert", serials=["4f01", "4f02"], reason="keyCompromise", request_id="r-3"),
    "mac": signed(operation="revoke_cert", mac="24:0a:c4:00:00:01", request_id="r-4"),
    "issued-by": signed(operation="revoke_cert", issued_by="anna", reason="certificateHold", request_id="r-5",
                        **{"from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"}),
    "two-selectors": signed(operation="revoke_cert", serial="4f01", mac="24:0a:c4:00:00:01", request_id="r-6"),
    "no-id": signed(operation="revoke_cert", serials=["4f01"]),
    "other": signed(operation="get_status", request_id="r-7"),
}

for folder, files in (("http", HTTP), ("signed", SIGNED)):
    for file, data in files.items():
        (HERE / folder / file).write_bytes(data)
