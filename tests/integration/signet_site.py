"""A whole private Signet in one folder: tokens, root, intermediate, configuration, signetd, operators.

The module is not called site.py because Python has one of that name.
"""

import base64
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SIGNET_BUILD", REPO / "build")).resolve()
BIN = BUILD / "bin"
SCRIPTS = REPO / "hsm-setup"
# Of this run alone: tests that run beside it, and show theirs on a command line, are not found by test_secrets.py.
PIN, SO_PIN = f"kAnArIe~{os.urandom(4).hex()}.pIn", os.urandom(8).hex()
PIN_FILES = ("pin", "so-pin", "root-pin", "root-so-pin")
PATIENCE = 60  # seconds until something that must come is called missing; never a measure of speed
INTENT, ISSUED, REVOKED, HELD, ORPHAN = range(5)
BOARDS = ("issued", "flashed", "verified")  # what was reported of a board, by its number in the store

# Sanitizers report to stderr; a role that crashes is named by the supervisor.
CRASH = re.compile(r"AddressSanitizer|LeakSanitizer|UndefinedBehaviorSanitizer|runtime error:|"
                   r"was ended by signal (?:4|6|7|8|11)\b")


def run(*command, code=0, **kwargs):
    """A command's output as text; another exit code than the one expected fails the test."""
    kwargs.setdefault("timeout", 120)
    kwargs.setdefault("stdin", None if "input" in kwargs else subprocess.DEVNULL)
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kwargs)
    assert code is None or done.returncode == code, \
        f"{command[0]}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def wait_for(condition, what, patience=PATIENCE):
    """The first value of condition() that is neither None nor False (a CRL without entries counts as false).
    what: a text, or a function that makes one when it is needed."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = condition()
        if found is not None and found is not False:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what() if callable(what) else what}: not within {patience} s")


PORTS = open(Path(tempfile.gettempdir()) / "signet-test-ports", "ab")  # byte N is locked by who has port N
MINE = set()


def free_port():
    """This process's own until it ends, also while nobody listens there. Below those that the kernel gives to outgoing
    connections, so none of them takes it."""
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        with contextlib.closing(socket.socket()) as s, contextlib.suppress(OSError):
            fcntl.lockf(PORTS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            s.bind(("127.0.0.1", port))
            if port not in MINE:
                MINE.add(port)
                return port
    raise AssertionError("no free port")


def softhsm_module():
    for pattern in ("lib/softhsm", "lib/*/softhsm", "lib64/softhsm"):
        for found in Path("/usr").glob(pattern + "/libsofthsm2.so"):
            return found
    raise AssertionError("SoftHSM is not installed")


def tool_environment():
    """For signet and signetctl. Unlike the daemons they can be traced, so leaks are looked for."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    if "ASAN_OPTIONS" in os.environ:
        env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"].replace("detect_leaks=0", "detect_leaks=1")
    return env


class Kit:
    """Both tokens and both CAs, made by the scripts of hsm-setup; copied for each site."""

    def __init__(self, where, key_type="ec:p256", root_type="ec:p256"):
        self.dir = Path(where)
        self.dir.mkdir(parents=True, exist_ok=True)
        for name, value in zip(PIN_FILES, (PIN, SO_PIN, PIN + "r", SO_PIN)):
            path = self.dir / name
            path.touch(0o600)
            path.write_text(value + "\n")
        root = ("--softhsm", "root-hsm", "--pin-file", "root-pin", "--so-pin-file", "root-so-pin", "--token",
                "Signet Root", "--key-label", "root", "--out", "root")
        own = ("--softhsm", "hsm", "--pin-file", "pin", "--so-pin-file", "so-pin")
        self.script("root-ceremony.sh", *root, "--subject", "CN=Test Root", "--key-type", root_type)
        self.script("intermediate.sh", *own, "--subject", "CN=Test Device CA", "--key-type", key_type, "--out",
                    "ca.csr")
        self.script("root-ceremony.sh", *root, "--sign-csr", "ca.csr", "--out-certificate", "ca.pem")
        self.script("intermediate.sh", *own, "--install", "ca.pem", "--root", "root/root.pem", "--crl",
                    "root/root-crl.der", "--state", "state", "--config", "signet.conf", "--listen",
                    "127.0.0.1:1", "--http-listen", "127.0.0.1:2", "--public-url", "http://127.0.0.1:2")

    def script(self, name, *args):
        env = {"PATH": os.environ["PATH"], "SIGNET_BUILD": str(BUILD), "LC_ALL": "C.UTF-8"}
        if "ASAN_OPTIONS" in os.environ:
            env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
        return run("bash", SCRIPTS / name, *args, cwd=self.dir, env=env)


