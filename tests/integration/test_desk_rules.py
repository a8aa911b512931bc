"""Caps, profiles, replace, renewal, names of servers, a new configuration while it runs, custody."""

import contextlib
import hashlib
import itertools
import signal
import socket
import sqlite3
import subprocess
import threading
import time

import pytest
from cryptography import x509

from desk import (check_books, code_of, device, edit, events, exchange, http, new_key, nothing_done, pem_of, post, profile,
                  reload, text_of, tls)
from front_harness import read_answer
from hsm_harness import SOFTHSM, build_shim
from signet_site import BOARDS, HELD, ISSUED, REVOKED, Key, at_once, free_port, run, serial_of, wait_for
from test_desk_refusals import server_csr

HOUR = 3600


def serial_from(pem):
    return serial_of(x509.load_pem_x509_certificate(pem))


def issue(site, op, key=None, **fields):
    """(status, code or PEM)"""
    answer = post(site, op, {"operation": "req_client_cert", "csr": (key or new_key()).csr, **fields})
    return (200, pem_of(answer)) if answer.status == 200 else code_of(answer)


def revoke(site, op, sign=None, **fields):
    return post(site, op, {"operation": "revoke_cert", **fields}, sign)


def renew(site, caller, key, csr=None, **fields):
    answer = post(site, caller, {"operation": "renew_client_cert", "csr": csr or key.csr, **fields})
    return (200, pem_of(answer)) if answer.status == 200 else code_of(answer)


def report(site, op, serial, state):
    """(status, the state that stands or the code)"""
    answer = post(site, op, {"operation": "report_device", "serial": serial, "state": state})
    if answer.status != 200:
        return code_of(answer)
    assert answer.json == {"status": "OK", "operation": "report_device", "serial": serial, "state": answer.json["state"]}
    return 200, answer.json["state"]


def states(site, name):
    """[(serial, state, reason)] of all that were issued for a name, oldest first."""
    return site.query("SELECT lower(hex(serial)), state, reason FROM certificate WHERE name = ? ORDER BY id", name)


# ---- caps ----


def within_one_hour(seconds=60):
    """The caps count by the hour of the clock: none may end in the middle of this test."""
    left = HOUR - time.time() % HOUR
    if left < seconds:
        time.sleep(left + 1)


def test_caps(site):
    """For each operator and for all; what is refused does not count, what is asked again does not either."""
    edit(site, "[caps]\noperator_certificates_hour = 3\noperator_certificates_day = 4\ncertificates_hour = 5\n"
               "operator_revocations_hour = 3\nrevocations_hour = 5\n")
    within_one_hour()
    site.start()
    op, other, third = (site.operator(n) for n in ("op", "other", "third"))  # signetctl's own are not counted
    keys = [new_key() for _ in range(3)]
    pems = [issue(site, op, k)[1] for k in keys]
    with nothing_done(site):
        assert issue(site, op, keys[0]) == (200, pems[0])  # no new one
        assert issue(site, op, Key("no-mac"))[1] == "csr_cn_not_mac"
        answer = post(site, op, {"operation": "req_client_cert", "csr": new_key().csr})
        assert code_of(answer) == (429, "too_many") and "operator op" not in answer.message
        assert "certificates an hour for op" in answer.message and 1 <= int(answer.headers["retry-after"]) <= HOUR
        answer = post(site, op, {"operation": "req_client_cert", "csr": new_key().csr, "request_id": "again"})
        assert code_of(answer) == (429, "too_many")
    # for all: five, whoever asks, also the devices
    assert issue(site, other)[0] == 200
    board = device(site, "board", pems[0], keys[0])
    assert renew(site, board, keys[0])[0] == 200
    with nothing_done(site):
        for caller in (other, third):
            answer = post(site, caller, {"operation": "req_client_cert", "csr": new_key().csr})
            assert code_of(answer) == (429, "too_many") and "for all operators" in answer.message
        assert renew(site, board, keys[0], request_id="one-more") == (429, "too_many")

    # revocations: a list counts by its length, whole or not at all
    serials = [serial_from(p) for p in pems]
    assert revoke(site, op, serial=serials[0]).status == 200
    with nothing_done(site):
        answer = revoke(site, op, op, serials=[s for s, *_ in states(site, keys[0].name)] + serials[1:], request_id="4")
        assert code_of(answer) == (429, "too_many") and "revocations an hour for op" in answer.message
        assert int(answer.headers["retry-after"]) >= 1
    assert revoke(site, op, op, serials=serials[1:], request_id="2").status == 200
    assert revoke(site, op, serial=serials[0]).status == 200  # revoked before: nothing to count
    with nothing_done(site):
        last = states(site, keys[0].name)[-1][0]
        assert code_of(revoke(site, op, serial=last)) == (429, "too_many")
        assert code_of(revoke(site, op, serial=last, reason="certificateHold")) == (429, "too_many")
    assert revoke(site, other, serial=last, reason="certificateHold").status == 200
    assert revoke(site, other, serial=last, reason="removeFromCRL").status == 200
    with nothing_done(site):
        assert "for all operators" in revoke(site, third, serial=last).message
    site.ctl("operator", "revoke", "--name", "op")  # whoever is at the server itself is under no cap
    site.check_journal()


