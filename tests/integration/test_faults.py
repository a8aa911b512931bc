"""Every fault that the shim has, while 16 clients are served: nothing acknowledged is lost, nothing issued twice, and
who asks again is served once it is over. Lookups and the CRL go on meanwhile, readiness tells the truth.

SIGNET_FULL=1: 2,000 certificates for each fault, and the time that the service needs to come back."""

import contextlib
import os
import re
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest
from cryptography import x509

from hsm_harness import use_shim
from load import Load, boards
from signet_site import wait_for
from witness import Witness, number_of

FULL = os.environ.get("SIGNET_FULL") == "1"
BOARDS, CONNECTIONS, STANDS = (2000, 16, 5) if FULL else (48, 16, 0.8)
MIX = {"revoke": 12, "hold": 9, "replace": 15, "lookup": 10}
DEADLINE = 2  # of a signature, seconds
STALL = 3  # what needs no token never takes as long, on whatever machine


class Watch:
    """Asks all the time for what needs no token; how long the longest took, and whether readiness changed."""

    def __init__(self, site, op, serial):
        self.site, self.op, self.serial = site, op, serial
        self.longest, self.count = defaultdict(float), defaultdict(int)
        self.wrong, self.ready, self.signers = [], [], {}
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.repeat, args=(self.looks, what)) for what in
                        ("get_cert", "list_certs", "/crl", "/readyz")]
        self.threads.append(threading.Thread(target=self.repeat, args=(self.children, None)))

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for t in self.threads:
            t.join()

    def repeat(self, work, what):
        with self.site.connect(self.op) as c:
            while not self.ended.is_set():
                work(c, what)
                time.sleep(0.02)

    def looks(self, connection, what):
        began = time.monotonic()
        if what == "get_cert":
            status = connection.ask(what, serial=self.serial)[0]
        elif what == "list_certs":
            status = connection.ask(what, limit=20)[0]
        else:
            status = self.site.get(what)[0]
        self.count[what] += 1
        self.longest[what] = max(self.longest[what], time.monotonic() - began)
        if what == "/readyz":
            self.ready.append((time.monotonic(), status))
        elif status != 200:
            self.wrong.append((what, status))

    def children(self, _, __):
        """When each signer was first seen."""
        for pid in self.site.roles().get("signer", []):
            self.signers.setdefault(pid, time.monotonic())

    def started_after(self, moment):
        return min((began for began in self.signers.values() if began > moment), default=None)

    def was_ready(self, status, since):
        return any(got == status and at >= since for at, got in self.ready)

    def check(self):
        assert self.wrong == []
        assert all(self.count[what] > 10 for what in ("get_cert", "list_certs", "/crl", "/readyz")), self.count
        assert max(self.longest.values()) < STALL, dict(self.longest)


def memory(site):
    """Of the authority, in KiB."""
    (pid,) = site.roles()["authority"]
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


def own_lines(site):
    """How much is logged, but for what fronts say of each request."""
    return sum("signet-front" not in line for line in site.log().splitlines())


# name: (orders, what the status says of it while no signer can sign; None: one can, at least now and then)
FAULTS = {
    "device-error-few": (["C_Sign error 30 3 all"], None),
    "device-error": (["C_Sign error 30"], "CKR_DEVICE_ERROR"),
    "sessions-closed-few": (["C_SignInit close 0 2 all"], None),
    "sessions-closed": (["C_SignInit close"], "CKR_SESSION_HANDLE_INVALID"),
    "logged-out-few": (["C_SignInit logout 0 2 all"], None),
    "gone": (["token gone e0"], "no token|CKR_TOKEN_NOT_PRESENT|CKR_SESSION_HANDLE_INVALID"),
    "removed": (["token gone 32"], "no token|CKR_DEVICE_REMOVED|CKR_SESSION_HANDLE_INVALID"),
    "no-session": (["C_SignInit close", "C_OpenSession error b1"], "CKR_SESSION"),
    "slow": (["C_Sign delay 300"], None),
    "hang": (["C_Sign hang"], "longer than sign_deadline"),
    "not-but-the-trial": (["C_Sign error 5 -1"], None),
    "hang-one": (["C_Sign hang 0 1 all"], None),
    "hang-one-signed": (["C_Sign hang-after 0 1 all"], None),
    "garbage": (["C_Sign garbage"], "sign"),
    "length": (["C_Sign length 10"], "sign"),
    "crash": (["C_Sign crash"], "signal 6"),
    "crash-few-signed": (["C_Sign crash-after 0 4 all"], None),
}