class Key:
    """A P-256 key and its CSR."""

    def __init__(self, name):
        self.name = name
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.csr = self.request(name)

    def request(self, name):
        """A CSR of this key for another name too, in base64 as the wire has it."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.private, hashes.SHA256())
        return base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()

    def save(self, path):
        pem = self.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                         serialization.NoEncryption())
        path.touch(0o600)
        path.write_bytes(pem)
        return path


def mac(number):
    return "24:0a:c4:" + ":".join(f"{number >> s & 255:02x}" for s in (16, 8, 0))


class Connection:
    """One kept-alive HTTPS connection with one client certificate, or none."""

    def __init__(self, site, operator=None, timeout=PATIENCE):
        context = ssl.create_default_context(cafile=site.root)
        if operator:
            context.load_cert_chain(operator.cert, operator.key)
        self.http = http.client.HTTPSConnection("127.0.0.1", site.port, context=context, timeout=timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def ask(self, operation, **fields):
        """(HTTP status, answer); what the two say must agree."""
        self.answering = False
        self.http.request("POST", "/v1", json.dumps({"operation": operation, **fields}),
                          {"Content-Type": "application/json"})
        response = self.http.getresponse()
        self.answering = True  # from here the rest must come
        body = json.loads(response.read())
        self.headers = response.headers
        assert (response.status == 200) == (body["status"] == "OK"), (response.status, body)
        assert body["operation"] == operation or (response.status == 503 and body["operation"] == ""), body
        return response.status, body

    def issue(self, key, **fields):
        """(HTTP status, the certificate's PEM or the error's code)"""
        status, body = self.ask("req_client_cert", csr=key.csr, **fields)
        return status, base64.b64decode(body["certificate"]) if status == 200 else body["error"]["code"]


class Operator:
    def __init__(self, name, cert, key):
        self.name, self.cert, self.key = name, cert, key


class Site:
    """ocsp: with the OCSP responder's key, which the token has in any case; its certificate, and those that signetd
    issues when it is renewed, then count among all others."""

    def __init__(self, kit, where, ocsp=False, **settings):
        self.dir = Path(where)
        shutil.copytree(kit.dir, self.dir, dirs_exist_ok=True, symlinks=True)
        self.state, self.root, self.conf = self.dir / "state", self.dir / "root/root.pem", self.dir / "signet.conf"
        self.pin_file, self.log_file = self.dir / "pin", self.dir / "signetd.log"
        self.log_file.touch()
        self.port, self.http_port = free_port(), free_port()
        for path in (self.dir / "hsm/softhsm2.conf", self.dir / "root-hsm/softhsm2.conf", self.conf):
            path.write_text(path.read_text().replace(str(kit.dir), str(self.dir)))
        text = self.conf.read_text()
        self.conf.write_text(text.replace("127.0.0.1:1\n", f"127.0.0.1:{self.port}\n")
                             .replace("127.0.0.1:2\n", f"127.0.0.1:{self.http_port}\n"))
        if not ocsp:
            self.conf.write_text(re.sub(r"^ocsp_key_label = .*\n", "", self.conf.read_text(), flags=re.M))
        for name, value in settings.items():
            self.set(name, value)
        self.process, self.as_user, self.prefix = None, None, []  # prefix: a command that runs signetd
        self.bin, self.env = BIN, {}  # whose signetd, and what more it finds in its environment
        self.verify_flags = 0  # of clients, beside the default ones
        self.started = []  # every process that this site ever started

    # ---- configuration ----

    def set(self, name, value):
        """Sets section_name, such as token_signers, in signet.conf."""
        section, name = name.split("_", 1)
        lines, out, inside, done = self.conf.read_text().splitlines(), [], False, False
        for line in lines:
            if inside and line.split("=")[0].strip() == name:
                continue
            out.append(line)
            if line.startswith("["):
                inside = line == f"[{section}]"
                if inside:
                    out.append(f"{name} = {value}")
                    done = True
        if not done:
            out += [f"[{section}]", f"{name} = {value}"]
        self.conf.write_text("\n".join(out) + "\n")

    # ---- signetd ----

    def spawn(self, *more, under=()):
        env = {"PATH": os.environ["PATH"]}
        if "ASAN_OPTIONS" in os.environ:
            env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
        env.update(self.env)
        who = {"user": self.as_user, "group": self.as_user, "extra_groups": []} if self.as_user else {}
        with open(self.log_file, "ab") as log:
            process = subprocess.Popen([*self.prefix, *under, self.bin / "signetd", "--config", self.conf, *more], env=env,
                                       cwd=self.dir, **who, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        self.started.append(process)
        return process

    def start(self, ready=True):
        assert not self.running(), "signetd runs already"
        self.process = self.spawn()
        if ready:
            self.wait_ready()
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def get(self, path):
        """(HTTP status, body) of the plain port; (0, b"") when there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=PATIENCE) as r:
                return r.status, r.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()
        except OSError:
            return 0, b""

    def wait_ready(self, status=200):
        def answered():
            assert self.running(), f"signetd ended with code {self.process.returncode}:\n{self.log()}"
            return self.get("/readyz")[0] == status
        wait_for(answered, lambda: f"{self.log()}\n/readyz answers {status}")

    def stop(self, code=0):
        self.process.send_signal(signal.SIGTERM)
        got = self.process.wait(PATIENCE)
        assert got == code, f"signetd ended with code {got}:\n{self.log()}"

    def kill(self):
        """kill -9 of the supervisor alone: the others must end by themselves."""
        roles = [pid for pids in self.roles().values() for pid in pids]
        self.process.kill()
        self.process.wait(PATIENCE)
        wait_for(lambda: not any(is_alive(pid) for pid in roles), "the roles end with their supervisor")

    def run_to_end(self, *more):
        """signetd where it must not start: (exit code, what it said)."""
        before = len(self.log())
        process = self.spawn(*more)
        try:
            return process.wait(PATIENCE), self.log()[before:]
        except subprocess.TimeoutExpired:
            raise AssertionError("signetd should have ended, but runs:\n" + self.log()[before:]) from None

    def log(self):
        return self.log_file.read_text(errors="replace")

    def roles(self):
        """{"front": [pid, …], …} of the running children."""
        found = {}
        for pid in children_of(self.process.pid):
            name = role_of(pid)
            if name:
                found.setdefault(name, []).append(pid)
        return {name: sorted(pids) for name, pids in found.items()}

    def close(self):
        """Ends everything, then looks for what must never be in a log."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise AssertionError("signetd did not stop:\n" + self.log()) from None
        crash = CRASH.search(self.log())
        assert not crash, f"{crash.group(0)} in the log:\n{self.log()}"

    # ---- operators, commands ----

    def ctl(self, *args, code=0):
        return run(BIN / "signetctl", "--config", self.conf, *args, code=code, cwd=self.dir, env=tool_environment())

    def operator(self, name="op", roles="provisioner,revoker"):
        key, csr, cert = (self.dir / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        made = Key(name)
        made.save(key)
        csr.write_bytes(base64.b64decode(made.csr))
        self.ctl("operator", "issue", "--csr", csr, "--role", roles, "--out", cert)
        return Operator(name, cert, key)

    def signet(self, *args, code=0):
        return run(BIN / "signet", *args, "--config", self.dir / "client/signet.conf", code=code, cwd=self.dir,
                   env=tool_environment())

    def client(self, name="laptop", roles="provisioner,revoker"):
        """An operator by the client's own way: signet init, signetctl operator issue, signet init --install."""
        (self.dir / "client").mkdir()
        self.signet("init", "--server", f"https://127.0.0.1:{self.port}", "--ca-fingerprint", self.fingerprint(),
                    "--name", name, "--key-type", "ec:p256")
        made = self.dir / "answer.crt"
        self.ctl("operator", "issue", "--csr", self.dir / "client/operator.csr", "--role", roles, "--out", made)
        self.signet("init", "--install", made)

    def fingerprint(self):
        """Of the root, as openssl prints it."""
        return run("openssl", "x509", "-in", self.root, "-noout", "-fingerprint", "-sha256").stdout.strip()

    def connect(self, operator=None, **kwargs):
        return Connection(self, operator, **kwargs)

    def ask(self, operator, operation, **fields):
        with self.connect(operator) as c:
            return c.ask(operation, **fields)

    def issue(self, operator, key, **fields):
        with self.connect(operator) as c:
            return c.issue(key, **fields)

    # ---- the books ----

    def query(self, sql, *values):
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/signet.db?mode=ro", uri=True)) as db:
            return db.execute(sql, values).fetchall()

    def journal(self):
        """[(line of journal.log, (seq, line, hash) of the store)], once the file has what the store had."""
        rows = self.query("SELECT seq, line, hash FROM journal ORDER BY seq")

        def complete():
            lines = (self.state / "journal.log").read_text().splitlines()
            return lines if len(lines) >= len(rows) else None
        return list(zip(wait_for(complete, "journal.log is complete"), rows))

    def crl(self):
        """The CRL of the plain port, once it anchors all revocations and orphans so far."""
        (last,) = self.query("SELECT max(seq) FROM journal WHERE line LIKE '% revoked serial=%' "
                             "OR line LIKE '% orphan serial=%'")[0]
        def fresh():
            status, der = self.get("/crl")
            if status != 200:
                return None
            found = x509.load_der_x509_crl(der)
            return found if anchor_of(found)[0] >= (last or 0) else None
        return wait_for(fresh, "a CRL with all that is revoked")

    def check_journal(self):
        """Recomputes the hash chain, compares it with the store; returns the lines' texts."""
        head, texts = bytes(32), []
        for number, (line, (seq, stored, digest)) in enumerate(self.journal(), 1):
            text, shown = line.rsplit(" ", 1)
            head = hashlib.sha256(head + text.encode()).digest()
            assert line == stored and digest == head and shown == head.hex(), line
            assert seq == number and text.split(" ")[0] == str(number), line
            texts.append(text.split(" ", 2)[2])
        return texts

    def check_books(self, received=()):
        """Store, journal, files and CRL agree with each other and with every certificate (PEM) received."""
        texts = self.check_journal()
        rows = self.query("SELECT lower(hex(serial)), state, profile, name, der, der_sha256 FROM certificate")
        by_serial = {row[0]: row[1:] for row in rows}
        assert len(by_serial) == len(rows)
        events = {}
        for text in texts:
            kind, *fields = text.split(" ")
            fields = dict(f.split("=", 1) for f in fields)
            if "serial" in fields and kind not in BOARDS[1:]:
                events.setdefault(fields["serial"], []).append((kind, fields))
        assert set(events) == set(by_serial)
        for serial, (state, profile, name, der, digest) in by_serial.items():
            kinds = [kind for kind, _ in events[serial]]
            expected = {ISSUED: ["intent", "issued"], REVOKED: ["intent", "issued", "revoked"],
                        ORPHAN: ["intent", "orphan"]}
            assert kinds == expected.get(state), f"{serial} in state {state}: {kinds}"
            fields = events[serial][1][1]
            assert fields["name"] == name
            file = self.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem"
            if state == ORPHAN:
                assert der is None and not file.exists()
                continue
            assert hashlib.sha256(der).digest() == digest and fields["sha256"] == digest.hex()
            assert file.read_bytes() == ssl.DER_cert_to_PEM_cert(der).encode(), file
        assert len(list((self.state / "certs").rglob("*.pem"))) == sum(s[0] != ORPHAN for s in by_serial.values())
        for pem in received:
            cert = x509.load_pem_x509_certificate(pem)
            state, profile, name, der, digest = by_serial[serial_of(cert)]
            assert state in (ISSUED, REVOKED) and ssl.PEM_cert_to_DER_cert(pem.decode()) == der
        live = self.query("SELECT name, count(*) FROM certificate WHERE state <= 1 AND profile = 'device' "
                          "GROUP BY name HAVING count(*) > 1")
        assert live == []
        crl = self.crl()
        assert {f"{r.serial_number:x}" for r in crl} == \
            {s.lstrip("0") for s, row in by_serial.items() if row[0] in (REVOKED, ORPHAN)}
        seq, digest = anchor_of(crl)
        anchored = self.query("SELECT hash FROM journal WHERE seq = ?", seq) if seq else [(bytes(32),)]
        assert anchored == [(digest,)], f"the CRL anchors event {seq} as {digest.hex()}"
        return by_serial

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def serial_of(cert):
    return f"{cert.serial_number:032x}"


