"""Bad input against the real signetd, each row with the code that names it, and that nothing was done for it.

What a body, a header or a path may be is tested against the front alone in test_front.py; here the same rows meet the
whole. The CSRs are those of tests/corpus/csr, whose names say what must come of them.
"""

import base64
import os
import re
import select
import socket
import threading
import time

import pytest

from desk import (code_of, device, edit, exchange, http, new_key, nothing_done, pem_of, post, profile, signature,
                  text_of, tls)
from front_harness import read_answer
from signet_site import REPO, Key, Operator, Site, free_port, mac, run, serial_of, x509
from test_front import REFUSALS
from test_once import foreign_operator

STATUS_OF = dict(re.findall(r"X\((\w+), (\d+)", (REPO / "src/common/err.h").read_text()))
CSRS = sorted(c for c in (REPO / "tests/corpus/csr").glob("*--*") if c.stat().st_size)
ARRIVAL = 30  # seconds that a request has to arrive: src/server/front


def refused(code):
    return int(STATUS_OF[code]), code


def serial_from(pem):
    return serial_of(x509.load_pem_x509_certificate(pem))


class Desk:
    """One site for the whole file, with everyone who may knock."""

    def __init__(self, site):
        self.site = site
        edit(site, profile("operator", "+4s"))
        site.start()
        self.expired = site.operator("expired", "provisioner,revoker,admin")
        end = time.monotonic() + 4
        site.stop()
        site.conf.write_text(site.conf.read_text().replace("not_after = +4s", "not_after = +30d"))
        edit(site, profile("server", more="allowed_names = .example.com"))
        site.start()
        self.op = site.operator("op", "provisioner,revoker,admin")
        self.other = site.operator("other", "provisioner,revoker,admin")
        self.auditor = site.operator("auditor", "auditor")
        self.revoked = site.operator("revoked", "provisioner,revoker,admin")
        site.ctl("operator", "revoke", "--name", "revoked")
        self.foreign = foreign_operator(site)
        self.forged = forged_operator(site, self.op)
        key = new_key()
        self.device_pem = pem_of(post(site, self.op, {"operation": "req_client_cert", "csr": key.csr}))
        self.device = device(site, "board", self.device_pem, key)
        self.device_key, self.device_serial = key, serial_from(self.device_pem)
        second = new_key()
        self.second_serial = serial_from(pem_of(post(site, self.op, {"operation": "req_client_cert",
                                                                     "csr": second.csr})))
        self.broker = server_csr(site, "mqtt.example.com")
        time.sleep(max(0, end - time.monotonic()))


def forged_operator(site, op):
    """A certificate of that other CA, which has the true CA's name: for op, with op's very serial."""
    serial = serial_of(x509.load_pem_x509_certificate(op.cert.read_bytes()))
    run("openssl", "x509", "-req", "-in", "foreign.csr", "-CA", "foreign-ca.pem", "-CAkey", "foreign-ca.key", "-set_serial",
        "0x" + serial, "-extfile", "foreign.ext", "-out", "forged.crt", cwd=site.dir)
    return Operator("op", site.dir / "forged.crt", site.dir / "foreign.key")


def server_csr(site, *names, cn="broker"):
    """base64 of a CSR with these in its subjectAltName."""
    key, csr = site.dir / "broker.key", site.dir / "broker.csr"
    more = ["-addext", "subjectAltName=" + ",".join(n if ":" in n else "DNS:" + n for n in names)] if names else []
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
        "-subj", f"/CN={cn}", *more, "-out", csr)
    return base64.b64encode(csr.read_bytes()).decode()


@pytest.fixture(scope="module")
def desk(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("refusals") / "site") as site:
        d = Desk(site)
        d.slow = slow_ones(d)  # they take their time while the other tests run
        before = site.roles()
        yield d
        after = site.roles()
        assert {r: after[r] for r in ("authority", "front", "signer")} == \
            {r: before[r] for r in ("authority", "front", "signer")}, "a process did not survive this"
        site.check_books([d.device_pem])


