"""Stopping, and not starting."""

import fcntl
import json
import os
import random
import signal
import socket
import threading
import time

import pytest
from cryptography import x509

from desk import http, pem_of, tls
from front_harness import read_answer
from load import Load as MixedLoad
from load import boards
from signet_site import BIN, PATIENCE, Connection, Key, children_of, is_alive, mac, run, serial_of, wait_for
from witness import Witness

FULL = os.environ.get("SIGNET_FULL") == "1"
ROUNDS = 50 if FULL else 3


def test_requests_in_flight_are_answered(site):
    """The signers stand still while SIGTERM comes: each request that was taken still gets its certificate."""
    site.start()
    op = site.operator()
    lines, answers = [site.connect(op) for _ in range(8)], [None] * 8
    for line in lines:
        line.ask("get_status")
    signers = site.roles()["signer"]
    for pid in signers:
        os.kill(pid, signal.SIGSTOP)

    def ask(i):
        answers[i] = lines[i].issue(Key(mac(i)))
    askers = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for t in askers:
        t.start()
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0 AND profile = 'device'") == [(8,)],
             "eight open intents")
    site.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "in flight" in site.log(), "signetd is stopping")
    time.sleep(0.5)
    assert site.process.poll() is None
    with pytest.raises(OSError):  # nobody new
        socket.create_connection(("127.0.0.1", site.http_port), timeout=1).recv(1)
    for pid in signers:
        os.kill(pid, signal.SIGCONT)
    for t in askers:
        t.join()
    assert [status for status, _ in answers] == [200] * 8, answers
    assert site.process.wait(PATIENCE) == 0
    site.start()
    site.check_books([pem for _, pem in answers])


class Load(threading.Thread):
    """Device after device, until an answer is missing."""

    def __init__(self, site, op, number):
        super().__init__()
        self.site, self.op, self.number = site, op, number
        self.received, self.other, self.began, self.done = [], [], None, 0

    def run(self):
        connection, i, status = Connection(self.site, self.op), 0, 200
        while status == 200:
            i += 1
            key = Key(mac(self.number << 16 | i))
            self.began = time.monotonic()
            try:
                status, result = connection.issue(key)
            except Exception as e:
                if isinstance(e, OSError) and not connection.answering:
                    return  # not a byte of an answer
                status, result = type(e).__name__, e
            self.done = time.monotonic()
            if status == 200:
                self.received.append(result)
            elif (status, result) != (503, "draining"):
                self.other.append((status, result))


def ended(site, pids, code=0):
    """signetd ends with this code, with all its children, and lets go of the state."""
    got = site.process.wait(PATIENCE)
    assert got == code, f"signetd ended with code {got}:\n{site.log()}"
    assert [pid for pid in pids if is_alive(pid)] == []
    with open(site.state / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def all_of(site):
    return children_of(site.process.pid)


def term(site):
    site.process.send_signal(signal.SIGTERM)


def term_group(site):
    os.killpg(site.process.pid, signal.SIGTERM)


def interrupt_group(site):
    """Ctrl-C in a terminal."""
    os.killpg(site.process.pid, signal.SIGINT)


@pytest.mark.parametrize("how", (term, term_group, interrupt_group))
def test_term_under_load(site, how):
    site.start()
    op = site.operator()
    load = [Load(site, op, n) for n in range(8)]
    for t in load:
        t.start()
    wait_for(lambda: sum(len(t.received) for t in load) > 200, "200 certificates")
    asked, pids = time.monotonic(), all_of(site)
    how(site)
    ended(site, pids)
    for t in load:
        t.join()
    received = [pem for t in load for pem in t.received]
    assert [t.other for t in load if t.other] == []
    # what had been sent for a while when SIGTERM came was answered
    lost = [asked - t.began for t in load if t.done < t.began < asked - 0.1]
    assert lost == []
    assert site.query("SELECT count(*) FROM certificate WHERE state IN (0, 4)") == [(0,)]
    site.start()
    books = site.check_books(received)
    assert sum(row[1] == "device" for row in books.values()) == len(received)  # nothing made that nobody got


@pytest.mark.parametrize("how", (term, term_group, interrupt_group))
def test_authority_outlives_the_fronts(site, how):
    """Whoever was signalled: a front that comes to its requests late still has somebody to ask."""
    site.start()
    op, pids = site.operator(), all_of(site)
    lines = [tls(site, op, timeout=20) for _ in range(4)]
    fronts = site.roles()["front"]
    for pid in fronts:
        os.kill(pid, signal.SIGSTOP)
    for number, line in enumerate(lines):
        line.sendall(http(body=json.dumps({"operation": "req_client_cert", "csr": Key(mac(number)).csr}).encode()))
    how(site)
    time.sleep(0.5)
    for pid in fronts:
        os.kill(pid, signal.SIGCONT)
    answers = [read_answer(line) for line in lines]
    for line in lines:
        line.close()
    assert all(answer and answer.status in (200, 503) for answer in answers), answers
    ended(site, pids)
    site.start()
    site.check_books([pem_of(answer) for answer in answers if answer.status == 200])


def test_second_term_ends_at_once(site):
    site.start()
    op = site.operator()
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGSTOP)
    t = threading.Thread(target=lambda: pytest.raises(Exception, site.issue, op, Key(mac(1))))
    t.start()
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(1,)], "an open intent")
    site.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "in flight" in site.log(), "signetd is stopping")
    site.process.send_signal(signal.SIGTERM)
    assert site.process.wait(PATIENCE) == 1
    t.join()
    site.start()
    assert site.issue(op, Key(mac(1)))[0] == 200
    site.check_books()


