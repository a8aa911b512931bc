"""kill -9 before each write, sync, rename and message of one operation: afterwards the same request has one answer, the
books agree, and what was acknowledged is there.

A few points chosen at random (the seed is printed), or each one with SIGNET_FULL=1. The token's own writes are left
out: SoftHSM, killed within a login, loses its token."""

import base64
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import ssl
import time
from collections import Counter

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from crash_points import (NAMING, SYNCING, WRITING, arm, attached, bin_with, let_go, points_of, run_traced,
                          strace, was_hit)
from desk import device, new_key, post, text_of
from signet_site import (BIN, HELD, INTENT, ISSUED, PATIENCE, REVOKED, Key, Site, mac, run, serial_of, tool_environment,
                         wait_for)
from witness import LOST, Witness

FULL = os.environ.get("SIGNET_FULL") == "1"
SEED = int(os.environ.get("SIGNET_SEED", random.randrange(1 << 32)))
TEMPORARY = re.compile(r"\.(?:tmp-)?(?!replaced)[A-Za-z0-9]{6}$")  # of file_write() and mkstemp()


def a_few(points, count):
    """Some of them, or all."""
    return points if FULL else sorted(random.Random(f"{SEED} {points}").sample(points, min(count, len(points))))


# ---- signetd, at rest ----

@pytest.fixture
def small(kit, tmp_path):
    """One signer and one front: it starts in a tenth of a second."""
    with Site(kit, tmp_path / "site", token_signers=1, server_fronts=1) as s:
        yield s


def at_rest(site, meanwhile=None):
    """All that was committed is in the files, and on the CRL what belongs there; the signer is at work."""
    def done():
        if meanwhile:
            meanwhile()
        if site.get("/readyz")[0] != 200:
            return None
        (last,) = site.query("SELECT max(seq) FROM journal")[0]
        projected = site.query("SELECT value FROM meta WHERE name = 'projected'") or [(0,)]
        (revoked,) = site.query("SELECT coalesce(max(seq), 0) FROM journal WHERE line LIKE '% revoked serial=%' OR "
                                "line LIKE '% orphan serial=%' OR line LIKE '% held serial=%' OR "
                                "line LIKE '% unheld serial=%'")[0]
        crl = site.query("SELECT journal_seq, sha256 IS NOT NULL FROM crl ORDER BY number DESC LIMIT 1")
        return (projected == [(last,)] and crl and crl[0][1] == 1 and crl[0][0] >= revoked and
                "1 of 1 ready" in site.ctl("status", code=None).stdout) or None
    wait_for(done, lambda: "nothing more to do\n" + site.log()[-3000:])


def start(site):
    site.start()
    at_rest(site)


class Lost(Exception):
    """No answer came."""


def ask(r, who, operation, **fields):
    try:
        with r.site.connect(who) as c:
            return r.witness.ask(c, operation, **fields)
    except LOST as e:
        raise Lost(repr(e)) from e


def until_answered(once):
    """once() again and again as a client would: [every answer that came], the last one asked for once more."""
    end, answers = time.monotonic() + PATIENCE, []
    while len(answers) < 2:
        with contextlib.suppress(Lost):
            status, answer = once()
            assert status in (200, 503), (status, answer)
            if status == 200:
                answers.append(answer)
                continue
        assert time.monotonic() < end, "no answer comes"
        time.sleep(0.02)
    return answers


# ---- the authority's operations: prepare(run) → once(), and what holds afterwards ----

class Run:
    """What the operations share on one site."""

    def __init__(self, site):
        self.site, self.witness, self.number = site, Witness(), 0
        self.op, self.boss = site.operator("maker"), site.operator("boss", "admin,revoker")

    def name(self):
        self.number += 1
        return f"{self.number}-{os.urandom(3).hex()}"

    def certified(self, key=None):
        status, answer = ask(self, self.op, "req_client_cert", csr=(key or new_key()).csr)
        assert status == 200, answer
        return answer["serial"], base64.b64decode(answer["certificate"])

    def states(self, name):
        return Counter(state for (state,) in self.site.query("SELECT state FROM certificate WHERE name = ?", name))


