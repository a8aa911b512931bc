"""Nothing is lost, and nothing lives on, at the edges: a renewed intermediate, a revocation that comes while the token
signs, an exchanged file, a refused PIN, a locked database."""

import base64
import contextlib
import os
import signal
import sqlite3
import threading
import time
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from desk import check_books, code_of, device, edit, new_key, nothing_done, pem_of, post, profile, reload, text_of
from signet_site import BUILD, HELD, ORPHAN, REVOKED, SCRIPTS, Key, run, wait_for
from test_custody import certificate, logins, use_spy
from test_desk_refusals import server_csr
from test_desk_rules import issue, renew, revoke, serial_from, states

DAY = 86400


def number_of(crl):
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def listed(crl):
    return {f"{entry.serial_number:032x}" for entry in crl}


def served(site):
    return x509.load_der_x509_crl(site.get("/crl")[1])


def next_crl(site, after, patience=60):
    """The first one served with a higher number."""
    return wait_for(lambda: number_of(c := served(site)) > after and c, f"a CRL after {after}", patience)


def bring_crl(site, op):
    """A CRL made from now on, for the sake of another certificate's revocation."""
    assert revoke(site, op, serial=serial_from(issue(site, op)[1])).status == 200
    return site.crl()


def certify_anew(site):
    """The intermediate's next certificate: same key, same name."""
    run("bash", SCRIPTS / "root-ceremony.sh", "--softhsm", "root-hsm", "--pin-file", "root-pin", "--so-pin-file",
        "root-so-pin", "--token", "Signet Root", "--key-label", "root", "--out", "root", "--sign-csr", "ca.csr",
        "--out-certificate", "anew.pem", cwd=site.dir,
        env={"PATH": os.environ["PATH"], "SIGNET_BUILD": str(BUILD), "LC_ALL": "C.UTF-8"})
    return (site.dir / "anew.pem").read_bytes()


# ---- the intermediate ----


def test_intermediate_certified_anew(site):
    site.start()
    op = site.operator("op", "provisioner,revoker,admin")
    keys = [new_key() for _ in range(4)]
    pems = [issue(site, op, key)[1] for key in keys]
    serials = [serial_from(p) for p in pems]
    assert revoke(site, op, serial=serials[0], reason="keyCompromise").status == 200
    assert revoke(site, op, serial=serials[1], reason="certificateHold").status == 200
    before = wait_for(lambda: (c := served(site)) and listed(c) == set(serials[:2]) and c, "a CRL with both")
    site.stop()

    old, new = (site.state / "intermediate.pem").read_bytes(), certify_anew(site)
    assert serial_from(old) != serial_from(new)
    (site.state / "intermediate.pem").write_bytes(new)
    (site.state / "ca-chain.pem").write_bytes(new + site.root.read_bytes())
    site.start()
    assert site.query("SELECT count(*) FROM issuer") == [(1,)]
    for serial, state in zip(serials, ("revoked", "held", "issued", "issued")):
        assert post(site, op, {"operation": "get_cert", "serial": serial}).json["state"] == state
    assert renew(site, device(site, "board", pems[2], keys[2]), keys[2])[0] == 200
    assert issue(site, op, keys[3]) == (200, pems[3])  # asked for before
    assert revoke(site, op, serial=serials[3]).status == 200
    after = site.crl()
    assert listed(after) == {serials[0], serials[1], serials[3]} and number_of(after) > number_of(before)
    assert after.is_signature_valid(x509.load_pem_x509_certificate(new).public_key())
    check_books(site, pems)


def answers(site, op):
    with contextlib.suppress(OSError):
        return post(site, op, {"operation": "get_status"}).status == 200
    return False


# ---- while the token signs ----


@contextlib.contextmanager
def standing_signers(site):
    pids = site.roles()["signer"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def under_way(site, ask):
    """In the block the request ask() has its intent; after it, the list has its answer."""
    answer = []
    asker = threading.Thread(target=lambda: answer.append(ask()))
    with standing_signers(site):
        asker.start()
        wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(1,)], "an open intent")
        yield answer
    asker.join()


def become(site, key, wanted):
    """The answer does not wait for the orphan's row."""
    wait_for(lambda: [state for _, state, _ in states(site, key.name)] == wanted, lambda: str(states(site, key.name)))