# ---- profiles ----


def dates(site, pem):
    done = run("openssl", "x509", "-noout", "-startdate", "-enddate", "-subject", input=pem.decode())
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_profiles(site):
    edit(site, profile("device", "+40y", called="long"))
    site.start()
    op = site.operator()
    issuer_end = run("openssl", "x509", "-in", site.state / "intermediate.pem", "-noout", "-enddate").stdout.strip()
    key = new_key()
    status, idevid = issue(site, op, key, profile="idevid")
    said = dates(site, idevid)
    assert said["notAfter"] == "Dec 31 23:59:59 9999 GMT" and issuer_end != "notAfter=Dec 31 23:59:59 9999 GMT"
    assert said["subject"].replace(" ", "") == f"CN={key.name},serialNumber={key.name}"
    assert b"99991231235959Z" in subprocess.run(["openssl", "asn1parse"], input=idevid, capture_output=True).stdout
    clockless = issue(site, op, profile="clockless")[1]
    assert dates(site, clockless)["notBefore"] == "Jan  1 00:00:00 1970 GMT"
    common = issue(site, op, profile="long")[1]  # is cut to the issuer's end
    assert "notAfter=" + dates(site, common)["notAfter"] == issuer_end
    for number, pem in enumerate((idevid, clockless, common)):
        file = site.dir / f"{number}.pem"
        file.write_bytes(pem)
        run("openssl", "verify", "-x509_strict", "-CAfile", site.root, "-untrusted", site.state / "intermediate.pem", file)
    # a board may have one of each profile, but a key is one board's
    assert issue(site, op, Key(key.name))[0] == 200
    assert issue(site, op, Key(key.name), profile="idevid") == (409, "subject_has_certificate")
    board = device(site, "idevid", idevid, key)
    assert renew(site, board, key) == (403, "profile_refused")
    site.check_books([idevid, clockless, common])


# ---- replace ----


def test_replace(site):
    """Each asker × each owner × each state of the older one."""
    site.start()
    people = {"provisioner": "provisioner", "revoker": "provisioner,revoker"}
    people = {name: site.operator(name, roles) for name, roles in people.items()}
    only_revokes = site.operator("only-revokes", "revoker")
    rows = list(itertools.product(people, people, (ISSUED, HELD), (0, 1, 2)))
    keys = [new_key() for _ in rows]
    old = {}
    for (owner, _, state, board), key in zip(rows, keys):
        old[key] = serial_from(issue(site, people[owner], key)[1])
        if board:
            assert report(site, people[owner], old[key], BOARDS[board]) == (200, BOARDS[board])
        if state == HELD:
            assert revoke(site, people["revoker"], serial=old[key], reason="certificateHold").status == 200
    for (owner, asker, state, board), key in zip(rows, keys):
        row = (owner, asker, state, board)
        fresh = Key(key.name)
        with nothing_done(site):
            assert issue(site, people[asker], fresh) == (409, "subject_has_certificate"), row
            assert issue(site, people[asker], fresh, replace=False, request_id="f") == (409, "subject_has_certificate"), row
            assert issue(site, only_revokes, fresh, replace=True) == (403, "role_refused"), row
        may = asker == "revoker" or (owner == asker and board != 2)
        if not may:
            with nothing_done(site):
                assert issue(site, people[asker], fresh, replace=True) == (403, "role_refused"), row
            continue
        status, pem = issue(site, people[asker], fresh, replace=True)
        assert status == 200, row
        assert issue(site, people[asker], fresh, replace=True) == (200, pem), row  # the same again
        assert states(site, key.name) == [(old[key], REVOKED, 4), (serial_from(pem), ISSUED, None)], row
        texts = [e for e in events(site) if f" name={key.name} " in e + " "][-3:]
        assert [t.split(" ")[0] for t in texts] == ["intent", "issued", "revoked"], row
        assert issue(site, people[asker], key) [1] in ("result_dead", "subject_has_certificate"), row
    listed = {f"{r.serial_number:032x}" for r in site.crl()}
    assert {old[k] for k in keys if states(site, k.name)[0][1] != ISSUED} <= listed
    # of nothing that lives: as an ordinary one
    key = new_key()
    assert issue(site, people["provisioner"], key, replace=True)[0] == 200
    assert len(states(site, key.name)) == 1