def issuance(r):
    key = new_key()

    def check(answers):
        assert r.site.query("SELECT lower(hex(serial)) FROM certificate WHERE name = ? AND state = 1", key.name) == \
            [(answers[-1]["serial"],)]
    return lambda: ask(r, r.op, "req_client_cert", csr=key.csr), check


def replacement(r):
    old = new_key()
    (before, _), key = r.certified(old), Key(old.name)

    def check(answers):
        assert r.states(old.name)[ISSUED] == 1 and r.states(old.name)[INTENT] == 0
        assert answers[-1]["serial"] != before
        assert r.site.query("SELECT state, reason FROM certificate WHERE lower(hex(serial)) = ?", before) == \
            [(REVOKED, 4)]
    return lambda: ask(r, r.op, "req_client_cert", csr=key.csr, replace=True), check


def renewal(r):
    key = new_key()
    _, pem = r.certified(key)
    board = device(r.site, r.name(), pem, key)

    def check(answers):
        assert r.states(key.name)[ISSUED] == 2  # the older one until it ends
    return lambda: ask(r, board, "renew_client_cert", csr=key.csr), check


def change(reason, state, first=None):
    def prepare(r):
        (serial, _), request_id = r.certified(), r.name()
        if first:
            assert ask(r, r.op, "revoke_cert", serial=serial, reason=first)[0] == 200

        def check(answers):
            assert answers[0] == answers[-1] and answers[0]["serial"] == serial, answers
            assert r.site.query("SELECT state FROM certificate WHERE lower(hex(serial)) = ?", serial) == [(state,)]
        return lambda: ask(r, r.op, "revoke_cert", serial=serial, reason=reason, request_id=request_id), check
    return prepare


def bulk_revocation(r):
    maker = r.site.operator("many" + r.name())
    for _ in range(3):
        assert r.site.issue(maker, new_key())[0] == 200
    body = text_of(operation="revoke_cert", issued_by=maker.name, reason="keyCompromise", request_id=r.name())

    def once():
        try:
            answer = post(r.site, r.boss, body, r.boss)
        except OSError as e:
            raise Lost(repr(e)) from e
        if not answer:
            raise Lost("closed")
        return answer.status, answer.json

    def check(answers):
        assert [a["count"] for a in answers] == [3] * len(answers), answers
    return once, check


def by_ctl(r, *args):
    done = r.site.ctl("--json", *args, code=None)
    if done.returncode == 3:
        raise Lost(done.stderr)
    said = json.loads(done.stdout)
    return (200, said) if done.returncode == 0 else (503 if said["error"]["code"] == "busy" or "again" in str(said)
                                                     else done.returncode, said)


def operator_issue(r):
    key = Key(r.name())
    csr = r.site.dir / f"{key.name}.csr"
    csr.write_bytes(base64.b64decode(key.csr))

    def check(answers):
        assert len({a["serial"] for a in answers}) == 1, answers
        assert r.states(key.name)[ISSUED] == 1
    return lambda: by_ctl(r, "operator", "issue", "--csr", csr, "--role", "provisioner"), check


def crl(r):
    (before,) = r.site.query("SELECT max(number) FROM crl WHERE sha256 IS NOT NULL")[0]

    def check(answers):
        assert all(a["crl_number"] > before for a in answers), answers
    return lambda: by_ctl(r, "crl", "rebuild"), check


def listener(r):
    name = f"h{r.name()}.example"
    r.site.set("server_names", f"{name}, 127.0.0.1")
    first = []

    def once():
        if not first:
            first.append(r.site.process.send_signal(signal.SIGHUP))
        try:
            found = x509.load_pem_x509_certificate(
                ssl.get_server_certificate(("127.0.0.1", r.site.port), timeout=5).encode())
        except OSError as e:
            raise Lost(repr(e)) from e
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (200, serial_of(found)) if name in names.get_values_for_type(x509.DNSName) else (503, "not yet")

    def check(answers):
        assert len(set(answers)) == 1, answers
        assert key_fits(r.site.state / "listener-key.pem", r.site.state / "listener.pem") == answers[-1]
    return once, check


OPERATIONS = {
    "issuance": issuance, "replacement": replacement, "renewal": renewal, "revocation": change("superseded", REVOKED),
    "hold": change("certificateHold", HELD), "unhold": change("removeFromCRL", ISSUED, "certificateHold"),
    "bulk": bulk_revocation, "operator": operator_issue, "crl": crl, "listener": listener,
}