# ---- the body ----


def test_bodies(desk):
    with nothing_done(desk.site), tls(desk.site, desk.op) as s:
        for body, code in REFUSALS:
            s.sendall(http(body=body))
            assert code_of(read_answer(s)) == refused(code), body[:80]


def test_size_kind_and_origin(desk):
    body = text_of(operation="req_client_cert", csr=new_key().csr).encode()
    with nothing_done(desk.site):
        for made, code in ((http(body=body + b" " * 65536), "body_too_large"),
                           (http(body=body, kind="text/plain"), "content_type"),
                           (http(body=body, kind="application/jsonp"), "content_type"),
                           (http(body=body, kind=None), "content_type"),
                           (http(body=body, headers=["Content-Encoding: gzip"]), "content_type"),
                           (http(body=body, headers=["Origin: https://other.example"]), "origin_refused"),
                           (http(body=body, headers=["Origin: null"]), "origin_refused")):
            assert code_of(exchange(desk.site, made, desk.op)) == refused(code), made[:200]


@pytest.mark.parametrize("fields, code", [
    ({"operation": "revoke_cert"}, "field_missing"),
    ({"operation": "revoke_cert", "serial": "4f01", "mac": mac(1)}, "field_missing"),
    ({"operation": "revoke_cert", "serial": "4f01", "from": "2026-01-01T00:00:00Z"}, "field_missing"),
    ({"operation": "revoke_cert", "mac": "24-0a-c4-12-34-56"}, "csr_cn_not_mac"),
    ({"operation": "revoke_cert", "mac": "ff:ff:ff:ff:ff:ff"}, "mac_not_unicast"),
    ({"operation": "revoke_cert", "mac": "24:0a:c4:ff:ff:fe"}, "serial_unknown"),
    ({"operation": "revoke_cert", "serial": "4f01"}, "serial_unknown"),
    ({"operation": "revoke_cert", "serial": "4f01", "reason": "lost"}, "field_value"),
    ({"operation": "revoke_cert", "serial": "4f01", "reason": "aACompromise"}, "field_value"),
    ({"operation": "revoke_cert", "serial": "4f01", "reason": "removeFromCRL", "from": "x"}, "field_value"),
    ({"operation": "revoke_cert", "serials": []}, "field_value"),
    ({"operation": "revoke_cert", "serials": ["4f"] * 1001}, "field_value"),
    ({"operation": "revoke_cert", "serials": "4f01"}, "field_type"),
    ({"operation": "revoke_cert", "serials": ["4f01", 1]}, "field_type"),
    ({"operation": "revoke_cert", "serials": ["4f01", "4"]}, "field_value"),
    ({"operation": "revoke_cert", "issued_by": "op", "from": "yesterday"}, "field_value"),
    ({"operation": "revoke_cert", "issued_by": "op", "to": "2026-02-30T00:00:00Z"}, "field_value"),
    ({"operation": "revoke_cert", "issued_by": "op", "to": "2026-02-03T00:00:00+01:00"}, "field_value"),
    ({"operation": "report_device", "serial": "4f01"}, "field_missing"),
    ({"operation": "report_device", "state": "flashed"}, "field_missing"),
    ({"operation": "report_device", "serial": "4f01", "state": "flashed"}, "serial_unknown"),
    ({"operation": "report_device", "serial": "4f01", "state": "issued"}, "field_value"),
    ({"operation": "report_device", "serial": "4f01", "state": "Verified"}, "field_value"),
    ({"operation": "report_device", "serial": "4f01", "state": 1}, "field_type"),
    ({"operation": "report_device", "serial": "4f0", "state": "flashed"}, "field_value"),
    ({"operation": "report_device", "mac": mac(1), "state": "flashed"}, "field_unknown"),
    ({"operation": "report_device", "serial": "4f01", "state": "flashed", "request_id": "1"}, "field_unknown"),
    ({"operation": "get_cert"}, "field_missing"), ({"operation": "get_cert", "serial": "0g"}, "field_value"),
    ({"operation": "get_cert", "serial": "4f01"}, "serial_unknown"),
    ({"operation": "list_certs", "limit": 0}, "field_value"), ({"operation": "list_certs", "limit": 501}, "field_value"),
    ({"operation": "list_certs", "limit": 1.5}, "field_value"), ({"operation": "list_certs", "limit": "1"}, "field_type"),
    ({"operation": "list_certs", "after": "-1"}, "field_value"), ({"operation": "list_certs", "after": "9" * 19}, "field_value"),
    ({"operation": "list_certs", "state": "dead"}, "field_value"),
    ({"operation": "list_certs", "board": "broken"}, "field_value"),
    ({"operation": "list_certs", "operator": "nobody"}, "operator_unknown"),
    ({"operation": "list_certs", "from": "2026-13-01T00:00:00Z"}, "field_value"),
    ({"operation": "req_client_cert", "csr": "AAAA", "replace": "true"}, "field_type"),
    ({"operation": "req_client_cert", "csr": "AAAA", "replace": 1}, "field_type"),
    ({"operation": "renew_client_cert", "csr": "AAAA", "profile": "device"}, "field_unknown"),
    ({"operation": "get_crl", "request_id": "1"}, "field_unknown"),
], ids=lambda v: v if isinstance(v, str) else text_of(**v)[:90])
def test_fields(desk, fields, code):
    with nothing_done(desk.site):
        assert code_of(post(desk.site, desk.op, fields)) == refused(code)