# ---- again and again ----


def term_in_reload(site):
    site.process.send_signal(signal.SIGHUP)
    time.sleep(random.random() * 0.3)
    term(site)


MIX = {"crl": 7, "renew": 5, "replace": 8, "revoke": 3}
WAYS = (term, term_group, term_in_reload, interrupt_group)


@pytest.mark.parametrize("ways", [[term], WAYS], ids=["term", "each way"])
def test_stopped_under_load_again_and_again(site, ways):
    """What a client has is durable; what it has no answer to is asked for again by the next signetd, and done once."""
    site.start()
    op, witness, step = site.operator(), Witness(), 24
    rounds = ROUNDS * len(ways) if not FULL or len(ways) == 1 else ROUNDS
    with MixedLoad(site, op, witness, boards(step * (rounds + 1)), 16, MIX, patience=60 + 20 * rounds) as load:
        load.start(step)
        for number in range(rounds):
            wait_for(lambda: load.done > step * number or load.errors, lambda: f"the load goes on: {site.log()}")
            wait_for(lambda: site.roles().get("front"), "it serves, or is about to")
            time.sleep(random.random() * 0.2)
            pids = all_of(site)
            ways[number % len(ways)](site)
            ended(site, pids)
            load.allow(step * (number + 2))
            site.start(ready=False)
        load.join()
    seen = witness.check(site, op, saw=("issued", "revoked", "lost", "crls"))
    print(dict(seen))
    assert "was ended by signal" not in site.log()
    site.ctl("audit")


def test_term_while_signers_hang(site):
    """The call's deadline passes, the request is refused, and signetd ends; the next one serves."""
    site.start()
    op, key = site.operator(), Key(mac(1))
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGSTOP)
    answer = []

    def ask():
        try:
            answer.append(site.issue(op, key))
        except OSError:
            answer.append((0, ""))
    t = threading.Thread(target=ask)
    t.start()
    wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(1,)], "an open intent")
    pids = all_of(site)
    term(site)
    ended(site, pids)
    t.join()
    assert answer[0][0] in (0, 503), answer
    site.start()
    assert site.issue(op, key)[0] == 200
    site.check_books()


def test_term_during_the_start(site):
    """At any moment of it. What was killed before it could look at signals has begun nothing."""
    for delay in sorted(random.random() for _ in range(ROUNDS * 2)):
        site.start(ready=False)
        time.sleep(delay * 0.6)
        pids = all_of(site)
        term(site)
        assert site.process.wait(PATIENCE) in (0, -signal.SIGTERM), site.log()
        wait_for(lambda: not any(is_alive(pid) for pid in pids), "all end")
    site.start()
    assert site.issue(site.operator(), Key(mac(1)))[0] == 200
    site.check_books()


def test_term_while_the_crl_is_made(site):
    site.start()
    op, gone = site.operator(), set()
    for number in range(ROUNDS):
        status, pem = site.issue(op, Key(mac(number)))
        assert status == 200
        serial = serial_of(x509.load_pem_x509_certificate(pem))
        assert site.ask(op, "revoke_cert", serial=serial)[0] == 200
        gone.add(serial)
        time.sleep(random.random() * 0.05)
        pids = all_of(site)
        term(site)
        ended(site, pids)
        site.start()
        assert {serial_of(entry) for entry in site.crl()} == gone
    site.check_books()