@pytest.fixture
def faulty(site):
    """(site, shim, an operator), with a CRL and both signers."""
    shim = use_shim(site)
    site.set("token_sign_deadline", f"{DEADLINE}s")
    site.start()
    op = site.operator()
    site.crl()
    all_ready(site)
    return site, shim, op


def all_ready(site):
    wait_for(lambda: "2 of 2 ready" in site.ctl("status", code=None).stdout, "both signers are ready")


def told(site, op, cause, key):
    """Whoever looks is told at once what it is, and what to do."""
    wanted = rf"NOT READY: (no signer is ready: .*({cause})|the token refused the PIN).*\n  next: .*signet(d|ctl).*"
    first = wait_for(lambda: re.match(wanted, site.ctl("status", code=4).stdout),
                     lambda: site.ctl("status", code=4).stdout)
    answer = site.ask(op, "get_status")[1]
    assert answer["ready"] is False and re.search(cause, answer["token"]["detail"]), answer
    began = time.monotonic()
    with site.connect(op) as c:
        status, answer = c.ask("req_client_cert", csr=key.csr)
        assert (status, answer["error"]["code"]) == (503, "token_unavailable"), answer
        assert re.search(cause, answer["error"]["message"]) and int(c.headers["Retry-After"]) >= 1, answer
    assert time.monotonic() - began < STALL
    return first.group(0)


def plain_restart(site):
    """Seconds until there are signers again, when both end for no reason."""
    all_ready(site)
    killed, before = time.monotonic(), site.log().count(" is ready: ")
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: site.log().count(" is ready: ") > before, "a signer is ready")
    took = time.monotonic() - killed
    all_ready(site)
    return took


