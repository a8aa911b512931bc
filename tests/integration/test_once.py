"""Exactly once, and by the right people only."""

import os
import ssl

import pytest
from cryptography import x509

from signet_site import ISSUED, Key, Operator, at_once, mac, run, serial_of


def one_certificate(site, answers, count=50):
    """All answers are one certificate; the journal has one intent for it."""
    assert len(answers) == count
    assert {status for status, _ in answers} == {200}, answers
    (pem,) = {pem for _, pem in answers}
    (name,) = {row[2] for row in site.check_books([pem]).values() if row[3] == ssl.PEM_cert_to_DER_cert(pem.decode())}
    lines = [text for text in site.check_journal() if f" name={name} " in text + " "]
    assert [text.split(" ")[0] for text in lines] == ["intent", "issued"], lines
    return pem


@pytest.mark.parametrize("request_id", [None, "batch-7.board-1"])
def test_fifty_at_once(site, request_id):
    site.start()
    op, key = site.operator(), Key(mac(1))
    fields = {"request_id": request_id} if request_id else {}
    lines = [site.connect(op) for _ in range(50)]
    for line in lines:
        line.ask("get_status")  # the handshake is over; what follows is at the same moment
    pem = one_certificate(site, at_once(50, lambda i: lines[i].issue(key, **fields)))
    for line in lines:
        line.http.close()

    site.stop()
    site.start()
    assert one_certificate(site, at_once(50, lambda i: site.issue(op, key, **fields))) == pem

    site.kill()
    site.start()
    assert one_certificate(site, at_once(50, lambda i: site.issue(op, key, **fields))) == pem


def test_one_of_fifty_keys(site):
    """Fifty at once for one MAC with fifty keys: one wins, the others are told."""
    site.start()
    op = site.operator()
    keys = [Key(mac(1)) for _ in range(50)]
    answers = at_once(50, lambda i: site.issue(op, keys[i]))
    good = [a for s, a in answers if s == 200]
    assert len(good) == 1 and {a for s, a in answers if s != 200} <= {"subject_has_certificate", "busy"}, answers
    assert {s for s, _ in answers} <= {200, 409, 503}
    site.check_books(good)


def test_conflicts(site):
    site.start()
    op, other = site.operator(), site.operator("other")
    key = Key(mac(1))
    with site.connect(op) as c, site.connect(other) as d:
        status, pem = c.issue(key, request_id="first")
        assert status == 200
        assert c.issue(key, request_id="first") == (200, pem)
        assert c.issue(Key(mac(2)), request_id="first") == (409, "request_id_reused")
        assert c.issue(key, request_id="first", profile="device") == (409, "request_id_reused")  # another body
        assert c.issue(Key(mac(1))) == (409, "subject_has_certificate")
        assert c.issue(Key(mac(1)), request_id="second") == (409, "subject_has_certificate")
        status, body = c.ask("req_client_cert", csr=key.request(mac(3)))
        assert (status, body["error"]["code"]) == (409, "key_of_other_subject")
        # another operator's request is another request
        assert d.issue(key, request_id="first") == (409, "subject_has_certificate")
        assert d.issue(Key(mac(4)), request_id="first")[0] == 200

        # without a request_id the same CSR is the same request
        plain = Key(mac(5))
        status, mine = c.issue(plain)
        assert status == 200 and c.issue(plain) == (200, mine)

        # once revoked, a request has no result any more, and gets no new one
        for made, fields in ((pem, {"request_id": "first"}), (mine, {})):
            who = key if fields else plain
            serial = serial_from(made)
            status, body = c.ask("revoke_cert", serial=serial, reason="superseded", request_id="r" + serial)
            assert status == 200 and body["reason"] == "superseded"
            again = c.ask("revoke_cert", serial=serial, reason="superseded", request_id="r" + serial)
            assert again == (200, body)
            assert c.ask("revoke_cert", serial=serial, reason="superseded") == (200, body)
            assert code_of(c.ask("revoke_cert", serial=serial, reason="keyCompromise")) == (409, "already_revoked")
            assert code_of(c.ask("revoke_cert", serial="00" + serial[2:], reason="superseded",
                                 request_id="r" + serial))[0] in (404, 409)
            assert c.issue(who, **fields) == (409, "result_dead")
        assert c.issue(Key(mac(1)))[0] == 200  # a new key may
    site.check_books([pem, mine])
    assert code_of(site.ask(op, "revoke_cert", serial="0123456789abcdef")) == (404, "serial_unknown")