# ---- renewal ----


def test_replace_asks_for_each(site):
    """After a renewal there are two: one that was verified on its board is enough to need a revoker."""
    site.start()
    maker, revoker = site.operator("maker", "provisioner"), site.operator("boss", "provisioner,revoker")
    serials, keys = [], [new_key(), new_key()]
    for n, key in enumerate(keys):
        pem = issue(site, maker, key)[1]
        status, renewed = renew(site, device(site, f"renews{n}", pem, key), key)
        assert status == 200
        serials.append([serial_from(pem), serial_from(renewed)])
    for n in range(2):  # of the first board the older one, of the second the newer one
        assert report(site, maker, serials[n][n], "verified")[0] == 200
    for key, both in zip(keys, serials):
        fresh = Key(key.name)
        with nothing_done(site):
            assert issue(site, maker, fresh, replace=True) == (403, "role_refused")
        status, pem = issue(site, revoker, fresh, replace=True)
        assert status == 200
        assert states(site, key.name) == [(s, REVOKED, 4) for s in both] + [(serial_from(pem), ISSUED, None)]


def test_holds_of_one_operator_are_lifted(site):
    """What is on none is passed over."""
    site.start()
    maker, revoker = site.operator("maker", "provisioner"), site.operator("boss", "revoker")
    keys = [new_key() for _ in range(3)]
    old = [serial_from(issue(site, maker, key)[1]) for key in keys]
    assert revoke(site, revoker, serial=old[1], reason="certificateHold").status == 200
    for again in range(2):
        body = text_of(operation="revoke_cert", issued_by="maker", reason="removeFromCRL", request_id=f"lift{again}")
        answer = post(site, revoker, body, sign=revoker)
        assert answer.status == 200 and answer.json["count"] == 1 - again
    assert [states(site, k.name)[0][1] for k in keys] == [ISSUED] * 3