# ---- the CSR ----


def test_hostile_requests(desk):
    """Nothing is signed for any of them, and none of them ends a process."""
    bad = [c for c in CSRS if not c.name.startswith("ok--")]
    assert len(bad) > 100
    with nothing_done(desk.site), tls(desk.site, desk.op) as s:
        for file in bad:
            code = file.name.split("--")[0]
            for operation in ("req_client_cert", "renew_client_cert"):
                body = text_of(operation=operation, csr=base64.b64encode(file.read_bytes()).decode())
                s.sendall(http(body=body.encode()))
                assert code_of(read_answer(s)) == refused(code), (file.name, operation)


def test_hostile_requests_for_servers(desk):
    """These the authority reads itself."""
    sample = [c for i, c in enumerate(CSRS) if i % 4 == 0 or "p256" in c.name or "rsa" in c.name]
    with nothing_done(desk.site), tls(desk.site, desk.op) as s:
        for number, file in enumerate(sample):
            code = file.name.split("--")[0]
            body = text_of(operation="req_server_cert", csr=base64.b64encode(file.read_bytes()).decode(),
                           request_id=f"corpus-{number}")
            s.sendall(http(body=body.encode(), headers=["Signet-Signature: " + signature(desk.op, body)]))
            found = code_of(read_answer(s))
            if code == "ok":
                assert found in (refused("names_missing"), refused("name_not_allowed")), file.name
            else:
                assert found == refused(code), file.name


def test_good_requests(desk):
    """So that it is not everything that is refused."""
    for file in (c for c in CSRS if c.name.startswith("ok--")):
        answer = post(desk.site, desk.op, {"operation": "req_client_cert", "replace": True, "request_id": file.stem,
                                           "csr": base64.b64encode(file.read_bytes()).decode()})
        assert answer.status == 200, (file.name, answer)


@pytest.mark.parametrize("csr, code", [
    ("AAA", "csr_base64"), ("AAAA=", "csr_base64"), ("AA==AAAA", "csr_base64"), ("AAAA\n", "csr_base64"),
    ("AAB=", "csr_base64"), ("AA-_", "csr_base64"), ("AAAA", "csr_malformed")])
def test_base64(desk, csr, code):
    with nothing_done(desk.site):
        for operation, more, sign in (("req_client_cert", {}, None), ("renew_client_cert", {}, None),
                                      ("req_server_cert", {"request_id": "b64"}, desk.op)):
            body = {"operation": operation, "csr": csr, **more}
            assert code_of(post(desk.site, desk.op, body, sign)) == refused(code), operation


