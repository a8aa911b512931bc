"""A stolen laptop: from the moment that its operator is revoked, nothing that it holds open gets it anything; and what
it had issued since a time is listed and revoked by one command each. The owner's commands are the client's own."""

import base64
import contextlib
import json
import os
import re
import socket
import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from desk import http, signature, tls
from est_client import EST
from signet_site import ISSUED, ORPHAN, Key, Site, mac, run, serial_of, wait_for, x509
from test_enrolment import intents, signers_stopped

REVOKED_NOW = (401, "certificate_revoked")


@pytest.fixture
def site(kit, tmp_path):
    with Site(kit, tmp_path / "site", server_fronts=2) as s:
        s.start()
        s.client("owner")
        yield s


class Held:
    """A connection that stays open; answers are read one by one, also when several came at once."""

    def __init__(self, site, operator, wrapped=None):
        self.socket = wrapped or tls(site, operator)
        self.answers = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        """(HTTP status, body); None: the connection was closed."""
        line = self.answers.readline()
        if not line:
            return None
        headers = dict(h.decode().strip().lower().split(": ", 1) for h in iter(self.answers.readline, b"\r\n"))
        return int(line.split()[1]), self.answers.read(int(headers.get("content-length", 0)))

    def ask(self, request):
        self.send(request)
        return self.answer()


def v1(operation, sign=None, **fields):
    body = json.dumps({"operation": operation, **fields}).encode()
    return http(headers=[f"Signet-Signature: {signature(sign, body)}"] if sign else [], body=body)


def est(path, key):
    der = x509.load_pem_x509_csr(base64.b64decode(key.csr)).public_bytes(Encoding.DER)
    return http(path=EST + path, body=base64.b64encode(der), kind="application/pkcs10")


def outcome(answer):
    """(HTTP status, code)"""
    status, body = answer
    found = re.search(rb'"code":"(\w+)"|^(\w+): ', body)
    return status, (found[1] or found[2]).decode() if found else body


def issue(held, number):
    status, body = held.ask(v1("req_client_cert", csr=Key(mac(number)).csr))
    assert status == 200, body
    return json.loads(body)["serial"]


def on_each_front(site, operator):
    """Eight connections, and as many more as it takes until each front has some of them."""
    held, ports = [], set()

    def enough():
        held.append(Held(site, operator))
        ports.add(held[-1].socket.getsockname()[1])
        return len(held) >= 8 and all(established(pid) & ports for pid in site.roles()["front"])
    wait_for(enough, "connections on each front")
    return held