def serial_from(pem):
    return serial_of(x509.load_pem_x509_certificate(pem))


def code_of(answer):
    status, body = answer
    return status, body["error"]["code"]


def foreign_operator(site):
    """A client certificate of another CA, with this CA's very names."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
        "foreign-ca.key", "-out", "foreign-ca.pem", "-subj", "/CN=Test Device CA", cwd=site.dir)
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
        "foreign.key", "-out", "foreign.csr", "-subj", "/CN=op", cwd=site.dir)
    (site.dir / "foreign.ext").write_text("extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n")
    run("openssl", "x509", "-req", "-in", "foreign.csr", "-CA", "foreign-ca.pem", "-CAkey", "foreign-ca.key",
        "-set_serial", "0x" + os.urandom(15).hex(), "-extfile", "foreign.ext", "-out", "foreign.crt", cwd=site.dir)
    return Operator("op", site.dir / "foreign.crt", site.dir / "foreign.key")


def test_who_may(site):
    site.start()
    people = {role: site.operator(role, role) for role in ("provisioner", "revoker", "admin", "auditor")}
    key = Key(mac(1))
    status, pem = site.issue(people["provisioner"], key)
    assert status == 200
    serial = serial_from(pem)
    for role in ("revoker", "admin", "auditor"):
        assert site.issue(people[role], Key(mac(2))) == (403, "role_refused"), role
    for role in ("provisioner", "admin", "auditor"):
        assert code_of(site.ask(people[role], "revoke_cert", serial=serial)) == (403, "role_refused"), role
    for profile in ("operator", "server"):
        for role in people:
            status, code = site.issue(people[role], Key(mac(3)), profile=profile)
            assert (status, code) == (403, "profile_refused"), (profile, role)
    assert site.issue(people["provisioner"], Key(mac(3)), profile="no-such") == (422, "profile_unknown")

    foreign = foreign_operator(site)
    device = Operator("device", site.dir / "device.crt", key.save(site.dir / "device.key"))
    device.cert.write_bytes(pem)
    for caller, expected in ((None, (401, "certificate_required")), (foreign, (401, "certificate_unknown")),
                             (device, (403, "role_refused"))):
        assert site.issue(caller, Key(mac(4))) == expected
        assert code_of(site.ask(caller, "revoke_cert", serial=serial)) == expected
        assert site.ask(caller, "get_status")[1].get("certificates") is None

    # nobody takes away an operator's certificate over the wire
    (own,) = site.query("SELECT lower(hex(serial)) FROM certificate WHERE name = 'auditor'")[0]
    assert code_of(site.ask(people["revoker"], "revoke_cert", serial=own))[0] == 403
    assert site.ask(people["revoker"], "revoke_cert", serial=serial)[0] == 200
    assert [row[0] for row in site.check_books([pem]).values() if row[2] == mac(1)] != [ISSUED]


def test_revoked_operator_on_an_open_connection(site):
    site.start()
    op, other = site.operator(), site.operator("other")
    with site.connect(op) as c, site.connect(other) as d:
        first = Key(mac(1))
        assert c.issue(first)[0] == 200 and d.issue(Key(mac(2)))[0] == 200
        site.ctl("operator", "revoke", "--name", "op", "--reason", "keyCompromise")
        assert c.issue(Key(mac(3))) == (401, "certificate_revoked")
        assert c.issue(first) == (401, "certificate_revoked")
        assert code_of(c.ask("revoke_cert", serial="01")) == (401, "certificate_revoked")
        assert d.issue(Key(mac(3)))[0] == 200
    assert site.issue(op, Key(mac(4)))[0] == 401
    assert site.ctl("operator", "issue", "--csr", site.dir / "op.csr", "--role", "admin", code=4).returncode == 4
    site.check_books()


def test_renewed_operator_is_the_same(site):
    """A request_id belongs to the operator, not to one of its certificates."""
    site.start()
    old = site.operator()
    key = Key(mac(1))
    status, pem = site.issue(old, key, request_id="r")
    assert status == 200
    (site.dir / "op.crt").rename(site.dir / "old.crt")
    (site.dir / "op.key").rename(site.dir / "old.key")
    new = site.operator()
    assert site.issue(new, key, request_id="r") == (200, pem)
    assert site.issue(new, key) == (409, "subject_has_certificate")  # another request: first came by its id
