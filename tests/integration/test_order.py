"""What is durable before what: the system calls, as strace sees them. A kill shows nothing of it, because what a dead
process has written is still in the kernel's cache.

Each has its control: the same with less synced (sync_shim.c), where the oracle must find each kind of answer wrong."""

import base64
import contextlib
import os
import shutil
import sqlite3
import subprocess

import pytest

from crash_points import arm, bin_with, let_go
from desk import device, post, text_of
from order_oracle import Trace, check_authority, check_folder, command, events_of, record_of
from signet_site import BIN, REPO, Key, at_once, mac, run, tool_environment, wait_for
from test_desk_refusals import server_csr

CONNECTIONS = 16
ALLOWED = "\n[profile server]\noperations = req_server_cert\nroles = admin\nkeys = rsa:2048-4096, ec:p256, ec:p384\n" \
          "name = hostname\nsubject = CN={name}\nnot_before = -5m\nnot_after = +90d\nbasicConstraints = critical, " \
          "CA:FALSE\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\nsubjectAltName = {names}\n" \
          "allowed_names = .example.com\n"


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    made = tmp_path_factory.mktemp("shim") / "sync_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O1", "-o", made,
                    REPO / "tests/integration/sync_shim.c", "-ldl"], check=True, timeout=60)
    return made


def less_synced(shim, *endings, synchronous=None):
    """The environment in which less is synced."""
    env = {"LD_PRELOAD": str(shim), "SIGNET_TEST_UNSYNCED": "".join(end + ":" for end in endings)}
    if synchronous:
        env["SIGNET_TEST_SYNCHRONOUS"] = synchronous
    if "ASAN_OPTIONS" in os.environ:
        env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
    return env


# ---- the authority ----

def ask(c, operation, **fields):
    status, answer = c.ask(operation, **fields)
    assert status == 200, answer
    return answer.get("serial"), answer


def one_client(site, op, number):
    """Everything that a connection can have acknowledged."""
    key = Key(mac(number))
    with site.connect(op) as c:
        first, answer = ask(c, "req_client_cert", csr=key.csr)
        board = device(site, f"d{number}", base64.b64decode(answer["certificate"]), key)
        with site.connect(board) as d:
            renewed, _ = ask(d, "renew_client_cert", csr=key.csr)
        for reason in ("certificateHold", "removeFromCRL", "superseded"):
            ask(c, "revoke_cert", serial=renewed, reason=reason)
        ask(c, "req_client_cert", csr=Key(mac(number)).csr, replace=True)


def trace_authority(site):
    """16 connections at once, and the server's own administration."""
    with open(site.conf, "a") as f:
        f.write(ALLOWED)
    site.start()
    op, boss, leaver = site.operator(), site.operator("boss", "admin,revoker"), site.operator("leaver")
    wait_for(lambda: site.get("/crl")[0] == 200, "the first CRL")
    keys = [Key(mac(1000 + i)) for i in range(4)]
    for key in keys:
        assert site.issue(leaver, key)[0] == 200
    server = text_of(operation="req_server_cert", csr=server_csr(site, "mqtt.example.com"), request_id="server")
    bulk = text_of(operation="revoke_cert", issued_by="leaver", reason="keyCompromise", request_id="bulk")
    trace = Trace(site.dir, site.roles()["authority"][0])

    def work(i):
        if i < CONNECTIONS:
            one_client(site, op, i)
            return
        for body in (server, bulk):
            assert post(site, boss, body, boss).status == 200
        site.operator("late")
        site.ctl("clock", "accept")
        site.ctl("operator", "revoke", "--name", "leaver")
    at_once(CONNECTIONS + 1, work)
    return trace.stop()


EXPECTED = {"sign": 3 * CONNECTIONS + 2, "issue": 2 * CONNECTIONS, "renew": CONNECTIONS, "revoke": 3 * CONNECTIONS,
            "signed_request": 2, "admin_operator_issue": 1, "admin_operator_revoke": 1, "admin_clock_accept": 1}


def test_durable_before_the_token_and_before_the_answer(site):
    counts, wrong, log = check_authority(trace_authority(site))
    assert counts == EXPECTED and not wrong, dict(wrong)
    print(f"{sum(counts.values())} messages, {len(log.syncs)} syncs, {len(log.writes)} writes")
    assert len(log.syncs) < sum(counts.values())  # several to a commit


def test_control_without_sync_of_each_commit(site, shim):
    site.env = less_synced(shim, synchronous="NORMAL")
    counts, wrong, _ = check_authority(trace_authority(site))
    assert counts == EXPECTED and set(wrong) == set(EXPECTED), {kind: len(found) for kind, found in wrong.items()}


# ---- a CRL: the file, its name, the record of it; then it is served ----

def is_done(e):
    return e.call == "sendmsg" and (record_of(e) or [None])[0] == "crl_done"


def trace_crl(site):
    site.start()
    wait_for(lambda: site.get("/crl")[0] == 200, "the first CRL")
    trace = Trace(site.dir, site.process.pid, site.roles()["authority"][0], follow=True)
    site.ctl("crl", "rebuild")
    return trace.stop()