def test_revoked_while_it_is_renewed(site):
    site.start()
    op = site.operator()
    key = new_key()
    board = device(site, "board", issue(site, op, key)[1], key)
    with under_way(site, lambda: renew(site, board, key)) as answer:
        revoked = revoke(site, op, op, mac=key.name, reason="keyCompromise", request_id="stolen")
        assert revoked.status == 200, revoked
    assert answer == [(401, "certificate_revoked")]
    become(site, key, [REVOKED, ORPHAN])
    (old, new) = states(site, key.name)
    assert renew(site, board, key) == (401, "certificate_revoked")
    assert listed(site.crl()) == {old[0], new[0]}

    # on hold it is not in force either; and what was lifted in time is
    key = new_key()
    board = device(site, "held", issue(site, op, key)[1], key)
    serial = states(site, key.name)[0][0]
    with under_way(site, lambda: renew(site, board, key)) as answer:
        assert revoke(site, op, serial=serial, reason="certificateHold").status == 200
    assert answer == [(401, "certificate_revoked")]
    become(site, key, [HELD, ORPHAN])
    assert revoke(site, op, serial=serial, reason="removeFromCRL").status == 200
    assert renew(site, board, key)[0] == 200
    check_books(site)


def test_operator_revoked_while_the_token_signs(site):
    site.start()
    op, key = site.operator(), new_key()
    with under_way(site, lambda: issue(site, op, key)) as answer:
        site.ctl("operator", "revoke", "--name", "op")
    assert answer[0][0] in (401, 403) and "revoked" in answer[0][1], answer
    become(site, key, [ORPHAN])
    assert issue(site, site.operator("next"), key)[0] == 200
    check_books(site)


def test_expired_and_revoked(site):
    edit(site, profile("device", "+2s", "renew_expired = 1h", "brief"))
    site.start()
    op, keys = site.operator(), [new_key() for _ in range(3)]
    boards = [device(site, f"board{i}", issue(site, op, k, profile="brief")[1], k) for i, k in enumerate(keys)]
    expired = time.monotonic() + 3
    time.sleep(max(0, expired - time.monotonic()))
    bring_crl(site, op)
    number = number_of(bring_crl(site, op))  # from now on those that expired are left out
    assert renew(site, boards[0], Key(keys[0].name))[0] == 200  # as the profile says
    assert revoke(site, op, mac=keys[1].name).status == 200
    with nothing_done(site):
        assert renew(site, boards[1], Key(keys[1].name)) == (401, "certificate_revoked")
    serial = states(site, keys[2].name)[0][0]
    assert revoke(site, op, serial=serial).status == 200
    crl = site.crl()
    assert number_of(crl) > number and {serial, states(site, keys[1].name)[0][0]} <= listed(crl)


# ---- the PIN ----


def refused_reload(site, *words):
    before, roles = len(site.log()), site.roles()
    site.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "nothing is changed" in site.log()[before:], lambda: "the reload is refused:\n" + site.log()[before:])
    for word in words:
        assert word in site.log()[before:], site.log()[before:]
    return roles


def test_reload_with_a_refused_pin(site):
    use_spy(site)
    site.start()
    op = site.operator()
    site.crl()  # there is one
    # a refusal that is not dealt with yet stops no signer that works
    refusal = site.state / "pin-refused"
    refusal.write_text("by hand\n")
    before = len(logins(site))
    site.set("token_env.SIGNET_TEST", "1")
    roles = refused_reload(site, "pin-refused stands", "signetctl pin retry")
    assert site.roles()["signer"] == roles["signer"] and issue(site, op)[0] == 200
    assert len(logins(site)) == before
    site.ctl("pin", "retry")

    # a wrong PIN by SIGHUP: one login, whatever comes after
    right = site.pin_file.read_text()
    site.pin_file.write_text("wrong-pin-0815\n")
    site.process.send_signal(signal.SIGHUP)
    wait_for(refusal.exists, "the PIN is refused")
    site.wait_ready(503)
    for value in ("2", "3"):
        site.set("token_env.SIGNET_TEST", value)
        refused_reload(site, "pin-refused stands")
    for pid in site.roles().get("signer", []):
        os.kill(pid, signal.SIGKILL)
    time.sleep(1.5)  # many backoffs long
    assert logins(site)[before:] == ["CKR_PIN_INCORRECT"]
    assert issue(site, op) == (503, "token_unavailable") and site.get("/crl")[0] == 200

    site.pin_file.write_text(right)
    site.ctl("pin", "retry")
    site.wait_ready()
    assert issue(site, op)[0] == 200 and not refusal.exists()
    site.set("token_env.SIGNET_TEST", "4")
    reload(site)
    assert issue(site, op)[0] == 200
    site.check_books()


# ---- exchanged files ----


def other_ca():
    """(certificate, root)"""
    key, root = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    return (certificate("Another CA", key.public_key(), "Another Root", root, 0),
            certificate("Another Root", root.public_key(), "Another Root", root, 1))