def key_fits(key, certificate):
    """The serial of that certificate, whose key must be that one."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert private.public_key().public_numbers() == found.public_key().public_numbers(), certificate
    return serial_of(found)


def check_state(r):
    """Store, journal, files and CRL agree, with all that was received; nothing is left lying about."""
    r.witness.crl(r.site)
    r.witness.check(r.site, saw=())
    assert [path.name for path in r.site.state.iterdir() if TEMPORARY.search(path.name)] == []
    key_fits(r.site.state / "listener-key.pem", r.site.state / "listener.pem")


def one_run(r, operation, *point):
    """The operation with the authority killed at that point: was it?"""
    site, trace = r.site, r.site.dir / "trace"
    trace.unlink(missing_ok=True)
    once, check = OPERATIONS[operation](r)
    at_rest(site)
    with attached(site.roles()["authority"][0], strace(trace, *point)) as tracer:
        answers = until_answered(once)
        # a child of the authority is killed once, not each that takes its place
        at_rest(site, lambda: was_hit(trace) and tracer.terminate())
    answers += until_answered(once)
    check(answers)
    at_rest(site)
    check_state(r)
    return was_hit(trace)


def each_point(one, points, what):
    """one(point) for the chosen ones: a point that must be there must be hit."""
    hit = 0
    for point in points:
        try:
            hit += one(*point)
        except BaseException as e:
            raise AssertionError(f"{what}, killed at {point}, seed {SEED}: {e}") from e
    print(f"{what}: {len(points)} runs, {hit} kills (seed {SEED})")
    return hit


# A sync of the files is done by a child of the authority: it is killed at these.
IN_CHILD = [("fdatasync", 1, "journal.log")]


@pytest.mark.parametrize("operation", OPERATIONS if FULL else random.Random(SEED).sample(list(OPERATIONS), 3))
def test_authority(small, operation):
    start(small)
    r = Run(small)

    def one(call=None, n=0, path=None):
        hit = one_run(r, operation, call, n, path and small.state / path)
        small.stop()  # signetd starts an authority that dies again and again ever later
        start(small)
        return hit
    assert not one()
    points = points_of(small.dir / "trace")
    assert {"pwrite64", "fdatasync", "sendmsg"} <= {call for call, _ in points}, points
    each_point(one, a_few(points, 2) + IN_CHILD, operation)
    if FULL:  # beyond those of that run, until nothing is hit
        for call, most in sorted(dict(points).items()):
            n = most + 1
            while each_point(one, [(call, n)], f"{operation}, beyond"):
                n += 1


# ---- the publisher ----

def whole_crl(site, der):
    """The number of a CRL that the CA signed."""
    found = x509.load_der_x509_crl(der)
    ca = x509.load_pem_x509_certificate((site.state / "intermediate.pem").read_bytes())
    assert found.is_signature_valid(ca.public_key())
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_publisher(small):
    """What is published is whole at every moment, and its number only rises; signetd has the next one made."""
    site = small
    bin_with(site, "publisher")
    start(site)
    r, trace, shown = Run(site), site.dir / "trace", [0]

    def look():
        status, served = site.get("/crl")
        shown.append(whole_crl(site, (site.state / "crl.der").read_bytes()))
        assert status == 200 and shown[-2] <= shown[-1] >= whole_crl(site, served)

    def one(*point):
        trace.unlink(missing_ok=True)
        serial, _ = r.certified()
        at_rest(site)
        arm(site, strace(trace, *point))
        until_answered(lambda: ask(r, r.op, "revoke_cert", serial=serial, reason="superseded"))
        at_rest(site, look)
        check_state(r)
        return was_hit(trace)
    assert not one()
    points = points_of(trace)
    assert {("fsync", 2), ("rename", 1)} <= set(points) or ("renameat", 1) in points, points
    hit = each_point(one, a_few(points, 2), "publisher")
    assert hit == len(a_few(points, 2))  # nothing in it is a matter of chance
    assert not one() and list(site.state.glob("*.tmp")) == []  # the next one has taken away what one left


# ---- the first start ----

def test_first_start(kit, tmp_path):
    """The authority, then the supervisor, killed while a state is made: the next start makes it whole."""
    def one(role, *point):
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        with Site(kit, tmp_path / "site", token_signers=1, server_fronts=1) as site:
            trace = site.dir / "trace"
            if role == "authority":
                bin_with(site, role)
                arm(site, strace(trace, *point, follow=False))
                site.process = site.spawn()
            else:
                site.process = site.spawn(under=[*strace(trace, *point, follow=False), "-D"])
            wait_for(lambda: not site.running() or trace.exists() and (was_hit(trace) or is_served(site)), "an end")
            hit = was_hit(trace)
            if hit:
                wait_for(lambda: not site.running() or is_served(site), "signetd starts or ends")
            if not site.running():  # a signer may have been within its login
                shutil.rmtree(site.dir / "hsm/tokens")
                shutil.copytree(kit.dir / "hsm/tokens", site.dir / "hsm/tokens")
                site.start(ready=False)
            at_rest(site)
            let_go(site.process.pid if role == "signetd" else site.roles()["authority"][0])
            shutil.copy(trace, tmp_path / "trace")
            r = Run(site)
            r.certified()
            at_rest(site)
            check_state(r)
        return hit
    for role in ("authority", "signetd"):
        assert not one(role)
        points = points_of(tmp_path / "trace")
        each_point(lambda *point: one(role, *point), a_few(points, 2), f"first start, {role}")


def is_served(site):
    return site.get("/readyz")[0] == 200 and site.get("/crl")[0] == 200


# ---- the client ----

FILES = {"device.key", "device.csr", "device.crt", "chain.pem", "ca.pem"}
OURS = (*WRITING, *SYNCING, *NAMING, "sendto")


def tree(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("way", ["provision", "replace", "renew", "new key"])
def test_client(small, way):
    """The same command again goes on with it; of what was certified nothing is lost."""
    site = small
    site.start()
    site.client(roles="provisioner,revoker")
    numbers, trace = iter(range(1, 10000)), site.dir / "trace"

    def command(name, out, *more):
        what = {"replace": "provision", "new key": "renew"}.get(way, way)
        return [BIN / "signet", what, "--config", site.dir / "client/signet.conf", "--mac", name, "--out", out, *more]

    def one(*point):
        number = next(numbers)
        name, out = mac(number), site.dir / f"out{number}"
        board = out / name.replace(":", "")
        if way != "provision":
            site.signet("provision", "--mac", name, "--out", out, "--key-type", "ec:p256")
        more = {"provision": ["--key-type", "ec:p256"], "replace": ["--replace", "--key-type", "ec:p256"], "renew": [],
                "new key": ["--new-key"]}[way]
        code, said = run_traced(command(name, out, *more), trace, *point, cwd=site.dir)
        hit = was_hit(trace)
        assert hit or code == 0, said
        if hit:
            again = run(*command(name, out, *more), code=None, cwd=site.dir, env=tool_environment())
            finished = way == "provision" and board.exists() and again.returncode == 5
            assert again.returncode == 0 or (finished and "already" in again.stderr), again
        check_boards(name, out, board)
        return hit

    def check_boards(name, out, board):
        serial = key_fits(board / "device.key", board / "device.crt")
        certified = dict(site.query("SELECT lower(hex(serial)), state FROM certificate WHERE name = ?", name))
        assert certified[serial] == ISSUED
        live = [s for s, state in certified.items() if state == ISSUED]
        kept = {serial_of(x509.load_pem_x509_certificate(path.read_bytes())) for path in out.rglob("device.crt*")}
        assert kept == set(certified)  # each one that there ever was is here
        assert way in ("renew", "new key") or live == [serial]
        left = [entry for entry in tree(out) if "pending" in entry or TEMPORARY.search(entry)]
        assert left == [], left
        assert {path.name for path in board.iterdir()} >= FILES
    assert not one()
    each_point(one, a_few(points_of(trace, OURS), 3), f"signet, {way}")


# ---- backup and restore ----

PARTS = {"signet.db", "intermediate.pem", "ca-chain.pem", "root-crl.der", "crl.der", "signet.conf", "backup.txt",
         "SHA256SUMS"}


def contents(path):
    """Of a database that must be sound: its certificates and its journal."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return (db.execute("SELECT lower(hex(serial)), state, der FROM certificate ORDER BY id").fetchall(),
                [line for (line,) in db.execute("SELECT line FROM journal ORDER BY seq")],
                db.execute("SELECT max(number) FROM crl").fetchone()[0])


