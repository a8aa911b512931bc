"""kill -9 of each process by turns while clients are served. What a client has received is kept outside, and compared
afterwards with store, journal, files and CRL, byte for byte."""

import http.client
import os
import signal
import threading
import time
from collections import Counter

import pytest
from cryptography import x509

from hsm_harness import use_shim
from load import Load, boards
from signet_site import ISSUED, ORPHAN, PATIENCE, Key, Kit, Site, mac, serial_of, wait_for
from witness import Witness

FULL = os.environ.get("SIGNET_FULL") == "1"
DEVICES, KILLS, THREADS = (1000, 42, 8) if FULL else (300, 14, 8)


def victims():
    """Each process in turn, for ever."""
    while True:
        for role, which in (("front", 0), ("signer", 0), ("authority", 0), ("front", -1), ("publisher", 0),
                            ("signer", -1), ("supervisor", 0)):
            yield role, which


def kill_one(site, role, which):
    """False when there was none for long (a publisher lives for milliseconds)."""
    end = time.monotonic() + (2 if role == "publisher" else PATIENCE)
    if role == "supervisor":
        site.kill()
        site.start(ready=False)
        return True
    while time.monotonic() < end:
        pids = site.roles().get(role, [])
        if role == "signer" and "2 of 2 ready" not in site.ctl("status", code=None).stdout:
            continue  # killed within a login, SoftHSM loses its token
        if pids:
            try:
                os.kill(pids[which], signal.SIGKILL)
                return True
            except ProcessLookupError:
                pass
    return False


@pytest.mark.parametrize("key_type", ["rsa:2048", "ec:p256"] if FULL else ["rsa:2048"])
def test_kill_each_in_turn(tmp_path, key_type):
    with Site(Kit(tmp_path / "kit", key_type), tmp_path / "site") as site:
        shim = use_shim(site)
        site.start()
        op, killed, witness, step = site.operator(), Counter(), Witness(), DEVICES // (KILLS + 2)
        with Load(site, op, witness, boards(DEVICES), THREADS, {"revoke": 10, "crl": 10}) as load:
            load.start(allowed=0)
            for number, (role, which) in zip(range(KILLS), victims()):
                load.allow((number + 3) * step)  # lest all are done before the last kill
                wait_for(lambda: load.done >= (number + 1) * step, lambda: f"{load.done} boards; {site.log()}")
                killed[role] += kill_one(site, role, which)
            load.join()
        site.kill()
        site.start()
        assert {a.csr_name() for a in witness.received().values()} == {key.name for key in boards(DEVICES)}
        seen = witness.check(site, op, shim, saw=("issued", "revoked", "lost", "crls"))
        assert sum(killed.values()) - killed["publisher"] == KILLS - KILLS // 7, killed
        print(f"{key_type}: killed {dict(killed)}; {dict(seen)}")
        site.stop()


def test_authority_killed_with_intents_open(site):
    """The signers stand still, so that intents are open for sure when the authority dies."""
    site.start()
    op, keys = site.operator(), [Key(mac(i)) for i in range(5)]
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGSTOP)
    askers = [threading.Thread(target=ask_and_lose, args=(site, op, key)) for key in keys]
    for t in askers:
        t.start()
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0 AND profile = 'device'") == [(5,)],
             "five open intents")
    (authority,) = site.roles()["authority"]
    os.kill(authority, signal.SIGKILL)
    for t in askers:
        t.join()
    wait_for(lambda: site.roles().get("authority", [authority]) != [authority], "a new authority")
    site.wait_ready()
    answers = [site.issue(op, key) for key in keys]
    assert [status for status, _ in answers] == [200] * 5
    books = site.check_books([pem for _, pem in answers])
    devices = [row for row in books.values() if row[1] == "device"]
    assert Counter(row[0] for row in devices) == {ORPHAN: 5, ISSUED: 5}
    assert site.ask(op, "get_status")[1]["certificates"]["orphans"] == 5


def ask_and_lose(site, op, key):
    try:
        site.issue(op, key)
        raise AssertionError("there is an answer")
    except (OSError, http.client.HTTPException):
        pass


def test_signer_dies_with_a_signature_under_way(site):
    """The request goes to another signer; the client notices nothing."""
    site.start()
    op = site.operator()
    stopped = site.roles()["signer"]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    with site.connect(op) as c:
        result = []
        asker = threading.Thread(target=lambda: result.append(c.issue(Key(mac(1)))))
        asker.start()
        wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0 AND profile = 'device'") ==
                 [(1,)], "an open intent")
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        asker.join()
    assert result[0][0] == 200
    site.check_books([result[0][1]])


def test_revocation_just_before_a_crash_is_listed(site):
    """Committed and answered, but on no CRL yet: the signers stand still."""
    site.start()
    op = site.operator()
    status, pem = site.issue(op, Key(mac(1)))
    assert status == 200
    site.crl()
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGSTOP)
    serial = serial_of(x509.load_pem_x509_certificate(pem))
    assert site.ask(op, "revoke_cert", serial=serial)[0] == 200
    assert site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(0,)]
    site.kill()
    site.start()
    assert [serial_of(entry) for entry in site.crl()] == [serial]
    site.check_books([pem])


def test_end_of_a_hold_just_before_a_crash_is_published(site):
    """As with a revocation: nothing else would ask for a CRL until half of the last one's life."""
    site.start()
    op = site.operator()
    status, pem = site.issue(op, Key(mac(1)))
    assert status == 200
    serial = serial_of(x509.load_pem_x509_certificate(pem))
    assert site.ask(op, "revoke_cert", serial=serial, reason="certificateHold")[0] == 200
    wait_for(lambda: site.get("/crl")[0] == 200 and len(site.crl()) == 1, "the hold is listed")
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGSTOP)
    assert site.ask(op, "revoke_cert", serial=serial, reason="removeFromCRL")[0] == 200
    site.kill()
    site.start()
    wait_for(lambda: len(x509.load_der_x509_crl(site.get("/crl")[1])) == 0, "a CRL without it")