@pytest.mark.parametrize("name, code", [
    ("sensor-1", "csr_cn_not_mac"), ("24:0A:C4:12:34:56", "csr_cn_not_mac"), ("240ac4123456", "csr_cn_not_mac"),
    ("24:0a:c4:12:34:56:78", "csr_cn_not_mac"), (" 24:0a:c4:12:34:56", "csr_cn_not_mac"),
    ("01:0a:c4:12:34:56", "mac_not_unicast"), ("ff:ff:ff:ff:ff:ff", "mac_not_unicast"),
    ("00:00:00:00:00:00", "mac_not_unicast"), ("03:0a:c4:12:34:56:78:9a", "mac_not_unicast")])
def test_names(desk, name, code):
    with nothing_done(desk.site):
        assert code_of(post(desk.site, desk.op, {"operation": "req_client_cert", "csr": Key(name).csr})) == refused(code)


def test_key_of_another_mac(desk):
    with nothing_done(desk.site):
        csr = desk.device_key.request(mac(0xfffff))
        for more in ({}, {"replace": True}, {"profile": "clockless"}):
            assert code_of(post(desk.site, desk.op, {"operation": "req_client_cert", "csr": csr, **more})) == \
                refused("key_of_other_subject")


# ---- who asks ----


def requests_of(desk):
    """One of each operation that does something, or tells something."""
    return [{"operation": "req_client_cert", "csr": new_key().csr},
            {"operation": "renew_client_cert", "csr": desk.device_key.csr},
            {"operation": "revoke_cert", "serial": desk.device_serial},
            {"operation": "revoke_cert", "mac": desk.device_key.name},
            {"operation": "report_device", "serial": desk.device_serial, "state": "flashed"},
            {"operation": "get_cert", "serial": desk.device_serial}, {"operation": "list_certs"},
            {"operation": "req_server_cert", "csr": desk.broker, "request_id": "who-1"},
            {"operation": "revoke_cert", "serials": [desk.device_serial], "request_id": "who-2"},
            {"operation": "revoke_cert", "issued_by": "op", "request_id": "who-3"}]


def is_signed(body):
    return "issued_by" in body or "serials" in body or body["operation"] == "req_server_cert"


@pytest.mark.parametrize("who, code", [
    (None, "certificate_required"), ("foreign", "certificate_unknown"), ("forged", "certificate_unknown"),
    ("expired", "certificate_expired"),
    ("revoked", "certificate_revoked")])
def test_not_in_force(desk, who, code):
    caller = getattr(desk, who) if who else None
    with nothing_done(desk.site):
        for body in requests_of(desk):
            expected = code
            if who == "expired" and body["operation"] == "renew_client_cert":
                expected = "profile_refused"  # this operation takes expired ones, but of devices alone
            sign = (caller or desk.op) if is_signed(body) else None
            assert code_of(post(desk.site, caller, body, sign)) == refused(expected), body
        assert "signers" not in post(desk.site, caller, {"operation": "get_status"}).json


def test_wrong_role(desk):
    """An auditor looks; a device renews itself, and no more than that."""
    with nothing_done(desk.site):
        for body in requests_of(desk):
            looks = body["operation"] in ("get_cert", "list_certs")
            for caller in (desk.auditor, desk.device):
                sign = caller if is_signed(body) else None
                expected = refused("role_refused")
                if body["operation"] == "renew_client_cert":
                    if caller is desk.device:
                        continue
                    expected = refused("profile_refused")
                if looks and caller is desk.auditor:
                    expected = (200, "OK")
                assert code_of(post(desk.site, caller, body, sign)) == expected, (body, caller.name)


@pytest.mark.parametrize("name, code", [("operator", "profile_refused"), ("server", "profile_refused"),
                                        ("no-such", "profile_unknown")])