def test_another_ca_certificate(site):
    site.start()
    op = site.operator()
    own, before = (site.state / "intermediate.pem").read_bytes(), bring_crl(site, op)
    chain = (site.state / "ca-chain.pem").read_bytes()
    for pem, root in (other_ca(), (certify_anew(site), site.root.read_bytes())):
        (site.state / "intermediate.pem").write_bytes(pem)
        (site.state / "ca-chain.pem").write_bytes(pem + root)
        roles = refused_reload(site, "restart")
        assert {r: site.roles()[r] for r in ("authority", "signer", "front")} == \
            {r: roles[r] for r in ("authority", "signer", "front")}
        assert issue(site, op)[0] == 200

    # what is revoked meanwhile waits; no CRL is made in another's name
    (site.state / "intermediate.pem").write_bytes(other_ca()[0])
    (site.state / "ca-chain.pem").write_bytes(chain)
    serial = serial_from(issue(site, op)[1])
    assert revoke(site, op, serial=serial).status == 200
    wait_for(lambda: "another certificate" in (post(site, op, {"operation": "get_status"}).json.get("problem") or ""),
             "status tells it")
    said = site.ctl("status", code=None)
    assert "intermediate.pem is another certificate" in said.stdout, said.stdout
    assert served(site) == before and (site.state / "crl.der").read_bytes() == site.get("/crl")[1]

    (site.state / "intermediate.pem").write_bytes(own)
    crl = site.crl()
    assert serial in listed(crl) and crl.issuer == before.issuer
    site.check_books()


def test_older_crl_in_place(site):
    site.start()
    op = site.operator()
    bring_crl(site, op)
    older = (site.state / "crl.der").read_bytes()
    last = number_of(bring_crl(site, op))
    site.stop()
    for text in (older, older[:-1], b"", older + b"\0"):
        (site.state / "crl.der").write_bytes(text)
        site.start(ready=False)
        answers_seen = []

        def look():
            status, der = site.get("/crl")
            answers_seen.append((status, der))
            return status == 200 and der
        crl = x509.load_der_x509_crl(wait_for(look, "a CRL"))
        assert number_of(crl) > last and listed(crl) == {s for s, in site.query(
            "SELECT lower(hex(serial)) FROM certificate WHERE state = 2")}
        assert {status for status, _ in answers_seen[:-1]} <= {0, 404, 503}, answers_seen
        last = number_of(crl)
        site.wait_ready()
        site.stop()
    # the right one is served as it is
    site.start()
    assert number_of(served(site)) == last
    site.stop()


# ---- what stays here ----


def test_exact_certificates_that_stay_here(site):
    site.start()
    op, other = site.operator(), site.operator("other", "admin")
    pem = issue(site, op)[1]
    rows = post(site, op, {"operation": "list_certs"}).json["certificates"]
    assert len(rows) >= 4 and not any("certificate" in row for row in rows)
    found = {row["serial"]: post(site, op, {"operation": "get_cert", "serial": row["serial"]}).json for row in rows}
    assert all(answer["status"] == "OK" for answer in found.values())
    with_one = {serial for serial, answer in found.items() if answer.get("certificate")}
    assert with_one == {serial_from(pem)}
    assert base64.b64decode(found[serial_from(pem)]["certificate"]) == pem
    assert {serial_from(o.cert.read_bytes()) for o in (op, other)} <= set(found) - with_one
    assert serial_from((site.state / "listener.pem").read_bytes()) in set(found) - with_one


# ---- bulk revocation ----


def seed(site, operator_name, count):
    """count issued certificates of an operator: rows alone, without journal and file."""
    with contextlib.closing(sqlite3.connect(site.state / "signet.db")) as db:
        db.execute("PRAGMA foreign_keys = ON")
        ((who,),) = db.execute("SELECT id FROM operator WHERE name = ?", (operator_name,)).fetchall()
        ((issuer, now),) = db.execute("SELECT id, added_at FROM issuer").fetchall()
        now = int(time.time())
        db.executemany(
            "INSERT INTO certificate (issuer, serial, state, profile, name, operator, spki_sha256, tbs_sha256, "
            "der_sha256, not_before, not_after, created_at, issued_at, der) VALUES (?,?,1,'device',?,?,?,?,?,?,?,?,?,?)",
            ((issuer, b"\x11" + os.urandom(15), f"02:{who:02x}:00:00:{i >> 8:02x}:{i & 255:02x}", who, os.urandom(32),
              os.urandom(32), os.urandom(32), now, now + 90 * DAY, now, now, b"0") for i in range(count)))
        db.commit()


