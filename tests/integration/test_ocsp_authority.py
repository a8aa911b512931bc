"""OCSP, from the store to every front: what was acknowledged is in the next answer, whatever the token does meanwhile;
strangers cannot spend the token; what is kept is given while it is away; and the clock ends what is old."""

import calendar
import contextlib
import itertools
import os
import random
import signal
import socket
import threading
import time

import pytest

from clock_site import ClockSite, build_clock
from desk import edit, post, profile
from hsm_harness import use_shim
from ocsp_client import GOOD, TRY_LATER, Answer, Ocsp, answers_begin, by_openssl, one_of_each_front, \
    request, some_serial, word_of
from signet_site import HELD, ISSUED, PATIENCE, REVOKED, Key, Site, mac, serial_of, wait_for, x509

FULL = os.environ.get("SIGNET_FULL") == "1"
DAY, HOUR = 86400, 3600


@pytest.fixture
def site(kit, tmp_path):
    with Site(kit, tmp_path / "site", ocsp=True) as s:
        yield s


@pytest.fixture
def ocsp_site(site):
    site.start()
    answers_begin(site)
    return site


@pytest.fixture
def clock_site(kit, tmp_path):
    with ClockSite(kit, tmp_path / "site", ocsp=True) as s:
        yield s


def utc(when):
    return calendar.timegm(when.timetuple())


def serial_from(pem):
    return serial_of(x509.load_pem_x509_certificate(pem))


def issue(site, op, count):
    with site.connect(op) as c:
        return [serial_from(c.issue(Key(mac(next(NUMBERS))))[1]) for _ in range(count)]


NUMBERS = itertools.count(0x770000)


def row_of(site, serial):
    return site.query("SELECT state, reason, revoked_at FROM certificate WHERE lower(hex(serial)) = ?", serial)[0]


class Line:
    """A kept-alive TLS connection of an operator's, which knows its front."""

    def __init__(self, site, op):
        self.connection = site.connect(op)
        self.http = self.connection.http
        self.http.connect()
        self.site = site
        self.front = lambda: Ocsp.front(self)


# ---- what was acknowledged is in the next answer ----


def test_every_front_agrees(ocsp_site):
    """Revoked, held and lifted through any front: the next answer of every front says so, and as the CRL will."""
    site, steps = ocsp_site, 300 if FULL else 80
    op = site.operator()
    serials = issue(site, op, 12)
    askers, lines = one_of_each_front(site, lambda: Ocsp(site)), one_of_each_front(site, lambda: Line(site, op))
    kept = 0
    for _ in range(steps):
        serial = random.choice(serials)
        for a in askers:  # it is kept there
            before = a.ask(serial)
            assert before.words[serial] == word_of(*row_of(site, serial))
            kept += a.ask(serial).der == before.der
        state = row_of(site, serial)[0]
        reason = {ISSUED: random.choice(("certificateHold", "certificateHold", "keyCompromise")), REVOKED: None,
                  HELD: random.choice(("removeFromCRL", "removeFromCRL", "superseded"))}[state]
        if reason is None:
            serials.remove(serial)
            serials += issue(site, op, 1)
            continue
        status, answer = random.choice(lines).connection.ask("revoke_cert", serial=serial, reason=reason)
        assert status == 200, answer
        words = [a.word(serial) for a in random.sample(askers, len(askers))]
        assert words == [word_of(*row_of(site, serial))] * len(askers), (reason, words)
    assert kept > steps, f"of {2 * steps} answers {kept} came from what a front keeps"
    for serial in serials[:5]:
        assert by_openssl(site, serial, "-no_nonce") == by_openssl(site, serial) == word_of(*row_of(site, serial))
    for c in askers + lines:
        c.http.close()