def test_backup_and_restore(small):
    """A backup, or a restored state, is there whole or it is not there; and the same command again makes it."""
    site = small
    start(site)
    r, trace = Run(site), site.dir / "trace"
    for _ in range(5):
        r.certified()
    revoked, _ = r.certified()
    assert ask(r, r.op, "revoke_cert", serial=revoked, reason="superseded")[0] == 200
    at_rest(site)
    site.stop()
    expected, crl_file = contents(site.state / "signet.db"), site.state / "crl.der"
    numbers = iter(range(10000))
    ctl = [BIN / "signetctl", "--config", site.conf]

    def restore_into(source, state):
        return [*ctl, "restore", "--from", source, "--crl", crl_file, "--state", state]

    def backup(*point):
        out = site.dir / f"backup{next(numbers)}"
        code, said = run_traced([*ctl, "backup", "--out", out], trace, *point)
        hit = was_hit(trace)
        assert hit or code == 0, said
        for found in site.dir.glob(out.name + "*"):  # under whatever name: who restores from it gets all, or a refusal
            state = site.dir / "state.tried"
            shutil.rmtree(state, ignore_errors=True)
            done = run(*restore_into(found, state), code=None, env=tool_environment())
            assert done.returncode == 5 or (contents(state / "signet.db")[0] == expected[0] and
                                            {path.name for path in found.iterdir()} >= PARTS), (done, tree(found))
            assert found != out or done.returncode == 0, done
        if hit and not out.exists():
            run(*ctl, "backup", "--out", out, env=tool_environment())
        assert contents(out / "signet.db") == expected
        return hit
    assert not backup()
    whole = next(path for path in site.dir.iterdir() if path.name.startswith("backup"))
    each_point(backup, a_few(points_of(trace), 3), "backup")

    conf = site.conf.read_text()

    def restore(*point):
        state = site.dir / f"restored{next(numbers)}"
        code, said = run_traced(restore_into(whole, state), trace, *point)
        hit = was_hit(trace)
        assert hit or code == 0, said
        if (state / "restore.tmp").exists() and not (state / "signet.db").exists():  # nobody starts on a half one
            site.conf.write_text(conf.replace(f"{site.state}\n", f"{state}\n"))
            code, said = site.run_to_end()
            site.conf.write_text(conf)
            assert code == 1 and "restore" in said and not (state / "signet.db").exists(), said
        if hit:
            was_there = (state / "signet.db").exists()
            done = run(*restore_into(whole, state), code=None, env=tool_environment())
            assert done.returncode == (5 if was_there else 0), done
        certificates, journal, number = contents(state / "signet.db")
        assert certificates == expected[0] and journal[:-1] == expected[1] and " restored " in journal[-1]
        assert number > expected[2] + 1000
        assert {path.name for path in state.iterdir()} >= {"intermediate.pem", "ca-chain.pem", "root-crl.der"}
        assert not (state / "restore.tmp").exists() or was_there
        return hit
    assert not restore()
    each_point(restore, a_few(points_of(trace), 3), "restore")


def test_start_beside_a_restore_that_did_not_end(small):
    site = small
    (site.state / "restore.tmp").mkdir()
    code, said = site.run_to_end()
    assert code == 1 and "run it again" in said and not (site.state / "signet.db").exists(), said


def test_what_was_half_written_is_swept(small):
    site = small
    (site.state / "listener-key.pem.tmp-a1B2c3").write_text("half a key")
    (site.state / "listener-key.pem.backup").write_text("somebody's own")
    start(site)
    site.client()
    site.signet("provision", "--mac", mac(1), "--out", site.dir, "--key-type", "ec:p256")
    board = site.dir / mac(1).replace(":", "")
    (board / "renewal.pending").mkdir()
    (board / "renewal.pending/device.key.tmp-a1B2c3").write_text("half a key")
    site.signet("renew", board)
    assert not (board / "renewal.pending").exists() and not (site.state / "listener-key.pem.tmp-a1B2c3").exists()
    assert (site.state / "listener-key.pem.backup").exists()
