"""EST (RFC 7030, RFC 8951) on a whole Signet, with clients that this project did not write: strongSwan's pki, and curl
with openssl. One issuance path, two doors: what was asked at one is known at the other."""

import base64
import re
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from desk import check_books, device, edit, exchange, new_key, nothing_done, plain, profile, reload, tls
from est_client import STATUS_OF, basic, certificates, http, refused
from front_harness import read_answer
from signet_site import ISSUED, REVOKED, Key, Site, at_once, run, serial_of, tool_environment
from test_ctl import lines_of
from test_once import foreign_operator

EC_ONLY = profile("device", called="sensor").replace("keys = rsa:2048-4096, ec:p256, ec:p384", "keys = ec:p256")


def base64_der(csr):
    return base64.b64encode(x509.load_pem_x509_csr(base64.b64decode(csr)).public_bytes(Encoding.DER))


def subject(pem):
    return x509.load_pem_x509_certificate(pem).subject.rfc4514_string()


def serial(pem):
    return serial_of(x509.load_pem_x509_certificate(pem))


class Desk:
    """A site, its operators, and EST by hand and by others' clients."""

    def __init__(self, site):
        self.site = site
        edit(site, EC_ONLY + profile("device", "+2s", "renew_expired = 1h", "brief") +
             profile("device", "+1s", "renew_expired = 1s", "gone"))
        site.start()
        self.op, self.auditor = site.operator(), site.operator("auditor", "auditor")
        self.url = f"https://127.0.0.1:{site.port}"

    def ask(self, csr, who=None, path="simpleenroll", headers=(), **more):
        """The answer to a key's CSR, or to this body."""
        body = csr if isinstance(csr, bytes) else base64_der(csr.csr if isinstance(csr, Key) else csr)
        return exchange(self.site, http(path=path, body=body, headers=headers, **more), who)

    def enrol(self, key, who=None, **how):
        """The certificate, PEM."""
        (pem,) = certificates(self.ask(key, who or self.op, **how))
        return pem

    def board(self, name, **how):
        """A board with its certificate: (key, PEM, its own connection's)."""
        key = new_key()
        pem = self.enrol(key, **how)
        return key, pem, device(self.site, name, pem, key)

    def password(self, *args):
        """(the header that logs in, user, password)"""
        (made,) = lines_of(self.site.ctl("--json", "enrolment", "add", *args).stdout)
        return basic(made["user"], made["password"]), made["user"], made["password"]

    def curl(self, path, *args, code=0):
        return run("curl", "-sS", "--fail-with-body", "--cacert", self.site.root, *args,
                   f"{self.url}/.well-known/est/{path}", cwd=self.site.dir, env=tool_environment(), code=code).stdout

    def pki(self, *args, code=0):
        """strongSwan's: (what it wrote to stdout, what it said)."""
        done = run("pki", *args, "--url", self.url, "--cacert", self.site.root, code=code, cwd=self.site.dir)
        return done.stdout, done.stderr

    def file(self, name, data):
        path = self.site.dir / name
        path.write_bytes(data)
        return path

    def states(self, key):
        return [s for (s,) in self.site.query("SELECT state FROM certificate WHERE name = ? ORDER BY id", key.name)]


@pytest.fixture(scope="module")
def desk(kit, tmp_path_factory):
    with Site(kit, tmp_path_factory.mktemp("est") / "site") as site:
        yield Desk(site)
        check_books(site)


# ---- other people's clients ----


def test_strongswan(desk):
    """pki --estca, then --est: enrolled by a password, enrolled anew by its own certificate, with a new key."""
    desk.pki("--estca", "--caout", "got.pem", "--outform", "pem")
    fingerprints = [run("openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256").stdout for path in
                    (desk.site.dir / "got.pem", desk.site.root, desk.site.dir / "got-1.pem", desk.site.state / "intermediate.pem")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2] == fingerprints[3]

    ca = ["--cacert", "got-1.pem"]  # the issuer, which it does not take from TLS
    key = new_key()
    _, user, password = desk.password("--mac", key.name)
    csr = desk.file("strong.der", base64.b64decode(base64_der(key.csr)))
    first, said = desk.pki("--est", *ca, "--in", csr, "--userpass", f"{user}:{password}", "--outform", "pem")
    assert "Issued certificate is trusted" in said and "currently valid" in said, said
    assert subject(first.encode()) == f"CN={key.name}"

    cert, own = desk.file("strong.crt", first.encode()), key.save(desk.site.dir / "strong.key")
    newer = Key(key.name)
    csr = desk.file("strong-2.der", base64.b64decode(base64_der(newer.csr)))
    second, said = desk.pki("--est", *ca, "--in", csr, "--cert", cert, "--key", own, "--outform", "pem")
    assert "Issued certificate is trusted" in said, said
    assert subject(second.encode()) == f"CN={key.name}" and serial(first.encode()) != serial(second.encode())
    # the new one is as good as the first
    cert, own = desk.file("strong-2.crt", second.encode()), newer.save(desk.site.dir / "strong-2.key")
    third, _ = desk.pki("--est", *ca, "--in", csr, "--cert", cert, "--key", own, "--outform", "pem")
    assert serial(third.encode()) not in (serial(first.encode()), serial(second.encode()))

    other = desk.file("strong-3.der", base64.b64decode(base64_der(new_key().csr)))
    for login in (["--userpass", f"{user}:{password}x"], [], ["--userpass", f"{user}:{password}"]):
        out, said = desk.pki("--est", *ca, "--in", other, *login, code=None)
        assert out == "" and re.search("EST request failed: HTTP (401|403|422)", said), said