def test_wrong_profile(desk, name, code):
    with nothing_done(desk.site):
        body = {"operation": "req_client_cert", "csr": new_key().csr, "profile": name}
        assert code_of(post(desk.site, desk.op, body)) == refused(code)
        if name != "server":
            body = {"operation": "req_server_cert", "csr": desk.broker, "profile": name, "request_id": "p-" + name}
            assert code_of(post(desk.site, desk.op, body, desk.op)) == refused(code)


def test_server_profile_for_devices_alone(desk):
    with nothing_done(desk.site):
        body = {"operation": "req_server_cert", "csr": desk.broker, "profile": "device", "request_id": "p-device"}
        assert code_of(post(desk.site, desk.op, body, desk.op)) == refused("profile_refused")


def signed_bodies(desk):
    return [text_of(operation="req_server_cert", csr=desk.broker, request_id="s-1"),
            text_of(operation="revoke_cert", serials=[desk.device_serial, desk.second_serial], request_id="s-2"),
            text_of(operation="revoke_cert", issued_by="op", request_id="s-3")]


def test_signatures(desk):
    """Missing, of another body, by another's key, altered, with more behind it, of another form."""
    site, op = desk.site, desk.op
    with nothing_done(site):
        for body in signed_bodies(desk):
            good = base64.b64decode(signature(op, body))
            flipped = good[:-1] + bytes([good[-1] ^ 1])
            assert code_of(post(site, op, body)) == refused("signature_required")
            for wrong in (signature(op, body + " "), signature(op, body.replace("s-", "t-")), signature(desk.other, body),
                          signature(desk.device, body), signature(desk.foreign, body),
                          # that come with the certificate to verify them by
                          signature(desk.other, body, "-md", "sha256"), signature(desk.foreign, body, "-md", "sha256"),
                          signature(desk.forged, body), signature(desk.forged, body, "-md", "sha256"),
                          # with the content inside as well: which of the two would count?
                          signature(op, body, "-nocerts", "-nodetach"),
                          base64.b64encode(good + b"\0").decode(), base64.b64encode(good + good).decode(),
                          base64.b64encode(flipped).decode(), base64.b64encode(good[:-20]).decode(),
                          base64.b64encode(b"0\x80").decode(), "AAAA", "AAA", "!", "x" * 4000,
                          base64.b64encode(good).decode().rstrip("=") + "\t="):
                assert code_of(post(site, op, body, wrong)) == refused("signature_invalid"), wrong[:60]
            # another's good signature on one's own connection, and one's own on another's
            assert code_of(post(site, desk.other, body, op)) == refused("signature_invalid")
            # which of two would count?
            twice = post(site, op, body, headers=[f"Signet-Signature: {base64.b64encode(good).decode()}"] * 2)
            assert code_of(twice)[0] == 403
            unnamed = body.replace(', "request_id": "%s"' % re.search(r's-\d', body).group(0), "")
            assert "request_id" not in unnamed
            assert code_of(post(site, op, unnamed, op)) == refused("request_id_required")


def test_signature_where_none_is_taken(desk):
    with nothing_done(desk.site):
        for body in requests_of(desk):
            if not is_signed(body) and body["operation"] != "revoke_cert":
                assert code_of(post(desk.site, desk.op, text_of(**body), desk.op)) == refused("signature_invalid"), body


def test_signed_body_is_read_as_strictly(desk):
    """The authority reads what the front passed on unread: it believes no front."""
    with nothing_done(desk.site):
        for body in ('{"operation":"revoke_cert","serials":["4f01"],"serials":["4f02"],"request_id":"x"}',
                     '{"operation":"revoke_cert","serials":["4f01"],"request_id":"x"}{}'):
            assert code_of(post(desk.site, desk.op, body, desk.op))[0] == 400
        unknown = text_of(operation="revoke_cert", serials=[desk.device_serial, "4f01"], request_id="one-unknown")
        assert code_of(post(desk.site, desk.op, unknown, desk.op)) == refused("serial_unknown")
        own = desk.site.query("SELECT lower(hex(serial)) FROM certificate WHERE name = 'auditor'")[0][0]
        forbidden = text_of(operation="revoke_cert", serials=[desk.device_serial, own], request_id="one-operator")
        assert code_of(post(desk.site, desk.op, forbidden, desk.op)) == refused("role_refused")
        nobody = text_of(operation="revoke_cert", issued_by="nobody", request_id="by-nobody")
        assert code_of(post(desk.site, desk.op, nobody, desk.op)) == refused("operator_unknown")