def established(pid):
    """The clients' ports of a process's connections, by what the kernel lists."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            inodes.add(os.readlink(fd)[len("socket:["):-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].split(":")[1], 16) for row in rows if row[9] in inodes}


def by_openssl(site):
    """The serials of the CRL that is served, as openssl reads them."""
    site.crl()
    path = site.dir / "served.crl"
    path.write_bytes(site.get("/crl")[1])
    text = run("openssl", "crl", "-inform", "DER", "-in", path, "-noout", "-text").stdout
    return {s.lower().rjust(32, "0") for s in re.findall(r"Serial Number: ([0-9A-F]+)", text)}


def listed(site, *args):
    return {json.loads(line)["serial"] for line in site.signet("list", "--json", *args).stdout.splitlines()}


def everything(thief, serial, key):
    """Each operation that wants somebody, signed where a signature makes a difference, and EST."""
    return {"req_client_cert": v1("req_client_cert", csr=Key(mac(900)).csr),
            "the same again": v1("req_client_cert", csr=key.csr),
            "replace": v1("req_client_cert", csr=Key(key.name).csr, replace=True),
            "req_server_cert": v1("req_server_cert", thief, csr=Key("a.example").csr, request_id="s"),
            "renew_client_cert": v1("renew_client_cert", csr=Key(mac(902)).csr),
            "get_cert": v1("get_cert", serial=serial), "list_certs": v1("list_certs"),
            "report_device": v1("report_device", serial=serial, state="flashed"),
            "revoke_cert": v1("revoke_cert", serial=serial, reason="superseded"),
            "revoke_cert, signed": v1("revoke_cert", thief, issued_by="owner", reason="superseded", request_id="r"),
            "simpleenroll": est("simpleenroll", Key(mac(901))), "simplereenroll": est("simplereenroll", Key(mac(903)))}


def test_what_it_holds_open(site):
    thief = site.operator("kim", "provisioner,revoker,admin")
    held = on_each_front(site, thief)
    key = Key(mac(1))
    status, body = held[0].ask(v1("req_client_cert", csr=key.csr))
    serial = json.loads(body)["serial"]
    for h in held:  # each has been known as kim's
        assert h.ask(v1("get_cert", serial=serial))[0] == 200
    assert held[0].ask(est("simpleenroll", Key(mac(2))))[0] == 200
    assert b'"name":"kim"' in held[0].ask(v1("get_status"))[1]
    half = v1("req_client_cert", csr=Key(mac(3)).csr)
    held[1].send(half[:-20])  # a request that is not yet whole

    requests = everything(thief, serial, key)
    site.ctl("operator", "revoke", "--name", "kim", "--reason", "keyCompromise")
    before = site.query("SELECT count(*), sum(state), sum(board) FROM certificate")
    assert outcome(held[1].ask(half[-20:])) == REVOKED_NOW
    for number, (what, request) in enumerate(requests.items()):
        for h in (held[2 + number % 2], held[4 + number % 4]):
            answer = h.ask(request)
            assert outcome(answer) == REVOKED_NOW, (what, answer)
    for h in held:  # all at once, and behind each other
        h.send(b"".join(requests.values()))
    for h in held:
        assert [outcome(h.answer()) for _ in requests] == [REVOKED_NOW] * len(requests)
        status, body = h.ask(v1("get_status"))  # what anyone is told
        assert status == 200 and b"kim" not in body and b"signers" not in body, body
    assert site.query("SELECT count(*), sum(state), sum(board) FROM certificate") == before
    assert by_openssl(site) == {serial_of(x509.load_pem_x509_certificate(thief.cert.read_bytes()))}
    site.check_books()


def test_what_is_under_way(site):
    """Sent before the revocation, answered after it: the token had been asked already, and nothing comes of it."""
    thief = site.operator("kim")
    held = on_each_front(site, thief)
    (intents_before,) = site.query("SELECT count(*) FROM certificate WHERE state = 0")
    assert intents_before == (0,)
    with signers_stopped(site):
        for number, h in enumerate(held):
            h.send(v1("req_client_cert", csr=Key(mac(number)).csr) + v1("list_certs") +
                   v1("req_client_cert", csr=Key(mac(100 + number)).csr))
        intents(site, len(held))
        site.ctl("operator", "revoke", "--name", "kim", "--reason", "keyCompromise")
    for h in held:
        assert [outcome(h.answer()) for _ in range(3)] == [REVOKED_NOW] * 3
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = ?", ORPHAN) == [(len(held),)],
             "orphans")
    assert site.query("SELECT count(*) FROM certificate WHERE state = ? AND profile = 'device'", ISSUED) == [(0,)]
    assert len(by_openssl(site)) == len(held) + 1  # listed, in case the token signed after all
    site.check_books()


@pytest.mark.parametrize("version", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3))
def test_no_session_is_resumed(site, version):
    """Each connection shows its certificate anew."""
    thief = site.operator("kim")
    context = ssl.create_default_context(cafile=site.root)
    context.load_cert_chain(thief.cert, thief.key)
    context.minimum_version = context.maximum_version = version
    session = None
    for said in ((200, None), REVOKED_NOW):
        raw = socket.create_connection(("127.0.0.1", site.port), timeout=60)
        with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as wrapped:
            status, body = Held(site, thief, wrapped).ask(v1("list_certs"))
            assert status == said[0] and (status == 200 or outcome((status, body)) == said), body
            assert not wrapped.session_reused and not wrapped.session.has_ticket
            session = wrapped.session
        if status == 200:
            site.ctl("operator", "revoke", "--name", "kim", "--reason", "keyCompromise")


def test_what_it_had_issued(site):
    """Since it may have been in other hands: listed and revoked by one command each, and openssl finds the same."""
    thief, other = site.operator("kim"), site.operator("lee")
    held, others = Held(site, thief), Held(site, other)
    early = {issue(held, number) for number in range(3)}
    others_early = issue(others, 50)
    time.sleep(1.1)  # times are whole seconds
    since = run("date", "-u", "+%Y-%m-%dT%H:%M:%SZ").stdout.strip()
    late = {issue(held, number) for number in range(10, 15)}
    others_late = issue(others, 60)
    own = serial_of(x509.load_pem_x509_certificate(thief.cert.read_bytes()))

    site.ctl("operator", "revoke", "--name", "kim", "--reason", "keyCompromise")
    assert by_openssl(site) == {own}
    assert listed(site, "--operator", "kim", "--from", since) == late
    assert listed(site, "--operator", "kim") == early | late
    site.signet("revoke", "--issued-by", "kim", "--from", since, "--reason", "keyCompromise")
    assert by_openssl(site) == late | {own}
    assert listed(site, "--operator", "kim", "--state", "issued") == early
    assert listed(site, "--operator", "lee", "--state", "issued") == {others_early, others_late}
    site.signet("revoke", "--issued-by", "kim", "--reason", "keyCompromise")
    assert by_openssl(site) == early | late | {own}
    assert outcome(held.ask(v1("list_certs"))) == REVOKED_NOW
    site.check_books()
    assert site.ctl("audit").returncode == 0


def test_of_an_enrolment(site):
    """What a password led to, by the same command."""
    made = json.loads(site.ctl("--json", "enrolment", "add", "--count", "5").stdout)
    login = base64.b64encode(f"{made['user']}:{made['password']}".encode()).decode()
    serials = set()
    for number in range(3):
        request = est("simpleenroll", Key(mac(number))).replace(
            b"\r\n", f"\r\nAuthorization: Basic {login}\r\n".encode(), 1)
        status, body = Held(site, None).ask(request)
        assert status == 200, body
        (made_by_it,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
        serials.add(serial_of(made_by_it))
    site.ctl("enrolment", "end", made["user"])
    who = f"enrolment:{made['user']}"
    assert listed(site, "--operator", who) == serials
    said = site.signet("revoke", "--issued-by", who, "--reason", "keyCompromise").stdout
    assert "3 certificates" in said, said
    assert by_openssl(site) == serials
    assert listed(site, "--operator", who, "--state", "issued") == set()
    site.check_books()