@pytest.mark.parametrize("name", FAULTS)
def test_fault(faulty, name):
    site, shim, op = faulty
    orders, cause = FAULTS[name]
    witness, keys = Witness(), boards(BOARDS + 1)
    with Load(site, op, witness, keys[:BOARDS], CONNECTIONS, MIX, patience=600) as load:
        load.start(allowed=BOARDS // 3)
        wait_for(lambda: load.done >= BOARDS // 4, lambda: f"{load.done} boards\n{site.log()}")
        plain = plain_restart(site) if FULL else 0
        with Watch(site, op, next(iter(witness.received()))) as watch:
            before, lines, broken = memory(site), own_lines(site), time.monotonic()
            shim.order(*orders)
            load.allow(2 * BOARDS // 3)
            if cause:
                wait_for(lambda: watch.was_ready(503, broken), lambda: f"it is not ready\n{site.log()}")
                told(site, op, cause, keys[-1])
            time.sleep(STANDS)
            shim.order()
            over = time.monotonic()
            load.allow(BOARDS)
            back = wait_for(lambda: witness.first_issue_after(over), lambda: f"a certificate\n{site.log()}", 30)
            load.join()
            said = own_lines(site) - lines
            wait_for(lambda: watch.was_ready(200, over), "it is ready")
        watch.check()
    all_ready(site)
    assert said < 150 + 16 * STANDS, site.log()  # an intent that came to nothing has a line too
    # AddressSanitizer keeps what is freed
    assert "ASAN_OPTIONS" in os.environ or memory(site) - before < 32 << 10
    roles = site.roles()
    assert (len(roles["authority"]), len(roles["signer"]), len(roles["front"])) == (1, 2, 2)
    seen = witness.check(site, op, shim, saw=("issued", "revoked", "held"))
    assert seen["issued"] >= BOARDS
    assert ("was ended by signal 6" in site.log()) == name.startswith("crash")
    report(name, site, shim, seen, watch, (over - broken, over, back, plain, said))
    site.stop()
    site.log_file.write_text(site.log().replace("was ended by signal 6", "crashed, as it was told to"))


def report(name, site, shim, seen, watch, times):
    """The figures; and back means within 2 s of the first try after the end, on a machine that is as quick as here."""
    stood, over, back, plain, said = times
    tried = min(watch.started_after(over) or over, back)
    print(f"{name}: {seen['issued']} certificates, 0 lost, 0 doubled, {seen['orphans']} orphans "
          f"({seen['signed orphans']} signed), {seen['503']} x 503, {seen['lost']} connections lost; stood {stood:.1f} s, "
          f"back {back - over:.2f} s after, of it {tried - over:.2f} s backoff; a plain restart {plain:.2f} s; "
          f"{shim.calls('C_Login').count('0x0')} logins, {len(shim.calls('C_OpenSession'))} sessions, {seen['trials']} "
          f"signers; {said} lines; longest {max(watch.longest.values()):.2f} s")
    assert not FULL or back - tried < max(2, 5 * plain), site.log()


# ---- the token hangs, and others want something else ----


def test_hanging_token_leaves_credits(site):
    """However many wait for the token, who only looks is answered."""
    shim = use_shim(site)
    for name, value in {"token_sign_deadline": "5s", "server_fronts": 1, "server_credits": 4}.items():
        site.set(name, value)
    site.start()
    op, witness, keys = site.operator(), Witness(), boards(9)
    site.crl()
    all_ready(site)
    with Load(site, op, witness, keys[1:], 8, longest_wait=0.05) as load, site.connect(op) as c:
        status, answer = c.ask("req_client_cert", csr=keys[0].csr)
        assert status == 200
        shim.order("C_Sign hang 0 2 all")
        load.start()
        wait_for(lambda: site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(3,)], "three intents")
        wait_for(lambda: witness.counts()["503"] > 20, "the others are told to come again")
        for _ in range(50):
            assert c.ask("get_cert", serial=answer["serial"])[0] == 200
        assert site.query("SELECT count(*) FROM certificate WHERE state = 0") == [(3,)], "they wait as before"
        shim.order()
        load.join()
    witness.check(site, op)


def test_wait_for_a_hanging_token(site):
    """A signer after the other hangs with the same request: whoever sent it is told before all have tried."""
    shim, deadline = use_shim(site), 3
    site.set("token_sign_deadline", f"{deadline}s")
    site.start()
    op, key = site.operator(), boards(1)[0]
    site.crl()
    all_ready(site)
    shim.order("C_Sign hang 0 -1")  # each comes as far as its trial
    began = time.monotonic()
    assert site.issue(op, key) == (503, "token_unavailable")
    assert deadline < time.monotonic() - began < 3 * deadline
    shim.order()
    site.wait_ready()
    assert wait_for(lambda: site.issue(op, key)[0] == 200, "a certificate")


@pytest.mark.long  # the minute that a login may take
def test_login_that_hangs(faulty):
    """It ends after a minute, and status says what it was."""
    site, shim, op = faulty
    shim.order("C_Login hang")
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGKILL)
    told_of = "the token was not open after 60 s"
    wait_for(lambda: told_of in site.log(), lambda: site.log(), 90)
    assert told_of in told(site, op, told_of, boards(1)[0])
    shim.order()  # the next one hangs already
    wait_for(lambda: site.get("/readyz")[0] == 200, lambda: site.log(), 90)


def test_crl_after_the_token(faulty):
    """What was revoked while there was no token stands on a CRL as soon as there is one."""
    site, shim, op = faulty
    witness, keys = Witness(), boards(8)
    with Load(site, op, witness, keys, 4) as load:
        load.start().join()
    serials = sorted(witness.received())
    number = number_of(site.crl())
    shim.order("C_Sign hang")
    site.ctl("crl", "rebuild", code=None)  # it is signed when the token hangs
    wait_for(lambda: "the CRL could not be made" in site.log(), lambda: site.log())
    site.wait_ready(503)
    with site.connect(op) as c:
        for serial in serials:
            assert witness.ask(c, "revoke_cert", serial=serial, reason="keyCompromise")[0] == 200
    assert number_of(x509.load_der_x509_crl(witness.crl(site)[1])) == number
    shim.order()
    site.wait_ready()
    assert {f"{entry.serial_number:032x}" for entry in site.crl()} >= set(serials)
    witness.check(site, op, shim, saw=("issued", "revoked", "crls"))


# ---- the PIN ----


@pytest.mark.parametrize("order, logins, cause", [
    ("C_Login error a0", ["0xa0"], "CKR_PIN_INCORRECT"),
    ("C_Login error a4", ["0xa4"], "CKR_PIN_LOCKED"),
    ("C_GetTokenInfo flags 40000", [], "locked"),
    ("C_GetTokenInfo flags 20000", [], "one more wrong PIN locks it"),
], ids=["incorrect", "locked", "flagged-locked", "flagged-last-try"])
def test_pin(faulty, order, logins, cause):
    """It is tried once, also by the next signetd; signetctl pin retry brings it back."""
    site, shim, op = faulty
    witness, keys = Witness(), boards(BOARDS + 1)
    with Load(site, op, witness, keys[:BOARDS], CONNECTIONS, MIX, patience=600) as load:
        load.start(allowed=BOARDS // 3)
        wait_for(lambda: load.done >= BOARDS // 4, lambda: f"{load.done} boards\n{site.log()}")
        before = len(shim.calls("C_Login"))
        shim.order(order, "C_SignInit close 0 2 all")
        load.allow(2 * BOARDS // 3)
        wait_for(lambda: re.search(cause, site.log()), lambda: site.log())
        for pid in site.roles().get("signer", []):  # one had no closed session
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        site.wait_ready(503)
        time.sleep(STANDS)
        assert shim.calls("C_Login")[before:] == logins
        assert "signetctl pin retry" in told(site, op, cause, keys[-1])
        site.stop()
        for _ in range(3):
            code, said = site.run_to_end()
            assert code == 1 and "PIN" in said, said
        assert shim.calls("C_Login")[before:] == logins
        shim.order()
        site.ctl("pin", "retry", code=None if not logins else 0)
        site.start()
        load.join()
    witness.check(site, op, shim)


def test_pin_retry_after_the_last_try(faulty):
    site, shim, op = faulty
    before = len(shim.calls("C_Login"))
    shim.order("C_GetTokenInfo flags 20000")
    os.kill(site.roles()["signer"][0], signal.SIGKILL)
    wait_for(lambda: "one more wrong PIN" in site.log(), lambda: site.log())
    shim.order("C_GetTokenInfo flags 20000", "C_SignInit close")  # what ends the other is not what to act upon
    assert site.issue(op, boards(1)[0]) == (503, "token_unavailable")
    site.wait_ready(503)
    assert "signetctl pin retry" in told(site, op, "one more wrong PIN", boards(1)[0])
    time.sleep(STANDS)
    assert shim.calls("C_Login")[before:] == []
    shim.order()  # somebody has logged in with the right PIN
    time.sleep(STANDS)
    assert site.get("/readyz")[0] == 503 and shim.calls("C_Login")[before:] == [], "a person must say so"
    site.ctl("pin", "retry")
    site.wait_ready()
    assert "0x0" in shim.calls("C_Login")[before:]
