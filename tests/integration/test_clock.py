"""The clock, set back and forward by minutes, hours, days and a year, while signetd runs and while it does not: nothing
with a wrong date is signed, nothing else stops, and `signetctl clock accept` brings it back.

What was signed is judged by the true time, which the tests have and signetd does not.
"""

import base64
import calendar
import contextlib
import os
import random
import signal
import sqlite3
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from clock_site import ClockSite
from desk import check_books, code_of, device, edit, events, new_key, nothing_done, post, profile
from load import Load, boards
from signet_site import is_alive, wait_for
from test_desk_rules import HOUR, issue, renew, revoke, serial_from, within_one_hour
from test_nothing_lost import answers, listed, next_crl, number_of, served, under_way
from witness import ISSUING, Witness

FULL = os.environ.get("SIGNET_FULL") == "1"
MINUTE, DAY, YEAR = 60, 86400, 365 * 86400
CRL_LIFE = 7 * DAY
REFUSED = 4  # signetctl's exit code
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
WITHIN = (-4 * MINUTE, -5 * MINUTE + 10, HOUR - 10)  # what a clock may be corrected by
BEYOND = (-5 * MINUTE - 10, -HOUR, HOUR + 10, -DAY, DAY, -YEAR, YEAR)


@pytest.fixture
def site(kit, tmp_path):
    with ClockSite(kit, tmp_path / "site") as s:
        yield s


# ---- what was signed ----


def utc(when):
    return calendar.timegm(when.timetuple())


def check_dates(site, began, least=0, most=0):
    """Each certificate and each CRL that was made since is of the true time, give or take what the clock was off by."""
    least, most = began + least - 2, time.time() + most + 2
    for der, name, made in site.query("SELECT der, profile, created_at FROM certificate WHERE der IS NOT NULL AND id > ?",
                                      site.known):
        begins = utc(x509.load_der_x509_certificate(der).not_valid_before) + 5 * MINUTE  # the profiles' -5m
        assert least <= begins <= most, f"{name}: {begins - began:+.0f} s"
        assert least <= made <= most, name
    for number, begins, ends in site.query("SELECT number, this_update, next_update FROM crl WHERE number > ?",
                                           site.known_crl):
        assert least <= begins <= most and ends == begins + CRL_LIFE, f"CRL {number}: {begins - began:+.0f} s"
    crl = served(site)
    assert least <= utc(crl.last_update) <= most and utc(crl.next_update) - utc(crl.last_update) == CRL_LIFE


def forget_signed(site):
    """What was signed up to now is judged no more; the time from which on it is."""
    ((site.known, site.known_crl),) = site.query("SELECT (SELECT max(id) FROM certificate), (SELECT max(number) FROM crl)")
    return time.time()


def signed(site):
    return site.query("SELECT (SELECT count(*) FROM certificate WHERE der IS NOT NULL), (SELECT max(number) FROM crl)")


def begin(site):
    """(operator, time) of a signetd that has made all that it makes by itself."""
    site.start()
    op = site.operator("op", "provisioner,revoker,admin")
    wait_for(lambda: site.get("/crl")[0] == 200, "the first CRL")
    site.known = site.known_crl = 0
    return op, site.query("SELECT min(at) FROM journal")[0][0]


# ---- how a doubted clock is told, and what goes on ----


def doubted(site):
    wait_for(lambda: site.get("/readyz")[0] == 503, "the clock is found to be wrong")


def word_of(seconds):
    return "behind the last event" if seconds < 0 else "jumped"


def revoked_at(site, serial):
    return site.query("SELECT revoked_at FROM certificate WHERE lower(hex(serial)) = ?", serial)[0][0]


def is_clear(answer, word):
    assert code_of(answer) == (503, "clock_suspect") and int(answer.headers["retry-after"]) >= 1
    assert word in answer.message and "signetctl clock accept" in answer.message, answer.message


def refused_to(site, op, word):
    """Whoever wants something signed, and in each way."""
    with nothing_done(site):
        is_clear(post(site, op, {"operation": "req_client_cert", "csr": new_key().csr}), word)
        is_clear(post(site, site.board, {"operation": "renew_client_cert", "csr": site.board_key.csr}), word)
        name = f"next{random.randrange(1 << 40)}"
        (site.dir / "next.csr").write_bytes(base64.b64decode(new_key().request(name)))
        said = site.ctl("operator", "issue", "--csr", site.dir / "next.csr", "--role", "auditor", "--out",
                        site.dir / f"{name}.crt", code=None)
        assert said.returncode == REFUSED and word in said.stderr and "signetctl clock accept" in said.stderr, said
    assert not (site.dir / f"{name}.crt").exists()