def test_term_while_the_token_is_away(site):
    site.start()
    op, tokens, away = site.operator(), site.dir / "hsm/tokens", site.dir / "hsm/away"
    status, pem = site.issue(op, Key(mac(1)))
    tokens.rename(away)
    tokens.mkdir(0o700)
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGKILL)
    site.wait_ready(503)
    serial = serial_of(x509.load_pem_x509_certificate(pem))
    assert site.ask(op, "revoke_cert", serial=serial)[0] == 200
    pids = all_of(site)
    term(site)
    ended(site, pids)
    site.start(ready=False)
    site.wait_ready(503)
    pids = all_of(site)
    term(site)
    ended(site, pids)
    tokens.rmdir()
    away.rename(tokens)
    site.start()
    assert [serial_of(entry) for entry in site.crl()] == [serial]
    assert site.issue(op, Key(mac(2)))[0] == 200
    site.check_books()


def test_second_signetd_on_the_same_state(site):
    site.start()
    process, site.process = site.process, None
    before = len(site.log())
    code, said = site.run_to_end()
    assert code == 1 and "another signetd runs on this state" in said and str(site.state) in said, said
    assert "error" not in site.log()[:before]
    site.process = process
    assert site.issue(site.operator(), Key(mac(1)))[0] == 200  # the first is none the worse


@pytest.mark.parametrize("setting", ["server_listen", "server_http_listen"])
def test_port_in_use(site, setting):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = "127.0.0.1:%d" % other.getsockname()[1]
        site.set(setting, address)
        code, said = site.run_to_end()
    assert code == 1 and f"cannot listen on {address}" in said and "choose another" in said, said
    assert not (site.state / "signet.db").exists()  # nothing was begun


def test_port_that_is_let_go(site):
    """As by the fronts of a signetd that was killed: they hold it a moment longer than it lives."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(site.conf.read_text().split("http_listen = 127.0.0.1:")[1].split()[0])))
        other.listen()
        threading.Timer(0.5, other.close).start()
        site.start()


def line_of(site, text):
    return [n for n, line in enumerate(site.conf.read_text().splitlines(), 1) if line.startswith(text)][0]


BROKEN = [
    # appended or set, the line that must be named begins with this, words of the message
    (lambda s: s.set("server_fronts", "many"), "fronts", ["fronts", "many"]),
    (lambda s: s.set("server_fronts", "0"), "fronts", ["fronts"]),
    (lambda s: s.set("server_colour", "blue"), "colour", ["colour"]),
    (lambda s: s.set("server_listen", "nowhere"), "listen", ["listen", "address:port"]),
    (lambda s: s.set("server_public_url", "https://x"), "public_url", ["public_url", "http://"]),
    (lambda s: s.set("token_key_id", "xyz"), "key_id", ["key_id", "hex"]),
    (lambda s: s.set("ca_crl_life", "11d"), "crl_life", ["crl_life"]),
    (lambda s: append(s, ".include /etc/passwd"), ".include", [".include"]),
    (lambda s: append(s, "[profile odd]\nsubject = CN={name}\nkeyUsage = critical, flying\n"), "keyUsage",
     ["odd", "keyUsage"]),
    (lambda s: append(s, "[profile odd]\nsubject = CN={name}\nnot_after = soon\n"), "not_after",
     ["odd", "not_after"]),
    (lambda s: append(s, "[profile odd]\nroles = wizard\n"), "roles", ["odd", "wizard"]),
]


def append(site, text):
    site.conf.write_text(site.conf.read_text() + text + "\n")


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_check_names_the_line(site, number):
    spoil, begins, words = BROKEN[number]
    spoil(site)
    done = run(BIN / "signetd", "--check", "--config", site.conf, code=1, cwd=site.dir)
    where = f"{site.conf}:{line_of(site, begins)}:"
    for word in [where, *words]:
        assert word in done.stderr, (word, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    code, said = site.run_to_end()
    assert code == 1 and where in said, said


def test_check(site):
    done = run(BIN / "signetd", "--check", "--config", site.conf, cwd=site.dir)
    assert "is valid" in done.stdout and done.stderr == ""
    assert not (site.state / "signet.db").exists()
    (site.state / "intermediate.pem").rename(site.dir / "gone.pem")
    done = run(BIN / "signetd", "--check", "--config", site.conf, code=1, cwd=site.dir)
    assert "intermediate.pem" in done.stderr
    (site.dir / "gone.pem").rename(site.state / "intermediate.pem")
    (site.state / "ca-chain.pem").write_bytes((site.state / "intermediate.pem").read_bytes())
    done = run(BIN / "signetd", "--check", "--config", site.conf, code=1, cwd=site.dir)
    assert "ca-chain.pem" in done.stderr
    done = run(BIN / "signetd", "--check", "--config", "/nowhere/signet.conf", code=1, cwd=site.dir)
    assert "/nowhere/signet.conf" in done.stderr