def test_renewal(site):
    edit(site, profile("device", "+2s", "renew_expired = 1h", "brief") + profile("device", "+1s", "renew_expired = 1s", "gone")
         + profile("device", "+1s", "", "never"))
    site.start()
    op = site.operator()

    def board(name, **fields):
        key = new_key()
        pem = issue(site, op, key, **fields)[1]
        return key, pem, device(site, name, pem, key)
    expiring = {name: board(name, profile=name) for name in ("brief", "gone", "never")}
    expired_by = time.monotonic() + 3.2

    key, pem, own = board("good")
    other_key, other_pem, other = board("other")
    with nothing_done(site):
        assert renew(site, own, Key(other_key.name)) == (422, "name_not_allowed")
        assert renew(site, own, new_key()) == (422, "name_not_allowed")
        assert renew(site, own, other_key, other_key.request(key.name)) == (409, "key_of_other_subject")
        assert renew(site, op, Key("op"))[1] == "csr_cn_not_mac"
        assert renew(site, op, new_key()) == (403, "profile_refused")
        assert renew(site, None, key) == (401, "certificate_required")
    # exactly once, also all at once; by current serial, CSR and id
    answers = at_once(20, lambda i: renew(site, own, key))
    (second,) = {a for s, a in answers if s == 200}
    assert len(answers) == 20 and {s for s, _ in answers} == {200}
    assert [s for s, *_ in states(site, key.name)] == [serial_from(pem), serial_from(second)]
    fresh = Key(key.name)
    third = renew(site, own, fresh)[1]
    assert renew(site, own, fresh) == (200, third) and third not in (pem, second)
    fourth = renew(site, own, key, request_id="a")[1]
    assert renew(site, own, key, request_id="a") == (200, fourth) and fourth not in (pem, second, third)
    assert renew(site, own, fresh, request_id="a") == (409, "request_id_reused")
    renewed = device(site, "renewed", second, key)
    fifth = renew(site, renewed, key)[1]  # the same CSR, but of another current certificate
    assert fifth not in (pem, second, third, fourth)
    # all of them are in force, with one subject and one profile
    assert {state for _, state, _ in states(site, key.name)} == {ISSUED}
    assert {r[0] for r in site.query("SELECT profile FROM certificate WHERE name = ?", key.name)} == {"device"}
    subjects = {dates(site, p)["subject"] for p in (pem, second, third, fourth, fifth)}
    assert len(subjects) == 1
    assert {r[0] for r in site.query("SELECT operator FROM certificate WHERE name = ?", key.name)} == \
        {r[0] for r in site.query("SELECT id FROM operator WHERE name = 'op'")}

    # several live ones: not by MAC alone, unless signed
    with nothing_done(site):
        assert code_of(revoke(site, op, mac=key.name)) == (403, "signature_required")
    revoke_all = revoke(site, op, op, mac=key.name, request_id="all", reason="keyCompromise")
    assert revoke_all.json["count"] == 5 and revoke_all.json["reason"] == "keyCompromise"
    with nothing_done(site):
        for caller, csr in ((own, key), (own, fresh), (renewed, key), (device(site, "third", third, fresh), fresh)):
            assert renew(site, caller, csr, request_id="late") == (401, "certificate_revoked")
            assert renew(site, caller, csr) == (401, "certificate_revoked")
    assert revoke(site, op, serial=serial_from(other_pem), reason="certificateHold").status == 200
    with nothing_done(site):
        assert renew(site, other, other_key) == (401, "certificate_revoked")
    assert revoke(site, op, serial=serial_from(other_pem), reason="removeFromCRL").status == 200
    assert renew(site, other, other_key)[0] == 200

    # expired, for as long as the profile says
    time.sleep(max(0, expired_by - time.monotonic()))
    k, _, d = expiring["brief"]
    assert code_of(post(site, d, {"operation": "get_cert", "serial": "4f"}))[0] in (401, 403)
    status, again = renew(site, d, Key(k.name))
    assert status == 200 and site.query("SELECT profile FROM certificate WHERE lower(hex(serial)) = ?",
                                        serial_from(again)) == [("brief",)]
    with nothing_done(site):
        for name in ("gone", "never"):
            k, _, d = expiring[name]
            assert renew(site, d, k) == (401, "certificate_expired"), name
    # a clockless board keeps its profile
    k, _, d = board("clockless", profile="clockless")
    assert dates(site, renew(site, d, Key(k.name))[1])["notBefore"] == "Jan  1 00:00:00 1970 GMT"
    check_books(site, [pem, second, third, fourth, fifth, again])


# ---- servers ----

ALLOWED = "allowed_names = broker.example.org, .example.com, 192.0.2.7, 10.1.0.0/16, 2001:db8::/32"
GOOD = [["broker.example.org"], ["mqtt.example.com"], ["a.b.c.example.com", "MQTT.Example.COM"], ["IP:192.0.2.7"],
        ["IP:10.1.255.255"], ["IP:2001:db8::7"], ["mqtt.example.com", "IP:10.1.2.3"],
        [f"m{i}.example.com" for i in range(32)]]
