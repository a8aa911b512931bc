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

from signet_site import ISSUED, ORPHAN, PATIENCE, REVOKED, Connection, Key, Kit, Site, mac, serial_of, wait_for

FULL = os.environ.get("SIGNET_FULL") == "1"
DEVICES, KILLS, THREADS = (1000, 42, 8) if FULL else (300, 14, 8)


class Clients:
    """Threads that each have one device after another certified, and ask again until there is an answer."""

    def __init__(self, site, op, keys):
        self.site, self.op, self.keys = site, op, list(reversed(keys))
        self.received, self.refused, self.again, self.revoked = {}, [], Counter(), set()
        self.lock, self.end = threading.Lock(), time.monotonic() + 120
        self.allowed = 0  # how many may be taken so far, lest all are done before the last kill
        self.threads = [threading.Thread(target=self.work) for _ in range(THREADS)]
        self.threads.append(threading.Thread(target=self.revoke))
        for t in self.threads:
            t.start()

    def persist(self, connection, ask):
        """ask(connection) until it is answered otherwise than by 503; (connection, answer)."""
        while time.monotonic() < self.end:
            try:
                connection = connection or Connection(self.site, self.op, timeout=20)
                status, result = ask(connection)
                if status != 503:
                    return connection, (status, result)
                self.again["503"] += 1
            except (OSError, http.client.HTTPException) as e:
                self.again[type(e).__name__] += 1
                if connection:
                    connection.http.close()
                connection = None
            time.sleep(0.02)
        return None, (0, "no answer")

    def work(self):
        connection = None
        while True:
            with self.lock:
                if not self.keys or time.monotonic() > self.end:
                    return
                key = self.keys.pop() if len(self.keys) > DEVICES - self.allowed else None
            if not key:
                time.sleep(0.002)
                continue
            connection, (status, result) = self.persist(connection, lambda c: c.issue(key))
            with self.lock:
                if status == 200:
                    self.received[key.name] = result
                else:
                    self.refused.append((key.name, status, result))

    def revoke(self):
        """Every tenth, so that CRLs are made all the time."""
        connection, done = None, set()
        while self.is_busy():
            with self.lock:
                names = sorted(self.received)[::10]
            for name in names:
                if name in done:
                    continue
                done.add(name)
                serial = serial_of(x509.load_pem_x509_certificate(self.received[name]))
                connection, (status, result) = self.persist(
                    connection, lambda c: c.ask("revoke_cert", serial=serial, reason="superseded"))
                with self.lock:
                    if status == 200:
                        self.revoked.add(serial)
                    else:
                        self.refused.append((name, status, result))
            time.sleep(0.05)

    def is_busy(self):
        return any(t.is_alive() for t in self.threads[:THREADS])

    def join(self):
        for t in self.threads:
            t.join()


def victims():
    """Each process in turn, for ever."""
    while True:
        for role, which in (("front", 0), ("signer", 0), ("authority", 0), ("front", -1), ("publisher", 0),
                            ("signer", -1), ("supervisor", 0)):
            yield role, which


def kill_one(site, clients, role, which):
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
    keys = [Key(mac(i)) for i in range(DEVICES)]
    with Site(Kit(tmp_path / "kit", key_type), tmp_path / "site") as site:
        site.start()
        op, killed = site.operator(), Counter()
        clients = Clients(site, op, keys)
        for number, (role, which) in zip(range(KILLS), victims()):
            step = DEVICES // (KILLS + 2)
            clients.allowed = (number + 3) * step
            wait_for(lambda: len(clients.received) + len(clients.refused) >= (number + 1) * step,
                     lambda: f"{len(clients.received)} certificates; {site.log()}")
            killed[role] += kill_one(site, clients, role, which)
        clients.allowed = DEVICES
        clients.join()
        site.kill()
        site.start()
        assert clients.refused == []
        assert set(clients.received) == {key.name for key in keys}

        books = site.check_books(clients.received.values())
        states = Counter(row[0] for row in books.values())
        devices = Counter(row[2] for row in books.values() if row[1] == "device" and row[0] in (ISSUED, REVOKED))
        assert set(devices.values()) == {1} and set(devices) == set(clients.received)
        assert {s for s, row in books.items() if row[0] == REVOKED} == clients.revoked
        assert sum(killed.values()) - killed["publisher"] == KILLS - KILLS // 7, killed
        print(f"{key_type}: {len(clients.received)} certificates received; killed {dict(killed)}; "
              f"{states[ORPHAN]} orphans, {states[REVOKED]} revoked; asked again {dict(clients.again)}")
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