def goes_on(site, op, serial):
    """Lookups, CRL, probes: by TLS and without."""
    assert post(site, op, {"operation": "get_cert", "serial": serial}).json["state"] == "issued"
    assert len(post(site, op, {"operation": "list_certs"}).json["certificates"]) > 1
    assert post(site, None, {"operation": "get_crl"}).status == 200
    assert post(site, None, {"operation": "get_ca_chain"}).status == 200
    assert code_of(post(site, site.board, {"operation": "get_cert", "serial": serial})) == (403, "role_refused")
    assert site.get("/healthz")[0] == 200 and site.get("/ca.cer")[0] == 200


def told(site, op, word):
    status = post(site, op, {"operation": "get_status"}).json
    assert status["ready"] is False and word in status["problem"], status
    said = site.ctl("status", code=REFUSED).stdout
    assert said.startswith("NOT READY: the clock is not trusted") and word in said, said
    assert "set the clock right, then signetctl clock accept" in said
    return status["problem"], said


def suspected(site, op, serial, word):
    """Nothing is signed; a revocation is taken, with the last time that was good, and waits for its CRL."""
    before = signed(site), served(site)
    doubted(site)
    refused_to(site, op, word)
    with nothing_done(site):
        goes_on(site, op, serial)
    told(site, op, word)
    last = site.query("SELECT max(at) FROM journal")[0][0]
    assert revoke(site, op, serial=serial, reason="keyCompromise").status == 200
    at = revoked_at(site, serial)
    assert last <= at <= time.time() + 2, (at - time.time(), "the wrong clock's time")
    waits = f"what was revoked since CRL {number_of(before[1])} is not on it yet"
    wait_for(lambda: all(waits in text for text in told(site, op, word)), "the keeper is told that the CRL waits")
    assert (signed(site), served(site)) == before, "a date was signed"
    return at


def is_listed(site, serial, at):
    entry = site.crl().get_revoked_certificate_by_serial_number(int(serial, 16))
    assert entry and utc(entry.revocation_date) == at


def accepted(site, op):
    site.accept()
    site.wait_ready()
    assert issue(site, op)[0] == 200


def certify(site, op, count):
    """A board of its own, and serials to be revoked."""
    site.board_key = new_key()
    site.board = device(site, "board", issue(site, op, site.board_key)[1], site.board_key)
    return [serial_from(issue(site, op)[1]) for _ in range(count)]