# ---- HTTP ----

STATUS = b'{"operation":"get_status"}'


@pytest.mark.parametrize("data, code", [
    (http(headers=["Content-Length: 26"]), "http_malformed"),
    (http(headers=["Content-Length: 27"]), "http_malformed"),
    (http(headers=["Transfer-Encoding: chunked"]), "http_malformed"),
    (http(length=False, headers=["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"]), "http_malformed"),
    (http(length=False, headers=["Content-Length: 26, 26"]), "http_malformed"),
    (http(headers=["Bad Name: x"]), "http_malformed"), (http(headers=["Host: y"]), "http_malformed"),
    (http().replace(b"HTTP/1.1", b"HTTP/3.0"), "http_malformed"),
    (b"\r\n\r\n", "http_malformed"), (b"POST\r\n\r\n", "http_malformed"),
    (http(headers=["X: " + "a" * 9000]), "header_too_large"),
    (http(headers=[f"X-{i}: {'a' * 100}" for i in range(100)]), "header_too_large"),
    (http(path="/" + "a" * 9000), "header_too_large"),
    (http(body=STATUS + b" " * 65536), "body_too_large"),
], ids=lambda d: d if isinstance(d, str) else repr(d[:50]))
def test_http_that_cannot_be_trusted_is_closed(desk, data, code):
    with nothing_done(desk.site):
        answer = exchange(desk.site, data, desk.op)
        assert code_of(answer) == refused(code)
        assert answer.headers["connection"] == "close" and answer.closed


@pytest.mark.parametrize("method, path, code", [
    ("GET", "/v1", "method_not_allowed"), ("PUT", "/v1", "method_not_allowed"), ("DELETE", "/v1", "method_not_allowed"),
    ("BREW", "/v1", "method_not_allowed"), ("POST", "/crl", "method_not_allowed"), ("POST", "/", "not_found"),
    ("POST", "/v1/", "not_found"), ("POST", "/v1?x=1", "not_found"), ("POST", "/V1", "not_found"),
    ("POST", "/v2", "not_found"), ("GET", "/signet.db", "not_found"), ("GET", "/../signet.conf", "not_found")])
def test_method_and_path(desk, method, path, code):
    with nothing_done(desk.site):
        body = b"" if method == "BREW" else STATUS  # evhttp reads no body of a method it does not know: that is malformed
        answer = exchange(desk.site, http(method, path, headers=["Connection: close"], body=body), desk.op)
        assert code_of(answer) == refused(code)
        if code == "method_not_allowed":
            assert answer.headers["allow"] in ("POST", "GET, HEAD")


class Slow:
    """A request that never gets to its end; began when, ended when, with which answer."""

    def __init__(self, desk, parts, pause):
        self.desk, self.parts, self.pause = desk, parts, pause
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with tls(self.desk.site, self.desk.op, timeout=120) as s:
            self.began = time.monotonic()
            for part in self.parts:
                s.sendall(part)
                if select.select([s], [], [], self.pause)[0]:
                    break
            self.answer = read_answer(s)
            self.ended = time.monotonic()


def slow_ones(desk):
    body = text_of(operation="req_client_cert", csr=new_key().csr).encode()
    whole = http(body=body)
    head = whole[:-len(body)]
    return {"body, a byte every 4 s": Slow(desk, [head] + [bytes([b]) for b in body], 4),
            "header, a byte every 4 s": Slow(desk, [bytes([b]) for b in head], 4),
            "a part of the header, then nothing": Slow(desk, [head[:20]], 120),
            "half of the body, then nothing": Slow(desk, [head + body[:100]], 120)}