def test_curl_and_openssl(desk):
    chain = desk.file("p7", base64.b64decode(desk.curl("cacerts")))
    run("openssl", "pkcs7", "-inform", "DER", "-in", chain, "-print_certs", "-out", desk.site.dir / "chain.pem")
    attributes = run("openssl", "asn1parse", "-inform", "DER", "-in",
                     desk.file("attrs", base64.b64decode(desk.curl("csrattrs")))).stdout
    assert re.findall(r"OBJECT\s+:(\S+)", attributes) == ["rsaEncryption", "id-ecPublicKey", "prime256v1",
                                                         "id-ecPublicKey", "secp384r1", "1.3.6.1.1.1.1.22"]
    key = new_key()
    run("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "curl.key", "-subj", f"/CN={key.name}",
        "-outform", "DER", "-out", "curl.der", cwd=desk.site.dir)
    for name, body in (("curl.64", base64.encodebytes((desk.site.dir / "curl.der").read_bytes())),
                       ("curl.1", base64.b64encode((desk.site.dir / "curl.der").read_bytes()))):
        desk.file(name, body)

    def post(path, body, *args):
        p7 = desk.curl(path, "-H", "Content-Type: application/pkcs10", *body, *args)
        pem = run("openssl", "pkcs7", "-inform", "DER", "-in", desk.file("p7", base64.b64decode(p7)), "-print_certs").stdout
        assert pem.count("BEGIN CERTIFICATE") == 1
        return pem[pem.index("-----BEGIN"):].strip() + "\n"
    operator = ["--cert", desk.op.cert, "--key", desk.op.key]
    first = post("simpleenroll", ["--data-binary", "@curl.64"], *operator)
    assert post("simpleenroll", ["--data", "@curl.64"], *operator) == first  # --data takes the newlines out
    assert post("simpleenroll", ["--data-binary", "@curl.1", "-H", "Content-Transfer-Encoding: base64"], *operator) == first
    desk.file("curl.crt", first.encode())
    again = post("simplereenroll", ["--data-binary", "@curl.64"], "--cert", "curl.crt", "--key", "curl.key")
    desk.file("curl-2.crt", again.encode())
    assert again != first
    for cert in ("curl.crt", "curl-2.crt"):
        run("openssl", "verify", "-x509_strict", "-CAfile", desk.site.root, "-untrusted", "chain.pem", "-purpose", "sslclient",
            cert, cwd=desk.site.dir)
        assert run("openssl", "x509", "-in", cert, "-noout", "-subject", cwd=desk.site.dir).stdout == f"subject=CN = {key.name}\n"
    refusal = desk.curl("simpleenroll", "-H", "Content-Type: application/pkcs10", "--data", "@curl.64", code=22)
    assert refusal.startswith("credentials_required: ")


# ---- one path, two doors ----


def test_the_same_request_at_both_doors(desk):
    """Exactly once, whichever came first, in any layout, many at once."""
    by_json, by_est, at_the_same_time = new_key(), new_key(), new_key()
    first = desk.site.issue(desk.op, by_json)[1]
    assert desk.enrol(by_json) == desk.enrol(by_json, path="device/simpleenroll") == first
    body = base64_der(by_json.csr)
    assert desk.enrol(b"\r\n".join(re.findall(b".{1,64}", body)) + b"\r\n") == first
    first = desk.enrol(by_est)
    assert desk.site.issue(desk.op, by_est) == (200, first)

    def either(i):
        return desk.enrol(at_the_same_time) if i % 2 else desk.site.issue(desk.op, at_the_same_time)[1]
    assert len(set(at_once(12, either))) == 1
    for key in (by_json, by_est, at_the_same_time):
        assert desk.states(key) == [ISSUED]
    # an id is an id: the other door has none
    key = new_key()
    assert desk.site.issue(desk.op, key, request_id="est-1")[0] == 200
    with nothing_done(desk.site):
        assert refused(desk.ask(key, desk.op)) == (409, "subject_has_certificate")