def check_crl(site, events):
    """{class: what is wrong}"""
    publisher = next(e.pid for e in events if e.names and e.names[-1] == str(site.state / "crl.der"))
    own = [e for e in events if e.pid == publisher and "crl.tbs.tmp" not in "".join((e.target, *e.names))]
    counts, wrong = check_folder(own, site.state, {"done": is_done})
    assert counts == {"done": 1}
    _, _, log = check_authority(events)
    served = next(at for at, e in enumerate(events) if e.call == "sendmsg" and e.pid != publisher and
                  (record_of(e) or [None, 0, {}])[2].get("path") == "/crl")
    done = next(at for at, e in enumerate(events) if is_done(e))
    recorded = [at for line, at in log.first.items() if line.startswith(" crl number=") and at > done]
    if not recorded or not log.is_durable(min(recorded), served):
        wrong["served"].append((recorded, served))
    return dict(wrong)


def test_crl_is_durable_before_it_is_served(site):
    assert check_crl(site, trace_crl(site)) == {}


@pytest.mark.parametrize("less, found", [
    ({"endings": ("/crl.der.tmp",)}, {"name", "done"}), ({"endings": ("/state",)}, {"done"}),
    ({"endings": (), "synchronous": "NORMAL"}, {"served"})], ids=["file", "folder", "record"])
def test_control_crl(site, shim, less, found):
    site.env = less_synced(shim, *less["endings"], synchronous=less.get("synchronous"))
    wrong = check_crl(site, trace_crl(site))
    assert set(wrong) == found, wrong


# ---- the files: they have their names before the store says that they are written ----

def trace_files(site):
    """A start where the store is there, with its log as a crash leaves it (with a new one SQLite syncs the folder), but
    not the files."""
    site.start()
    site.operator()
    site.stop()
    (site.state / "journal.log").unlink()
    shutil.rmtree(site.state / "certs")
    with contextlib.closing(sqlite3.connect(site.state / "signet.db")) as db, db:
        db.execute("UPDATE meta SET value = 0 WHERE name = 'projected'")
        db.commit()
        shutil.copytree(site.state, site.dir / "crashed", ignore=shutil.ignore_patterns("*.sock"))
    shutil.rmtree(site.state)
    (site.dir / "crashed").rename(site.state)
    bin_with(site, "authority")
    arm(site, command(site.dir / "strace", follow=True))
    site.start()
    wait_for(lambda: site.query("SELECT value FROM meta WHERE name = 'projected' AND value > 0") or None, "files")
    let_go(site.roles()["authority"][0])
    return events_of(site.dir / "strace", str(site.dir))


def check_files(site, events):
    """What of journal.log and certs is open when the store says that they are there."""
    own = [e for e in events if e.target.endswith("/signet.db-wal") or
           not any(word in name for word in ("signet.db", "listener", "crl.") for name in (e.target, *e.names))]
    counts, wrong = check_folder(own, site.state, {
        "said": lambda e: e.target.endswith("/signet.db-wal") and b"projected" in e.data})
    assert counts["said"] > 0
    return [[path for path in paths if not path.endswith("-wal")] for paths in wrong["said"]][:1]


def test_files_are_durable_before_the_store_says_so(site):
    assert check_files(site, trace_files(site)) in ([], [[]])


def test_control_files(site, shim):
    site.env = less_synced(shim, "/state", "/journal.log", ".pem", "/certs")
    ((first,)) = check_files(site, trace_files(site))
    assert {f"{site.state}", f"{site.state}/journal.log", f"{site.state}/certs"} <= set(first), first


# ---- the client ----

WAYS = {"provision": ["provision", "--key-type", "ec:p256"], "renew": ["renew"], "new key": ["renew", "--new-key"],
        "replace": ["provision", "--replace", "--key-type", "ec:p256"]}
MOMENTS = {"sent": lambda e: e.call in ("sendto", "sendmsg", "write") and e.target.startswith(("socket:", "TCP")),
           "said": lambda e: e.call == "write" and b" has its " in e.data}


def trace_client(site, way, number, env):
    words = [BIN / "signet", *WAYS[way], "--config", site.dir / "client/signet.conf", "--mac", mac(number), "--out",
             site.dir / "boards"]
    env = {**tool_environment(), **env}
    if "ASAN_OPTIONS" in env:
        env["ASAN_OPTIONS"] = env["ASAN_OPTIONS"].replace("detect_leaks=1", "detect_leaks=0")
    file = site.dir / "strace"
    run(*command(file), *(f"-E{name}={value}" for name, value in env.items()), *words, cwd=site.dir,
        env={"PATH": os.environ["PATH"]})
    return check_folder(events_of(file, str(site.dir)), site.dir / "boards", MOMENTS)


@pytest.mark.parametrize("way", WAYS)
def test_client(site, shim, way):
    """The key before the request leaves, the certificate before it is said to be there."""
    site.start()
    site.client()
    for number in (1, 2):
        if way != "provision":
            site.signet("provision", "--mac", mac(number), "--out", site.dir / "boards", "--key-type", "ec:p256")
    counts, wrong = trace_client(site, way, 1, {})
    assert counts["sent"] > 0 and counts["said"] == 1 and not wrong, dict(wrong)
    unsynced = (".pending", "/boards", mac(2).replace(":", ""))
    counts, wrong = trace_client(site, way, 2, less_synced(shim, *unsynced))
    assert counts["said"] == 1 and set(wrong) == {"sent", "said"}, dict(wrong)