def busy(pid):
    """Seconds of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def calmly(site, seconds=1):
    """Whatever runs in the block: afterwards the processes are the same ones and have next to nothing to do."""
    roles = site.roles()
    yield
    pids = [pid for role, some in roles.items() if role != "publisher" for pid in some] + [site.process.pid]
    before = sum(map(busy, pids))
    time.sleep(seconds)
    assert sum(map(busy, pids)) - before < 0.5 * seconds, "a timer fires madly"
    now = site.roles()
    assert all(now[role] == roles[role] for role in ("authority", "front", "signer"))


# ---- while nothing else happens ----


def test_within_the_limits(site):
    op, began = begin(site)
    for seconds in WITHIN:
        site.offset(seconds)
        time.sleep(1.2)  # it is looked at each second
        assert issue(site, op)[0] == 200, seconds
        check_dates(site, began, min(seconds, 0), max(seconds, 0))
    # what it was ahead by it is now behind: beyond the other limit
    site.offset(0)
    doubted(site)
    site.accept()
    site.wait_ready()
    assert issue(site, op)[0] == 200
    site.check_books()


def test_idle(site):
    op, began = begin(site)
    jumps = BEYOND if FULL else (BEYOND[0], HOUR + 10, -YEAR)
    serials = certify(site, op, len(jumps))
    wait_for(lambda: signed(site)[0][1] >= 1, "a CRL")
    for seconds, serial in zip(jumps, serials):
        site.offset(seconds)
        with calmly(site):
            at = suspected(site, op, serial, word_of(seconds))
        site.offset(0)  # it is right again; but somebody must say so
        assert issue(site, op) == (503, "clock_suspect")
        last = number_of(served(site))
        accepted(site, op)
        is_listed(site, serial, at)
        assert last < number_of(served(site)) <= last + 3
        check_dates(site, began)
    assert len(events(site, "clock-accepted")) == len(jumps)
    check_books(site)
    site.ctl("audit")


# ---- under load ----


def test_under_load(site):
    """Issuance, renewal, replacement and revocation, at the moment of each jump too: asked again, all of it is done."""
    op, began = begin(site)
    witness, jumps, step = Witness(), BEYOND[2:], 40
    mix = {"crl": 5, "renew": 4, "replace": 6, "revoke": 2}
    with Load(site, op, witness, boards(step * (len(jumps) + 1)), 8, mix).start(step) as load:
        for number, seconds in enumerate(jumps, 1):
            wait_for(lambda: load.done > step * number - step // 2 or load.errors, "the load goes on")
            site.offset(seconds)
            doubted(site)
            load.allow(step * (number + 1))
            last = site.query("SELECT max(number) FROM crl")
            time.sleep(0.5)
            assert site.query("SELECT max(number) FROM crl") == last
            site.offset(0)
            site.accept()
        load.join()
    refused = {answer["error"]["code"] for asked in witness.all(*ISSUING, "revoke_cert")
               for _, _, status, answer in asked.attempts if status == 503}
    assert "clock_suspect" in refused <= {"clock_suspect", "busy"}, refused
    witness.check(site, op, saw=("issued", "revoked", "crls"))
    check_dates(site, began)
    site.ctl("audit")


@pytest.mark.parametrize("seconds", (-YEAR, YEAR))
def test_while_the_token_signs(site, seconds):
    """What was begun is finished with the dates that it began with; the deadline is by a clock that nobody sets."""
    op, began = begin(site)
    key, signers = new_key(), site.roles()["signer"]
    with under_way(site, lambda: issue(site, op, key)) as answer:
        site.offset(seconds)
        doubted(site)
        time.sleep(1)
    assert answer[0][0] == 200 and site.roles()["signer"] == signers
    assert issue(site, op, key) == answer[0], "it is there, asked for once more"
    check_dates(site, began)
    site.offset(0)
    accepted(site, op)
    site.check_books([answer[0][1]])


# ---- without a token ----


def test_token_away(site):
    op, began = begin(site)
    jumps = BEYOND[2:] if FULL else (-DAY, YEAR)
    serials = certify(site, op, len(jumps))
    tokens, away = site.dir / "hsm/tokens", site.dir / "hsm/away"
    for seconds, serial in zip(jumps, serials):
        tokens.rename(away)
        tokens.mkdir(0o700)
        for pid in site.roles()["signer"]:
            os.kill(pid, signal.SIGKILL)
        site.wait_ready(503)
        site.offset(seconds)
        wait_for(lambda: word_of(seconds) in post(site, op, {"operation": "get_status"}).json["problem"], "it is told")
        is_clear(post(site, op, {"operation": "req_client_cert", "csr": new_key().csr}), word_of(seconds))
        assert revoke(site, op, serial=serial).status == 200
        number = signed(site)
        tokens.rmdir()
        away.rename(tokens)
        wait_for(lambda: "2 of 2 ready" in site.ctl("status", code=None).stdout, "the token is found again")
        assert issue(site, op) == (503, "clock_suspect") and signed(site) == number
        site.offset(0)
        accepted(site, op)
        is_listed(site, serial, revoked_at(site, serial))
        check_dates(site, began)
    site.check_books()


# ---- across a restart ----


def test_restart(site):
    """The clock is set while signetd does not run; and a restart is not a way around `clock accept`."""
    op, began = begin(site)
    jumps = BEYOND if FULL else (-HOUR, -DAY, YEAR)
    serials = certify(site, op, len(jumps))
    for seconds, serial in zip(jumps, serials):
        site.stop()
        site.offset(seconds)
        site.start(ready=False)
        wait_for(lambda: answers(site, op), "it serves")
        at = suspected(site, op, serial, word_of(seconds))
        (authority,) = site.roles()["authority"]
        os.kill(authority, signal.SIGKILL)
        wait_for(lambda: not is_alive(authority) and answers(site, op), "all anew")
        assert issue(site, op) == (503, "clock_suspect")
        site.stop()
        site.offset(0)  # it is right again
        site.start(ready=False)
        wait_for(lambda: answers(site, op), "it serves")
        before = signed(site)
        assert issue(site, op) == (503, "clock_suspect") and signed(site) == before
        assert "before signetd was restarted" in post(site, op, {"operation": "get_status"}).json["problem"]
        accepted(site, op)
        is_listed(site, serial, at)
        check_dates(site, began)
        site.stop()
        site.start()  # that it was accepted is kept too
        assert issue(site, op)[0] == 200
    site.check_books()
    site.ctl("audit")


def meta(site, **values):
    with contextlib.closing(sqlite3.connect(site.state / "signet.db")) as db, db:
        for name, value in values.items():
            assert db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name)).rowcount == 1


def test_restart_of_the_machine(site):
    """The kernel counts anew: what is left to compare with is the last event, and whether the clock was in doubt."""
    op, _ = begin(site)
    assert issue(site, op)[0] == 200
    site.stop()
    meta(site, clock_boot_id=1, clock_boot=1 << 40, clock_wall=0)
    site.start()
    assert issue(site, op)[0] == 200
    wait_for(lambda: site.query("SELECT value FROM meta WHERE name = 'clock_boot_id'") != [(1,)], "it is compared anew")
    site.offset(YEAR)
    doubted(site)
    wait_for(lambda: site.query("SELECT value FROM meta WHERE name = 'clock_suspect'") == [(1,)], "it is kept")
    site.stop()
    meta(site, clock_boot_id=1)
    site.start(ready=False)
    wait_for(lambda: answers(site, op), "it serves")
    assert issue(site, op) == (503, "clock_suspect")
    site.offset(0)
    accepted(site, op)


@pytest.mark.parametrize("seconds", (-50 * YEAR, 40 * YEAR))
def test_no_clock_at_all(site, seconds):
    """1970, as on a machine whose battery is empty, and beyond the CA's own end: it starts, and says what is wrong."""
    op, began = begin(site)
    (serial,) = certify(site, op, 1)
    site.stop()
    site.offset(seconds)
    site.start(ready=False)
    wait_for(lambda: answers(site, op), "it serves")
    at = suspected(site, op, serial, word_of(seconds))
    site.offset(0)
    accepted(site, op)
    is_listed(site, serial, at)
    check_dates(site, began)
    site.check_books()