BAD = [(["broker.example.net"], "name_not_allowed"), (["example.com"], "name_not_allowed"),
       (["badexample.com"], "name_not_allowed"), (["mqtt.example.com", "evil.net"], "name_not_allowed"),
       (["*.example.com"], "name_not_allowed"), (["mqtt.*.example.com"], "name_not_allowed"),
       ([".example.com"], "name_not_allowed"), (["mqtt.example.com."], "name_not_allowed"),
       (["mqtt..example.com"], "name_not_allowed"), (["mq tt.example.com"], "name_not_allowed"),
       (["x.broker.example.org"], "name_not_allowed"), (["IP:192.0.2.8"], "name_not_allowed"),
       (["IP:10.2.0.1"], "name_not_allowed"), (["IP:2001:db9::1"], "name_not_allowed"),
       (["192.0.2.7"], "name_not_allowed"), (["email:a@example.com"], "name_not_allowed"),
       (["URI:https://mqtt.example.com"], "name_not_allowed"), (["dirName:dn"], None),
       (["mqtt.example.com", "email:a@example.com"], "name_not_allowed"), ([], "names_missing"),
       ([f"m{i}.example.com" for i in range(33)], "name_not_allowed")]


def test_servers(site):
    edit(site, profile("server", more=ALLOWED))
    site.start()
    admin, op = site.operator("boss", "admin"), site.operator()

    def ask(names, request_id, who=admin, cn="anything"):
        body = text_of(operation="req_server_cert", csr=server_csr(site, *names, cn=cn), request_id=request_id)
        return body, post(site, who, body, who)
    received = []
    for number, names in enumerate(GOOD):
        body, answer = ask(names, f"good-{number}")
        assert answer.status == 200, (names, answer)
        pem = pem_of(answer)
        received.append(pem)
        assert post(site, admin, body, admin).json == answer.json  # once
        cert = x509.load_pem_x509_certificate(pem)
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        asked = [n if n.startswith("IP:") else "DNS:" + n for n in names]
        assert [("IP:" if isinstance(n, x509.IPAddress) else "DNS:") + str(n.value) for n in found] == asked
        assert "anything" not in dates(site, pem)["subject"]
        file = site.dir / "server.pem"
        file.write_bytes(pem)
        flag = ["-verify_ip", names[0][3:]] if names[0].startswith("IP:") else ["-verify_hostname", names[0]]
        run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", *flag, "-CAfile", site.root, "-untrusted",
            site.state / "intermediate.pem", file)
        run("openssl", "verify", "-purpose", "sslclient", "-CAfile", site.root, "-untrusted",
            site.state / "intermediate.pem", file, code=2)
    with nothing_done(site):
        for number, (names, code) in enumerate(BAD):
            if code:
                assert code_of(ask(names, f"bad-{number}")[1]) == (422, code), names
        assert code_of(ask(GOOD[0], "role", op)[1]) == (403, "role_refused")
        body, _ = ask([], "good-0")
        assert code_of(post(site, admin, body, admin))[1] == "names_missing"
        body, answer = ask(GOOD[1], "good-0")
        assert code_of(answer) == (409, "request_id_reused")
    # two servers of one name may live beside each other; a revoked one is gone
    assert ask(GOOD[0], "beside")[1].status == 200
    boss = site.operator("boss2", "admin,revoker")
    assert revoke(site, boss, serial=serial_from(received[0])).status == 200
    site.check_books(received)


def test_no_server_name_as_shipped(site):
    site.start()
    admin = site.operator("boss", "admin")
    body = text_of(operation="req_server_cert", csr=server_csr(site, "mqtt.example.com"), request_id="x")
    with nothing_done(site):
        answer = post(site, admin, body, admin)
        assert code_of(answer) == (422, "name_not_allowed") and "allowed_names" in answer.message


# ---- a new configuration ----


class Load:
    """Clients that go on asking; every answer that is not the wanted one is kept."""

    def __init__(self, site, op):
        self.site, self.op, self.ended, self.wrong, self.count = site, op, threading.Event(), [], 0
        self.threads = [threading.Thread(target=self.run, args=(ask,)) for ask in
                        (self.issue, self.issue, self.status, self.plain, self.kept, self.kept)]
        for t in self.threads:
            t.start()

    def run(self, ask):
        try:
            ask()
        except Exception as e:
            self.wrong.append(repr(e))

    def repeat(self, ask):
        while not self.ended.is_set():
            status = ask()
            self.count += 1
            if status != 200:
                self.wrong.append(status)

    def issue(self):
        self.repeat(lambda: issue(self.site, self.op)[0])

    def status(self):
        self.repeat(lambda: post(self.site, self.op, {"operation": "get_status"}).status)

    def plain(self):
        get = http("GET", "/crl", body=b"", kind=None, length=False)
        self.repeat(lambda: exchange(self.site, get, over_tls=False).status)

    def kept(self):
        """A kept connection, opened anew when the last answer said so."""
        s = tls(self.site, self.op)

        def ask():
            nonlocal s
            s.sendall(http())
            answer = read_answer(s)
            if answer.headers.get("connection") == "close":
                s.close()
                s = tls(self.site, self.op)
            return answer.status
        self.repeat(ask)
        s.close()

    def end(self):
        self.ended.set()
        for t in self.threads:
            t.join()
        assert not self.wrong, self.wrong[:10]
        return self.count