def test_conflicts(desk):
    key = new_key()
    pem = desk.enrol(key)
    other = desk.site.operator("other", "provisioner,revoker")
    with nothing_done(desk.site):
        assert refused(desk.ask(Key(key.name), desk.op)) == (409, "subject_has_certificate")
        assert refused(desk.ask(key, other)) == (409, "subject_has_certificate")
        assert refused(desk.ask(key.request(new_key().name), desk.op)) == (409, "key_of_other_subject")
    assert desk.site.ask(desk.op, "revoke_cert", serial=serial(pem))[0] == 200
    with nothing_done(desk.site):
        assert refused(desk.ask(key, desk.op)) == (409, "result_dead")
    desk.enrol(Key(key.name))
    assert desk.states(key) == [REVOKED, ISSUED]


def test_labels(desk):
    rsa = "rsa.der"
    name = new_key().name
    run("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "rsa.key", "-subj", f"/CN={name}", "-outform",
        "DER", "-out", rsa, cwd=desk.site.dir)
    body = base64.b64encode((desk.site.dir / rsa).read_bytes())
    assert base64.b64decode(desk.curl("sensor/csrattrs")) != base64.b64decode(desk.curl("device/csrattrs"))
    assert desk.curl("device/csrattrs") == desk.curl("csrattrs") == desk.curl("clockless/csrattrs")
    for label, code in (("sensor", "key_type_refused"), ("server", "not_found"), ("operator", "not_found"),
                        ("nobody", "not_found")):
        with nothing_done(desk.site):
            assert refused(desk.ask(body, desk.op, f"{label}/simpleenroll"))[1] == code
    key = new_key()
    desk.enrol(key, path="sensor/simpleenroll")
    desk.enrol(Key(key.name), path="clockless/simpleenroll")  # of another profile: another certificate
    assert desk.site.query("SELECT profile FROM certificate WHERE name = ? ORDER BY id", key.name) == [("sensor",), ("clockless",)]

    key, pem, own = desk.board("labelled", path="sensor/simpleenroll")
    for label in ("", "device/", "sensor/"):  # the profile stays, as the subject does
        desk.enrol(key, own, path=label + "simplereenroll")
    assert {p for (p,) in desk.site.query("SELECT profile FROM certificate WHERE name = ?", key.name)} == {"sensor"}


def test_a_profile_that_comes_and_goes(kit, tmp_path):
    with Site(kit, tmp_path / "site") as site:
        desk = Desk(site)
        assert refused(desk.ask(new_key(), desk.op, "late/simpleenroll")) == (404, "not_found")
        before = site.conf.read_text()
        edit(site, profile("device", called="late"))
        reload(site)
        desk.enrol(new_key(), path="late/simpleenroll")
        site.conf.write_text(before)
        reload(site)
        assert refused(desk.ask(new_key(), desk.op, "late/simpleenroll")) == (404, "not_found")
        check_books(site)


# ---- who may ----


def test_passwords(desk):
    key, other = new_key(), new_key()
    login, user, password = desk.password("--mac", key.name)
    with nothing_done(desk.site):
        for wrong in (basic(user, password + "x"), basic(user, ""), basic("nobody", password), basic(user, user)):
            assert refused(desk.ask(key, headers=[wrong])) == (401, "enrolment_refused")
        assert refused(desk.ask(other, headers=[login])) == (422, "name_not_allowed")
        assert refused(desk.ask(key, headers=[login], path="simplereenroll")) == (401, "certificate_required")
        assert refused(desk.ask(key, headers=[login], path="sensor/simpleenroll")) == (403, "profile_refused")
    pem = desk.enrol(key, headers=[login])  # with an operator's certificate too: the password counts
    assert certificates(desk.ask(key, headers=[login])) == [pem]  # the answer was lost; not spent twice
    with nothing_done(desk.site):
        assert refused(desk.ask(Key(key.name), headers=[login]))[0] in (403, 409)
    assert desk.site.query("SELECT o.name FROM certificate c JOIN operator o ON o.id = c.operator WHERE c.name = ?",
                           key.name) == [(f"enrolment:{user}",)]

    login, user, _ = desk.password("--count", "2", "--profile", "sensor")
    boards = [new_key() for _ in range(6)]
    answers = at_once(6, lambda i: desk.ask(boards[i], headers=[login]))  # no label: the profile is the password's
    assert sorted(a.status for a in answers) == [200, 200, 403, 403, 403, 403]
    assert {refused(a) for a in answers if a.status != 200} == {(403, "enrolment_spent")}
    got = [k for k, a in zip(boards, answers) if a.status == 200]
    assert {p for k in got for (p,) in desk.site.query("SELECT profile FROM certificate WHERE name = ?", k.name)} == {"sensor"}

    login, user, _ = desk.password("--count", "5")
    desk.enrol(new_key(), headers=[login])
    desk.site.ctl("enrolment", "end", user)
    assert refused(desk.ask(new_key(), headers=[login])) == (401, "enrolment_refused")