def anchor_oid():
    text = (REPO / "src/pki/crl.c").read_text()
    words = re.search(r"CRL_ANCHOR_OID\[\] =\s*((?:\"[^\"]*\"\s*)+);", text).group(1)
    return "".join(re.findall(r'"([^"]*)"', words))


ANCHOR_OID = anchor_oid()


def anchor_of(crl):
    """(journal sequence, hash): both in an OCTET STRING, in the CRL's own extension."""
    (found,) = [e for e in crl.extensions if e.oid.dotted_string == ANCHOR_OID]
    der = found.value.value
    assert not found.critical and der[:2] == b"\x04\x28" and len(der) == 42
    return int.from_bytes(der[2:10], "big"), der[10:]


# ---- processes ----

def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(parent):
    with contextlib.suppress(OSError):
        return sorted(int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return []


def role_of(pid):
    """By the command line; None between fork and exec."""
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return None
    name = program.rsplit("/", 1)[-1]
    return name[len("signet-"):] if name.startswith("signet-") else None


def at_once(count, work):
    """work(0) … work(count - 1) at the same moment, each in a thread; their results."""
    barrier, results = threading.Barrier(count), [None] * count

    def one(i):
        barrier.wait()
        try:
            results[i] = work(i)
        except BaseException as e:
            results[i] = e
    threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in results:
        if isinstance(r, BaseException):
            raise r
    return results