# ---- the new time is right ----


def listener(site):
    return x509.load_pem_x509_certificate((site.state / "listener.pem").read_bytes())


def turn(site, seconds):
    """The clock is set, and whoever is at the server says that it is right."""
    site.offset(seconds)
    doubted(site)
    site.accept()


def fits(site, op, seconds, last, most):
    """After clock accept: CRL and listener are of that time, one new one each, and everything works by it."""
    crl = next_crl(site, last)
    true = time.time() + seconds
    assert true - 30 <= utc(crl.last_update) <= true + 2 and utc(crl.next_update) == utc(crl.last_update) + CRL_LIFE
    wait_for(lambda: utc(listener(site).not_valid_before) <= true and utc(listener(site).not_valid_after) > true + 3 * DAY,
             "a listener of that time")
    wait_for(lambda: answers(site, op), "TLS works")
    site.wait_ready()
    status, pem = issue(site, op)
    assert status == 200
    assert true - 2 <= utc(x509.load_pem_x509_certificate(pem).not_valid_before) + 5 * MINUTE <= time.time() + seconds + 2
    with calmly(site):
        pass
    assert number_of(served(site)) - last <= most, "a CRL after the other"
    headers = cache_of(site)
    assert 0 < headers <= CRL_LIFE
    started = post(site, op, {"operation": "get_status"}).json["started_at"]
    up = true - utc(datetime.strptime(started, "%Y-%m-%dT%H:%M:%SZ"))
    assert 0 <= up + 60 <= 660, "up since then, by the new time"
    return crl


def cache_of(site):
    with urllib.request.urlopen(f"http://127.0.0.1:{site.http_port}/crl") as r:
        return int(r.headers["Cache-Control"].split("max-age=")[1])