def test_the_board_renews_what_a_password_gave(desk):
    """Its whole life by EST, nobody else there: a password, then its own certificates."""
    key = new_key()
    login, *_ = desk.password("--mac", key.name)
    own = device(desk.site, "alone", desk.enrol(key, headers=[login]), key)
    newer = Key(key.name)
    own = device(desk.site, "alone-2", desk.enrol(newer, own, path="simplereenroll"), newer)
    desk.enrol(newer, own, path="simplereenroll")
    assert desk.states(key) == [ISSUED] * 3


def test_who_is_refused(desk):
    foreign = foreign_operator(desk.site)
    key, pem, own = desk.board("refused")
    other = new_key()
    lost = desk.board("lost")
    assert desk.site.ask(desk.op, "revoke_cert", serial=serial(lost[1]), reason="keyCompromise")[0] == 200
    gone_op = desk.site.operator("leaver")
    desk.site.ctl("operator", "revoke", "--name", "leaver")
    refusals = {
        ("simpleenroll", None, other): "credentials_required",
        ("simpleenroll", foreign, other): "certificate_unknown",
        ("simpleenroll", gone_op, other): "certificate_revoked",
        ("simpleenroll", desk.auditor, other): "role_refused",
        ("simpleenroll", own, other): "role_refused",
        ("simpleenroll", own, key): "role_refused",
        ("simpleenroll", lost[2], lost[0]): "certificate_revoked",
        ("simplereenroll", None, key): "certificate_required",
        ("simplereenroll", foreign, key): "certificate_unknown",
        ("simplereenroll", desk.op, key): "profile_refused",
        ("simplereenroll", own, other): "name_not_allowed",
        ("simplereenroll", lost[2], lost[0]): "certificate_revoked",
    }
    with nothing_done(desk.site):
        for (path, who, asked), code in refusals.items():
            for label in ("", "device/"):
                assert refused(desk.ask(asked, who, label + path)) == (int(STATUS_OF[code]), code), (path, who, code)
        assert refused(desk.ask(key.request(new_key().name), own, "simplereenroll")) == (422, "name_not_allowed")
        assert refused(desk.ask(Key("op"), desk.op)) == (422, "csr_cn_not_mac")


def test_renewal_after_the_end(desk):
    """As long as the profile's renew_expired says, and no longer."""
    brief, gone = desk.board("brief", path="brief/simpleenroll"), desk.board("gone", path="gone/simpleenroll")
    time.sleep(3.2)
    assert subject(desk.enrol(brief[0], brief[2], path="simplereenroll")) == f"CN={brief[0].name}"
    with nothing_done(desk.site):
        assert refused(desk.ask(gone[0], gone[2], "simplereenroll")) == (401, "certificate_expired")


# ---- what is malformed ----


def test_what_is_malformed_does_nothing(desk):
    key = new_key()
    body = base64_der(key.csr)
    tampered = base64.b64decode(body)
    with nothing_done(desk.site):
        for code, made in {
            "csr_base64": desk.ask(base64.b64decode(key.csr), desk.op),  # PEM
            "csr_malformed": desk.ask(b"AAAA", desk.op),
            "csr_signature_invalid": desk.ask(base64.b64encode(tampered[:-1] + bytes([tampered[-1] ^ 1])), desk.op),
            "content_type": desk.ask(body, desk.op, kind="application/json"),
            "origin_refused": desk.ask(body, desk.op, headers=["Origin: https://example.com"]),
            "http_malformed": desk.ask(body, desk.op, headers=["Authorization: Basic :"]),
            "credentials_required": desk.ask(body, desk.op, headers=["Authorization: Negotiate abc"]),
        }.items():
            assert refused(made) == (int(STATUS_OF[code]), code)
        with tls(desk.site, desk.op) as s:
            s.sendall(http("PUT"))
            assert refused(read_answer(s)) == (405, "method_not_allowed")
            s.sendall(http(path="serverkeygen", body=body))
            assert refused(read_answer(s)) == (404, "not_found")
            s.sendall(http(body=b"A" * (64 * 1024 + 1)))
            answer = read_answer(s)
            assert (answer.status, answer.code) == (413, "body_too_large")
        with plain(desk.site) as s:
            s.sendall(http(body=body, headers=[basic("u", "p")]))
            answer = read_answer(s)
            assert (answer.status, answer.code) == (404, "not_found")
    desk.enrol(key)