def test_replaced_and_many(ocsp_site):
    """Changes that are no revoke_cert: a replacement; and so many at once that none is named to the fronts."""
    site = ocsp_site
    op = site.operator(roles="provisioner,revoker")
    key = Key(mac(next(NUMBERS)))
    old = serial_from(site.issue(op, key)[1])
    many = issue(site, op, 600)
    askers = one_of_each_front(site, lambda: Ocsp(site))
    seen = random.sample(many, 20)
    assert all(a.word(s) == GOOD for a in askers for s in (old, *seen))
    status, pem = site.issue(op, Key(key.name), replace=True)
    assert status == 200
    assert {a.word(old) for a in askers} == {word_of(*row_of(site, old))} and row_of(site, old)[:2] == (REVOKED, 4)
    assert {a.word(serial_from(pem)) for a in askers} == {GOOD}
    answer = post(site, op, {"operation": "revoke_cert", "serials": many, "reason": "cessationOfOperation",
                             "request_id": "many"}, sign=op)
    assert answer.status == 200, answer.message
    for a in askers:
        assert [a.word(s) for s in seen] == [word_of(*row_of(site, s)) for s in seen]
        assert a.word(seen[0])[1] == "cessationOfOperation"
        a.http.close()


def test_a_front_that_is_behind(ocsp_site):
    """A front does not run for a while, until its socket is full: that a certificate was revoked waits for it in the
    authority. When it runs again, and the authority does not, it must not say from what it keeps that all is well."""
    site = ocsp_site
    op = site.operator()
    victim, other = issue(site, op, 2)
    askers, lines = one_of_each_front(site, lambda: Ocsp(site)), one_of_each_front(site, lambda: Line(site, op))
    slow, quick = askers[0], next(line for line in lines if line.front() != askers[0].front())
    assert slow.word(victim) == GOOD
    front, (authority,) = slow.front(), site.roles()["authority"]
    with contextlib.ExitStack() as running:
        running.callback(os.kill, front, signal.SIGCONT)
        os.kill(front, signal.SIGSTOP)
        for i in range(400):
            reason = ("certificateHold", "removeFromCRL")[i % 2]
            assert quick.connection.ask("revoke_cert", serial=other, reason=reason)[0] == 200
        assert quick.connection.ask("revoke_cert", serial=victim, reason="keyCompromise")[0] == 200
        running.callback(os.kill, authority, signal.SIGCONT)
        os.kill(authority, signal.SIGSTOP)
        slow.http.request("POST", "/ocsp", request(slow.issuer, victim), {"Content-Type": "application/ocsp-request"})
        os.kill(front, signal.SIGCONT)
        slow.http.sock.settimeout(1)
        with contextlib.suppress(TimeoutError):
            slow.http.sock.recv(1, socket.MSG_PEEK)
    slow.http.sock.settimeout(PATIENCE)
    answer = Answer(slow.http.getresponse().read(), slow.issuer)
    assert answer.words[victim] == word_of(*row_of(site, victim)) and row_of(site, victim)[:2] == (REVOKED, 1)
    for c in askers + lines:
        c.http.close()


def test_revoked_while_the_token_signs(site):
    """The question was first, the revocation is acknowledged before the answer: the answer knows it."""
    shim = use_shim(site)
    site.start()
    answers_begin(site)
    op = site.operator()
    (serial,) = issue(site, op, 1)
    wait_for(lambda: site.get("/crl")[0] == 200, "the first CRL")
    for reason, state in (("certificateHold", HELD), ("removeFromCRL", ISSUED), ("keyCompromise", REVOKED)):
        shim.order("C_Sign delay 1000")
        before, said = len(shim.calls("C_SignInit")), []
        with Ocsp(site) as c, site.connect(op) as line:
            asking = threading.Thread(target=lambda: said.append(c.word(serial, nonce=os.urandom(16))))
            asking.start()
            wait_for(lambda: len(shim.calls("C_SignInit")) > before, "the token has begun")
            assert line.ask("revoke_cert", serial=serial, reason=reason)[0] == 200
            shim.order()
            asking.join()
        assert said == [word_of(*row_of(site, serial))] and row_of(site, serial)[0] == state