@pytest.mark.parametrize("ahead", (HOUR + MINUTE, DAY, 300 * DAY))
def test_accepted_ahead_and_back(site, ahead):
    edit(site, profile("device", "+100d", called="short"))
    op, _ = begin(site)
    serial = serial_from(issue(site, op, profile="short")[1])
    key = new_key()
    first = post(site, op, {"operation": "req_client_cert", "csr": key.csr, "request_id": "once"})
    assert first.status == 200
    assert revoke(site, op, serial=serial, reason="keyCompromise").status == 200
    site.crl()
    turn(site, ahead)
    if ahead > CRL_LIFE:
        site.verify_flags = NO_CHECK_TIME  # the client's own clock is right
        crl = fits(site, op, ahead, number_of(served(site)), 2)
    else:
        site.wait_ready()
        last = number_of(served(site))
        assert revoke(site, op, serial=serial_from(issue(site, op)[1])).status == 200
        crl = fits(site, op, ahead, last, 2)
    again = post(site, op, {"operation": "req_client_cert", "csr": key.csr, "request_id": "once"})
    assert (again.status, again.body) == (200, first.body)
    turn(site, 0)
    site.verify_flags = 0
    crl = fits(site, op, 0, number_of(crl), 2)
    assert serial in listed(crl), "it has 100 days left"
    assert post(site, op, {"operation": "req_client_cert", "csr": key.csr, "request_id": "once"}).body == first.body
    site.stop()
    site.start()  # the last event is of today, whatever came before it
    assert issue(site, op)[0] == 200
    check_books(site)
    site.ctl("audit")


def test_accepted_behind_and_back(site):
    """Somebody said so. Operators' certificates are not valid yet; what is signed is of that time, until it is set right."""
    op, began = begin(site)
    assert issue(site, op)[0] == 200
    last = number_of(served(site))
    turn(site, -DAY)
    assert issue(site, op) == (401, "certificate_expired")
    crl = next_crl(site, last)
    assert began - DAY - 2 <= utc(crl.last_update) <= time.time() - DAY + 2
    with calmly(site):
        pass
    assert number_of(served(site)) <= last + 2
    turn(site, 0)
    site.wait_ready()
    began = forget_signed(site)
    assert revoke(site, op, serial=serial_from(issue(site, op)[1])).status == 200
    assert number_of(site.crl()) > number_of(crl)
    check_dates(site, began)
    wait_for(lambda: answers(site, op), "TLS works")
    site.check_books()
    site.ctl("audit")


def test_cache_of_a_clock_behind(site):
    """No verifier is told to keep a CRL for a year; and it does not get the older one for the newer's date."""
    op, _ = begin(site)
    for seconds in (-YEAR, YEAR):
        site.offset(seconds)
        doubted(site)
        assert 0 <= cache_of(site) <= CRL_LIFE
        site.offset(0)
        accepted(site, op)
    ask = urllib.request.Request(f"http://127.0.0.1:{site.http_port}/crl")
    ask.add_header("If-Modified-Since", (datetime.utcnow() + timedelta(days=30)).strftime("%a, %d %b %Y %H:%M:%S GMT"))
    with urllib.request.urlopen(ask) as r:
        assert r.status == 200


# ---- caps ----


def test_caps_of_the_next_hour(site):
    edit(site, "[caps]\noperator_certificates_hour = 2\noperator_certificates_day = 3\n")
    within_one_hour()
    site.start()
    op = site.operator()
    assert [issue(site, op)[0] for _ in range(3)] == [200, 200, 429]
    for hours, expected in ((2, [200, 429]), (20, [429]), (26, [200, 200, 429])):
        turn(site, hours * HOUR)
        site.wait_ready()
        assert [issue(site, op)[0] for _ in expected] == expected, hours


def test_caps_after_a_clock_that_was_ahead(site):
    """What was issued in days to come does not count until then."""
    edit(site, "[caps]\noperator_certificates_day = 2\n")
    site.start()
    op = site.operator()
    turn(site, 60 * HOUR)
    site.wait_ready()
    assert [issue(site, op)[0] for _ in range(3)] == [200, 200, 429]
    turn(site, 0)
    site.wait_ready()
    assert [issue(site, op)[0] for _ in range(3)] == [200, 200, 429]


def test_accept_is_journaled(site):
    op, _ = begin(site)
    site.offset(DAY)
    doubted(site)
    at = site.query("SELECT max(at) FROM journal")[0][0]
    site.accept()
    (event,) = events(site, "clock-accepted")
    assert at <= int(event.split("last=")[1]) <= time.time() + 2
    assert abs(site.query("SELECT max(at) FROM journal WHERE line LIKE '% clock-accepted %'")[0][0]
               - time.time() - DAY) < 60
    site.check_journal()