def test_slower_than_its_deadline(desk):
    """From its first byte a request has 30 s, however busily it drips. (Last: they had all this file's time.)"""
    for name, slow in desk.slow.items():
        slow.thread.join(120)
        assert slow.answer is not None, name
        assert code_of(slow.answer) == refused("request_timeout"), name
        assert slow.answer.closed and slow.ended - slow.began > ARRIVAL - 2, (name, slow.ended - slow.began)


# ---- the configuration ----


def no_start(site, *words):
    code, said = site.run_to_end()
    assert code == 1, said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("section, line, words", [
    ("[server]", "colour = green", ("[server] colour: there is no such key",)),
    ("[token]", "pin = 1234", ("[token] pin: there is no such key",)),
    ("[ca]", "crl_live = 7d", ("[ca] crl_live: there is no such key",)),
    ("[caps]", "certificates_minute = 1", ("[caps] certificates_minute: there is no such key",)),
    ("[server]", "fronts = 0", ("[server] fronts", "0 is not within 1 to 64")),
    ("[server]", "listen = nowhere", ("[server] listen", "not address:port")),
    ("[ca]", "crl_life = soon", ("[ca] crl_life", "is not a time such as")),
    ("[server]", "public_url = https://x", ("[server] public_url", "http://")),
])
def test_unknown_key(site, section, line, words):
    lines = [l for l in site.conf.read_text().splitlines() if l.split("=")[0].strip() != line.split("=")[0].strip()]
    if section not in lines:
        lines.append(section)
    at = lines.index(section) + 1
    site.conf.write_text("\n".join(lines[:at] + [line] + lines[at:]) + "\n")
    no_start(site, f"signet.conf:{at + 1}: ", *words)
    assert not (site.state / "signet.db").exists()


@pytest.mark.parametrize("text, words", [
    (profile("device", more="colour = green"), ("device", "colour")),
    (profile("device").replace("critical, CA:FALSE", "critical, CA:TRUE"), ("device", "CA")),
    (profile("device").replace("keyUsage = critical, digitalSignature", "keyUsage = keyCertSign"), ("device", "keyCertSign")),
    (profile("device").replace("clientAuth", "clientOrth"), ("device", "extendedKeyUsage")),
    (profile("device", "whenever"), ("device", "not_after", "whenever")),
    (profile("device").replace("roles = provisioner", "roles = boss"), ("device", "boss")),
    (profile("device").replace("roles = provisioner", ""), ("device", "roles")),
    (profile("device").replace("{name}", "x"), ("device", "{name}")),
    (profile("server", more="allowed_names = *.example.com"), ("server", "allowed_names", "*.example.com")),
], ids=lambda v: v[-1] if isinstance(v, tuple) else "")
def test_profile_that_cannot_be_built(site, text, words):
    edit(site, text)
    no_start(site, *words)
    assert not (site.state / "signet.db").exists()
    assert site.spawn("--check").wait(60) == 1  # and it is known beforehand


def test_port_in_use(site):
    for which in ("port", "http_port"):
        with socket.create_server(("127.0.0.1", getattr(site, which))):
            no_start(site, f"127.0.0.1:{getattr(site, which)}", "another program has the port, choose another")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_state_of_another_owner(site):
    os.chown(site.state, 12345, 12345)
    no_start(site, str(site.state), "belongs to user 12345", "chown")
    os.chown(site.state, 0, 0)
    for mode in (0o777, 0o775, 0o757):
        site.state.chmod(mode)
        no_start(site, str(site.state), "chmod go-w")
    assert not (site.state / "signet.db").exists()
    site.state.chmod(0o755)
    site.start()


def test_state_locked(site):
    site.start()
    first = site.conf.read_text()
    second = first.replace(f":{site.port}\n", f":{free_port()}\n").replace(f"{site.http_port}\n", f"{free_port()}\n")
    assert second != first
    site.conf.write_text(second)
    try:
        no_start(site, str(site.state / "lock"), "is locked: another signetd runs on this state")
    finally:
        site.conf.write_text(first)
    assert site.get("/readyz")[0] == 200