# ---- strangers and the token ----


def nonces_and_random_serials(site, known, stop, seen):
    """A stranger who never stops."""
    with Ocsp(site) as c:
        while not stop.is_set():
            answer = c.ask(known, nonce=os.urandom(16)) if random.random() < 0.5 else c.ask(some_serial())
            seen[answer.status if answer.status != "SUCCESSFUL" else "nonce" if answer.nonce else
                 next(iter(answer.words.values()))[0]] += 1


def issued_within(site, op, seconds, workers=4):
    """How many certificates come in that time, asked for by several at once."""
    end, made = time.monotonic() + seconds, []

    def work():
        with site.connect(op) as c:
            while time.monotonic() < end:
                status, pem = c.issue(Key(mac(next(NUMBERS))))
                assert status == 200, pem
                made.append(pem)
    threads = [threading.Thread(target=work) for _ in range(workers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return len(made)


def test_strangers_do_not_spend_the_token(site):
    """A token that takes 60 ms: issuance is as quick as without the strangers, but for what the budget says."""
    budget, seconds = 2, 4
    shim = use_shim(site)
    site.set("ca_ocsp_budget", budget)
    site.start()
    answers_begin(site)
    op = site.operator()
    (known,) = issue(site, op, 1)
    with Ocsp(site) as c:
        assert c.word(known) == GOOD
    shim.order("C_Sign delay 60")
    alone = issued_within(site, op, seconds)
    stop, seen = threading.Event(), {k: 0 for k in ("good", "unknown", "nonce", "TRY_LATER")}
    strangers = [threading.Thread(target=nonces_and_random_serials, args=(site, known, stop, seen)) for _ in range(6)]
    signatures, began = len(shim.signatures()), time.monotonic()
    for t in strangers:
        t.start()
    beside = issued_within(site, op, seconds)
    stop.set()
    for t in strangers:
        t.join()
    took = time.monotonic() - began
    others = len(shim.signatures()) - signatures - beside
    print(f"{alone} certificates without, {beside} beside strangers who got {seen}; {others} signatures for others")
    assert others <= budget * (took + 1) + 8, "the strangers' answers went beyond the budget"
    assert beside >= 0.6 * alone, (alone, beside)
    # whom the budget had nothing for got what everybody gets, or was told to come later
    assert seen["good"] > seen["nonce"] and seen["TRY_LATER"] > seen["unknown"], seen
    assert seen["nonce"] + seen["unknown"] >= 1, seen


# ---- while the token is away; the clock ----


@contextlib.contextmanager
def token_away(site):
    tokens, away = site.dir / "hsm/tokens", site.dir / "hsm/away"
    tokens.rename(away)
    tokens.mkdir(0o700)
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: site.get("/readyz")[0] == 503, "the token is missed")
    yield
    tokens.rmdir()
    away.rename(tokens)


def advance(site, seconds):
    """So much later, as the keeper accepts it."""
    site.now += seconds
    site.offset(site.now)
    with contextlib.suppress(AssertionError):
        wait_for(lambda: site.get("/readyz")[0] == 503, "the clock is found to be wrong", 3)
    site.accept()


def test_while_the_token_is_away(clock_site):
    """What is kept is given until its nextUpdate, by every front; what is revoked meanwhile is not."""
    site, life = clock_site, 600
    site.set("ca_ocsp_life", life)
    site.start()
    answers_begin(site)
    op = site.operator()
    kept, revoked, other = issue(site, op, 3)
    askers = one_of_each_front(site, lambda: Ocsp(site))
    before = {(a, s): a.ask(s) for a in askers for s in (kept, revoked)}
    with token_away(site), site.connect(op) as line:
        for moment in (0, life * 2 // 3, life - 60):
            site.offset(moment)
            for a in askers:
                assert a.ask(kept).der == before[a, kept].der
                assert a.ask(other).der == TRY_LATER
                assert a.ask(kept, nonce=b"nonce" * 4).der == before[a, kept].der
        assert line.ask("revoke_cert", serial=revoked, reason="keyCompromise")[0] == 200
        assert {a.ask(revoked).der for a in askers} == {TRY_LATER}
        site.offset(life + 5)
        assert {a.ask(kept).der for a in askers} == {TRY_LATER}
        assert "trylater" in by_openssl(site, kept, code=1)
    site.wait_ready()
    for a in askers:
        wait_for(lambda: a.ask(kept).status == "SUCCESSFUL", "answers again")
        assert a.word(kept) == GOOD and a.word(revoked) == word_of(*row_of(site, revoked)) and a.word(other) == GOOD
        a.http.close()


def renewed(site, asker):
    """The end of the responder's certificate, once it is one that is not past half of its life."""
    def end():
        answer = asker.ask(some_serial())  # nobody keeps it
        found = utc(answer.responder.not_valid_after) if answer.status == "SUCCESSFUL" else 0
        return found if found > time.time() + site.now + 3.5 * DAY - 60 else None
    return wait_for(end, "the responder's certificate is renewed")


def test_the_clock_walks(clock_site):
    """Past nextUpdate, past half of the responder's life, past its end, past a certificate's notAfter."""
    site, life = clock_site, 12 * HOUR
    edit(site, profile("device", "+3d"))
    site.now = 0
    site.start()
    answers_begin(site)
    op = site.operator()
    good, held = issue(site, op, 2)
    assert site.ask(op, "revoke_cert", serial=held, reason="certificateHold")[0] == 200
    said, ends, env = word_of(*row_of(site, held)), set(), {"LD_PRELOAD": build_clock(), "SIGNET_TEST_CLOCK": str(site.clock)}
    env["PATH"] = os.environ["PATH"]
    for step in (0, 7 * HOUR, 6 * HOUR, DAY, 2 * DAY, 2 * DAY, 5 * DAY):
        if step:
            advance(site, step)
        with Ocsp(site) as c:
            wait_for(lambda: c.ask(good).status == "SUCCESSFUL", "an answer")
            ends.add(renewed(site, c))
            answers = c.ask(good), c.ask(held)
            assert answers[0].words[good] == GOOD and answers[1].words[held] == said
            for answer in answers:
                now = time.time() + site.now
                end = utc(answer.responder.not_valid_after)
                assert now - life / 2 - 5 <= answer.this_update <= now + 2, "it is renewed at half of its life"
                assert now < answer.next_update <= min(end, answer.this_update + life)
        assert by_openssl(site, good, "-no_nonce", env=env) == GOOD
        assert by_openssl(site, held, env=env) == said
    assert len(ends) >= 3, "the responder's certificate was renewed"
    # without a token there is no new one; beyond its end nothing is said
    with token_away(site):
        advance(site, 8 * DAY)
        with Ocsp(site) as c:
            assert c.ask(good).der == TRY_LATER and c.ask(held, nonce=b"n" * 8).der == TRY_LATER
    site.wait_ready()
    answers_begin(site)
    assert by_openssl(site, held, env=env) == said


def test_a_doubted_clock_signs_no_answer(clock_site):
    """What is kept is still given; nothing new is, until somebody says that the clock is right."""
    site = clock_site
    site.start()
    answers_begin(site)
    op = site.operator()
    kept, other = issue(site, op, 2)
    with Ocsp(site) as c:
        before, front = c.ask(kept).der, c.front()
        site.offset(2 * HOUR)
        wait_for(lambda: site.get("/readyz")[0] == 503, "the clock is found to be wrong")
        assert c.front() == front and c.ask(kept).der == before
        assert c.ask(other).der == TRY_LATER and c.ask(other, nonce=b"n" * 8).der == TRY_LATER
        site.offset(0)
        assert c.ask(other).der == TRY_LATER
        site.accept()
        site.wait_ready()
        assert c.word(other) == GOOD