def test_bulk_revocation(site):
    """Twice as many take about twice as long; others are answered before, after and meanwhile."""
    edit(site, "[caps]\noperator_revocations_hour = 1000000\nrevocations_hour = 1000000\n")
    n, operators = 3000, {}
    site.start()
    op = site.operator()
    for name, count in (("a1", n), ("b1", 2 * n), ("a2", n), ("b2", 2 * n)):
        site.operator(name)
        operators[name] = count
    site.stop()
    for name, count in operators.items():
        seed(site, name, count)
    site.start()
    ended, wrong, served_meanwhile = threading.Event(), [], []

    def go_on():
        while not ended.is_set():
            answer = post(site, op, {"operation": "get_status"})
            (served_meanwhile if answer.status == 200 else wrong).append(answer.status)
    thread = threading.Thread(target=go_on)
    thread.start()
    took = {}
    for name, count in operators.items():
        begin = time.monotonic()
        answer = revoke(site, op, op, issued_by=name, reason="keyCompromise", request_id=name)
        took[name] = time.monotonic() - begin
        assert answer.status == 200 and answer.json["count"] == count, answer
    ended.set()
    thread.join()
    assert not wrong and len(served_meanwhile) > 4
    small, large = min(took["a1"], took["a2"]), min(took["b1"], took["b2"])
    assert large < 3 * small, took
    assert len(site.crl()) == 6 * n


# ---- the store ----


def test_locked_database_passes(site):
    """Whoever must write waits for a while, then is told; what needs no writing goes on; and the end is noticed."""
    site.start()
    op, key = site.operator(), new_key()
    serial = serial_from(issue(site, op)[1])
    site.crl()
    wait_for(lambda: site.query("SELECT value FROM meta WHERE name = 'projected'") ==
             site.query("SELECT max(seq) FROM journal"), "nothing else is left to be written")
    with contextlib.closing(sqlite3.connect(site.state / "signet.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        begin = time.monotonic()
        assert issue(site, op, key) == (503, "storage_unavailable")
        waited = time.monotonic() - begin
        longest = 0
        while time.monotonic() < begin + 7:
            asked = time.monotonic()
            assert site.get("/readyz")[0] == 503
            assert post(site, op, {"operation": "get_cert", "serial": serial}).json["state"] == "issued"
            longest = max(longest, time.monotonic() - asked)
            time.sleep(0.1)
        assert 0 < longest, f"it took {waited} s"
        assert longest < waited / 3, "looking whether it has passed stops nobody"
        db.execute("ROLLBACK")
    site.wait_ready()  # nobody has asked for anything
    assert issue(site, op, key)[0] == 200
    site.check_books()


# ---- a device without end, a name without end ----


def test_device_that_renews_without_end(site):
    site.start()
    op = site.operator()
    key, other = new_key(), new_key()
    board = device(site, "board", issue(site, op, key)[1], key)
    quiet = device(site, "quiet", issue(site, op, other)[1], other)
    answers_ = []
    while len(answers_) < 40 and (not answers_ or answers_[-1][0] == 200):
        answers_.append(renew(site, board, key, request_id=f"r{len(answers_)}"))
    assert answers_[-1] == (429, "too_many") and 3 <= len(answers_) < 20, answers_
    with nothing_done(site):
        answer = post(site, board, {"operation": "renew_client_cert", "csr": key.csr, "request_id": "more"})
        assert code_of(answer) == (429, "too_many") and key.name in answer.message
        assert renew(site, board, Key(key.name)) == (429, "too_many")
    assert renew(site, board, key, request_id="r0") == answers_[0]  # what was given is given again
    assert renew(site, quiet, other)[0] == 200 and issue(site, op)[0] == 200
    for serial, *_ in states(site, key.name)[1:3]:
        assert revoke(site, op, serial=serial).status == 200
    assert renew(site, board, key, request_id="room")[0] == 200
    site.check_journal()


def test_long_name_of_a_server(site):
    edit(site, profile("server", more="allowed_names = .example.com"))
    site.start()
    admin = site.operator("boss", "admin")
    long = [f"{c * 40}.{c * 40}.example.com" for c in "ab"]

    def ask(names, request_id):
        body = text_of(operation="req_server_cert", csr=server_csr(site, *names), request_id=request_id)
        return post(site, admin, body, admin)
    with nothing_done(site):
        assert code_of(ask(long, "all-long")) == (422, "name_not_allowed")
    cert = x509.load_pem_x509_certificate(pem_of(ask([*long, "mqtt.example.com"], "one-short")))
    assert [a.value for a in cert.subject] == ["mqtt.example.com"]
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [*long, "mqtt.example.com"]
    fits = "c" * 40 + "." + "d" * 11 + ".example.com"
    assert len(fits) == 64
    cert = x509.load_pem_x509_certificate(pem_of(ask([fits, "mqtt.example.com"], "just-fits")))
    assert [a.value for a in cert.subject] == [fits]
    site.check_books()