def test_reload_under_load(site):
    site.start()
    op = site.operator()
    site.crl()  # there is one
    before = site.roles()
    assert issue(site, op, profile="special")[1] == "profile_unknown"
    load = Load(site, op)
    for number, (fronts, name) in enumerate(((3, "special"), (1, "other"), (2, "more"))):
        seen = load.count
        site.set("server_fronts", fronts)
        edit(site, profile("device", called=name))
        reload(site)
        assert issue(site, op, profile=name)[0] == 200
        wait_for(lambda: load.wrong or load.count > seen + 20, "the load goes on")
    assert load.end() > 100
    after = site.roles()
    assert len(after["front"]) == 2 and not set(after["front"]) & set(before["front"])
    assert after["authority"] == before["authority"] and after["signer"] == before["signer"]

    # a broken one changes nothing
    good = site.conf.read_text()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for broken, word in ((lambda: site.set("server_colour", "green"), "[server] colour: there is no such key"),
                             (lambda: edit(site, profile("device", "whenever", called="x")), "whenever"),
                             (lambda: site.set("server_listen", f"127.0.0.1:{port}"), "another program has the port"),
                             (lambda: site.set("token_module", "/nowhere.so"), "/nowhere.so"),
                             (lambda: site.set("server_state", "/tmp"), "restart")):
            site.conf.write_text(good)
            broken()
            said = len(site.log())
            site.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "nothing is changed" in site.log()[said:], f"it is refused for {word}")
            assert word in site.log()[said:], site.log()[said:]
            assert site.roles() == after and issue(site, op, profile="more")[0] == 200
    site.conf.write_text(good)
    reload(site)
    site.check_books()


def test_reload_moves_the_port(site):
    site.start()
    op = site.operator()
    new = free_port()
    site.set("server_listen", f"127.0.0.1:{new}")
    reload(site)
    site.port = new
    assert issue(site, op)[0] == 200


# ---- custody ----


def test_custody_exception_is_journaled(site, tmp_path_factory):
    shim = build_shim(tmp_path_factory.mktemp("shim"))
    control = site.dir / "shim-control"
    control.write_text("C_GetAttributeValue false 163\n")  # LOCAL
    der = subprocess.run(f"openssl x509 -in {site.state}/intermediate.pem -noout -pubkey | openssl pkey -pubin -outform DER",
                         shell=True, capture_output=True, check=True).stdout
    digest = hashlib.sha256(der).hexdigest()
    site.set("token_module", shim)
    for name, value in (("SHIM_MODULE", SOFTHSM), ("SHIM_CONTROL", control), ("SHIM_LOG", site.dir / "shim-log")):
        site.set("token_env." + name, value)
    code, said = site.run_to_end()
    assert code == 1 and "breaks custody" in said and "LOCAL" in said
    assert events(site, "custody-exception") == []
    site.set("token_custody_exception", f"{digest}, wrapped backup in safe 2")
    for starts in (1, 2):
        site.start()
        op = site.operator(f"op{starts}")
        assert issue(site, op)[0] == 200
        (*_, last) = told = events(site, "custody-exception")
        assert len(told) == starts
        assert last == f"custody-exception key={digest} missing=0x20 reason=wrapped_backup_in_safe_2"
        status = post(site, op, {"operation": "get_status"}).json
        assert "exception in force" in status["token"]["custody"] and "wrapped backup in safe 2" in status["token"]["custody"]
        assert "wrapped backup in safe 2" in site.ctl("status").stdout
        site.check_books()
        site.stop()
