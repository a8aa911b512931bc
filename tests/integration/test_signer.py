"""signet-signer alone: this test is its supervisor and its authority."""

import contextlib
import hashlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from front_harness import MESSAGES, PLACE
from hsm_harness import SIGNER, SOFTHSM, Hsm, build_shim, make_ca, sha256_of_spki

FAULTS = {"absent": 1, "module": 2, "pin_refused": 3, "pin_last": 4, "key_missing": 5, "key_doubled": 6, "custody": 7, "transient": 8,
          "lost": 9, "key_mismatch": 10}
RSA_SHA256, ECDSA_SHA256, ECDSA_SHA384 = 1, 2, 3
CA, RESPONDER = 1, 2


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def hsm(tmp_path, shim):
    h = Hsm(tmp_path)
    h.init_token()
    h.key("T", "k", "rsa:2048")
    make_ca(h)
    h.use_shim(shim)
    return h


class Signer:
    def __init__(self, hsm, pin=Hsm.PIN, token="T", **extra):
        lines = {"module": hsm.module, "label": token, "key_label": "k", **extra}
        # what the module wants from its environment comes from the configuration alone
        for name in ("SOFTHSM2_CONF", "SHIM_MODULE", "SHIM_CONTROL", "SHIM_LOG"):
            lines["env." + name] = hsm.env[name]
        config = f"[server]\nstate = {hsm.dir}\n[ca]\ncertificate = {hsm.dir}/ca.pem\n[token]\n"
        config += "".join(f"{k} = {v}\n" for k, v in lines.items())
        memfd = os.memfd_create("config")
        os.write(memfd, config.encode())
        reading, writing = os.pipe()
        os.write(writing, pin.encode() + b"\n")
        os.close(writing)
        self.supervisor, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.authority, work = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log = hsm.dir / "signer.log"
        fds = [control.fileno(), memfd, work.fileno()]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PLACE, ",".join(map(str, fds)), str(SIGNER), "--number", "1"], stdin=reading,
                stderr=log, pass_fds=fds, env={"PATH": os.environ["PATH"]})
        for fd in (memfd, reading):
            os.close(fd)
        control.close()
        work.close()
        for s in (self.supervisor, self.authority):
            s.settimeout(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.supervisor.close()
        self.authority.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)

    def report(self):
        """What the supervisor hears first."""
        name, _, values = MESSAGES.decode(self.supervisor.recv(1 << 17))
        return name, values

    def ready(self):
        name, values = self.report()
        assert name == "ready", values
        name, _, values = MESSAGES.decode(self.authority.recv(1 << 17))
        assert name == "signer_hello"
        return values

    def ask(self, digest, alg=RSA_SHA256, ident=7, key=CA):
        self.authority.send(MESSAGES.encode("sign", ident, key=key, alg=alg, digest=digest))

    def answer(self):
        name, ident, values = MESSAGES.decode(self.authority.recv(1 << 17))
        return name, ident, values

    def sign(self, text=b"text", alg=RSA_SHA256, key=CA):
        self.ask(hashlib.new("sha384" if alg == ECDSA_SHA384 else "sha256", text).digest(), alg, key=key)
        return self.answer()


def failure(hsm, **kwargs):
    with Signer(hsm, **kwargs) as s:
        name, values = s.report()
        assert name == "failed"
        assert s.process.wait(20) == 1
        return values["fault"], values["detail"]


@pytest.mark.parametrize("kind, alg, digest", [("rsa:2048", RSA_SHA256, "sha256"), ("ec:p256", ECDSA_SHA256, "sha256"),
                                               ("ec:p384", ECDSA_SHA384, "sha384")])
def test_signs(tmp_path, shim, kind, alg, digest):
    hsm = Hsm(tmp_path)
    hsm.init_token()
    hsm.key("T", "k", kind)
    make_ca(hsm)
    hsm.use_shim(shim)
    with Signer(hsm) as s:
        hello = s.ready()
        assert hello["custody"] == 127 and "SoftHSM" in hello["token"]
        name, ident, values = s.sign(b"what is signed", alg)
        assert (name, ident) == ("signed", 7)
        (tmp_path / "sig").write_bytes(values["signature"])
        (tmp_path / "text").write_bytes(b"what is signed")
        hsm.run("openssl", "x509", "-in", "ca.pem", "-noout", "-pubkey", "-out", "pub.pem")
        hsm.run("openssl", "dgst", f"-{digest}", "-verify", "pub.pem", "-signature", "sig", "text")
        s.authority.close()
        assert s.process.wait(20) == 0  # the authority is gone: a plain end


def test_one_login_in_all(hsm):
    with Signer(hsm) as s:
        s.ready()
        for _ in range(20):
            assert s.sign()[0] == "signed"
    assert hsm.calls("C_Login").count("0x0") == 1 and set(hsm.calls("C_Login")) <= {"0x0", "0x100"}


def test_wrong_pin_one_try(hsm):
    fault, detail = failure(hsm, pin="wrong-pin-0815")
    assert fault == FAULTS["pin_refused"] and "CKR_PIN_INCORRECT" in detail and "0815" not in detail
    assert hsm.calls("C_Login") == ["0xa0"]


@pytest.mark.parametrize("order, fault", [
    ("C_GetTokenInfo flags 20000", "pin_last"),
    ("C_GetTokenInfo flags 40000", "pin_refused"),
    ("C_Login error a4", "pin_refused"),
    ("C_OpenSession error b1", "lost"),
    ("C_OpenSession error e0", "absent"),
    ("C_Initialize error 5", "module"),
    ("C_Initialize error 32", "absent"),
    ("C_Sign garbage", "key_mismatch"),
    ("C_Sign error 30", "lost"),
])
def test_faults_at_start(hsm, order, fault):
    hsm.control.write_text(order + "\n")
    assert failure(hsm)[0] == FAULTS[fault]
    if fault.startswith("pin") and "Login" not in order:
        assert hsm.calls("C_Login") == []


def test_other_faults_at_start(hsm):
    assert failure(hsm, token="U")[0] == FAULTS["absent"]
    assert failure(hsm, module="/nonexistent.so")[0] == FAULTS["module"]
    assert failure(hsm, key_label="none")[0] == FAULTS["key_missing"]
    hsm.key("T", "other")
    assert failure(hsm, key_label="other")[0] == FAULTS["key_mismatch"]
    own = sha256_of_spki(hsm, "ca.pem")
    hsm.control.write_text("C_GetAttributeValue false 163\n")  # LOCAL
    assert failure(hsm)[0] == FAULTS["custody"]
    fault, detail = failure(hsm, custody_exception="00" * 32 + r"\, reason")
    assert fault == FAULTS["custody"] and "another key" in detail and own in detail
    with Signer(hsm, custody_exception=f"{own}, wrapped backup") as s:
        assert s.ready()["custody"] == 127 - 32
        assert "custody_exception is in force: the token does not say LOCAL" in s.log.read_text()


# ---- two keys: the CA's, and the OCSP responder's ----

@pytest.fixture
def both(hsm):
    hsm.key("T", "o", "ec:p256")
    return hsm


def public_key(hsm, values):
    """The SubjectPublicKeyInfo of a hello, as a PEM file."""
    (hsm.dir / "responder.der").write_bytes(values["responder_spki"])
    hsm.run("openssl", "pkey", "-pubin", "-inform", "DER", "-in", "responder.der", "-out", "responder.pem")
    return "responder.pem"


def verifies(hsm, key, values, text=b"text"):
    (hsm.dir / "sig").write_bytes(values["signature"])
    (hsm.dir / "text").write_bytes(text)
    return hsm.run("openssl", "dgst", "-sha256", "-verify", key, "-signature", "sig", "text", code=None).returncode == 0


@pytest.mark.parametrize("kind, alg", [("ec:p256", ECDSA_SHA256), ("rsa:2048", RSA_SHA256)])
def test_two_keys_sign_in_turn(hsm, kind, alg):
    """libp11 has both; neither signs for the other, in one session and by one login."""
    hsm.key("T", "o", kind)
    hsm.run("openssl", "x509", "-in", "ca.pem", "-noout", "-pubkey", "-out", "ca-key.pem")
    hsm.shim.log.unlink()  # what the ceremony did
    with Signer(hsm, ocsp_key_label="o") as s:
        hello = s.ready()
        assert hello["responder_custody"] == 127
        responder = public_key(hsm, hello)
        assert (hsm.dir / responder).read_text() != (hsm.dir / "ca-key.pem").read_text()
        for _ in range(10):
            for key, own, other, how in ((CA, "ca-key.pem", responder, RSA_SHA256),
                                         (RESPONDER, responder, "ca-key.pem", alg)):
                name, _, values = s.sign(alg=how, key=key)
                assert name == "signed" and verifies(hsm, own, values)
                assert not verifies(hsm, other, values)
    assert hsm.calls("C_Login").count("0x0") == 1 and set(hsm.calls("C_Login")) <= {"0x0", "0x100"}
    assert len(hsm.calls("C_Sign")) == 2 + 20  # a trial of each


def test_without_a_second_key_nothing_is_signed_by_it(hsm):
    with Signer(hsm) as s:
        assert s.ready()["responder_spki"] == b""
        before = len(hsm.calls("C_Sign"))
        name, _, values = s.sign(key=RESPONDER)
        assert name == "sign_failed" and values["fault"] == FAULTS["key_mismatch"]
        assert len(hsm.calls("C_Sign")) == before
        assert s.process.wait(20) == 1


def test_a_key_of_neither_number_ends_it(both):
    with Signer(both, ocsp_key_label="o") as s:
        s.ready()
        assert s.sign(key=3)[2]["fault"] == FAULTS["key_mismatch"]
        assert s.process.wait(20) == 1


def test_a_fault_of_one_key_is_one_of_the_session(both):
    with Signer(both, ocsp_key_label="o") as s:
        s.ready()
        both.control.write_text("C_SignInit error 90\n")
        assert s.sign(alg=ECDSA_SHA256, key=RESPONDER)[2]["fault"] == FAULTS["lost"]
        assert s.process.wait(20) == 1
    both.control.write_text("")
    both.key("T", "o2", "rsa:2048")
    with Signer(both, ocsp_key_label="o2") as s:  # device errors in a row are counted over both
        s.ready()
        both.control.write_text("C_Sign error 30\n")
        assert s.sign(key=RESPONDER)[2]["fault"] == FAULTS["transient"]
        assert s.sign(key=CA)[2]["fault"] == FAULTS["lost"]
        assert s.process.wait(20) == 1


def test_the_responders_key_is_looked_at_like_the_cas(both):
    def refused(fault, *words, **config):
        found, detail = failure(both, **config)
        assert found == FAULTS[fault], detail
        for word in ("the OCSP responder's key", *words):
            assert word in detail, detail
    refused("key_missing", "no private key", '"none"', "intermediate.sh --ocsp-key", ocsp_key_label="none")
    refused("key_mismatch", "the CA's own", "needs another", ocsp_key_label="k")
    both.pkcs11_tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "o", "--id", "55", "--usage-sign",
                     "--sensitive")
    refused("key_doubled", "more than one private key", ocsp_key_label="o")
    with Signer(both, ocsp_key_label="o", ocsp_key_id="55") as s:  # both names together are of one
        s.ready()
    both.pkcs11_tool("--keypairgen", "--key-type", "EC:secp521r1", "--label", "big", "--id", "56", "--usage-sign",
                     "--sensitive")
    refused("key_mismatch", "P-384", ocsp_key_label="big")
    both.pkcs11_tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "open", "--id", "57", "--usage-sign",
                     "--sensitive", "--extractable")
    refused("custody", "not EXTRACTABLE", "NEVER_EXTRACTABLE", ocsp_key_label="open")


def test_an_exception_for_the_responders_key_is_its_own(both):
    both.run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "outside.pem")
    both.run("softhsm2-util", "--import", "outside.pem", "--token", "T", "--label", "outside", "--id", "77", "--pin",
             Hsm.PIN)
    der = subprocess.run(["openssl", "pkey", "-in", both.dir / "outside.pem", "-pubout", "-outform", "DER"], check=True,
                         capture_output=True).stdout
    own, ca = hashlib.sha256(der).hexdigest(), sha256_of_spki(both, "ca.pem")
    use = {"ocsp_key_label": "outside"}
    fault, detail = failure(both, **use)
    assert fault == FAULTS["custody"] and "LOCAL" in detail and "the OCSP responder's key" in detail, detail
    fault, detail = failure(both, **use, custody_exception=f"{own}, for the wrong one of the two")
    assert fault == FAULTS["custody"], detail
    fault, detail = failure(both, **use, ocsp_custody_exception=f"{ca}, of another key")
    assert fault == FAULTS["custody"] and "ocsp_custody_exception names another key" in detail and own in detail
    with Signer(both, **use, ocsp_custody_exception=f"{own}, moved from elsewhere") as s:
        hello = s.ready()
        assert hello["custody"] == 127 and hello["responder_custody"] & 127 == 7 + 64
        assert "ocsp_custody_exception is in force" in s.log.read_text()
        assert s.sign(alg=ECDSA_SHA256, key=RESPONDER)[0] == "signed"


def test_a_responders_key_that_is_not_its_public_half_is_refused(both):
    """The second trial signature alone comes out wrong: the first was the CA's."""
    both.control.write_text("C_Sign garbage 0 -1\n")
    fault, detail = failure(both, ocsp_key_label="o")
    assert fault == FAULTS["key_mismatch"] and "the OCSP responder's key" in detail and "trial" in detail, detail


def test_one_device_error_heals(hsm):
    with Signer(hsm) as s:
        s.ready()
        hsm.control.write_text("C_Sign error 30 1\n")
        name, _, values = s.sign()
        assert name == "sign_failed" and values["fault"] == FAULTS["transient"]
        assert s.sign()[0] == "signed"


def test_engine_tries_ec_twice(tmp_path, shim):
    """One DEVICE_ERROR with an EC key is healed by libp11 itself, in the same call."""
    hsm = Hsm(tmp_path)
    hsm.init_token()
    hsm.key()
    make_ca(hsm)
    hsm.use_shim(shim)
    with Signer(hsm) as s:
        s.ready()
        hsm.control.write_text("C_Sign error 30 1\n")
        assert s.sign(alg=ECDSA_SHA256)[0] == "signed"
        assert hsm.calls("C_Sign")[-2:] == ["0x30", "0x0"]


@pytest.mark.parametrize("order", ["C_SignInit close b3 1", "C_SignInit logout 0 1", "C_SignInit error 90 1",
                                   "C_Sign error 5 1"])
def test_any_other_fault_ends_the_signer(hsm, order):
    with Signer(hsm) as s:
        s.ready()
        hsm.control.write_text(order + "\n")
        name, _, values = s.sign()
        assert name == "sign_failed" and values["fault"] == FAULTS["lost"]
        assert s.process.wait(20) == 1
        assert s.authority.recv(1) == b""
    hsm.control.write_text("")
    with Signer(hsm) as s:  # a new process: the remedy that always worked
        s.ready()
        assert s.sign()[0] == "signed"


def test_two_device_errors_in_a_row_end_it(hsm):
    with Signer(hsm) as s:
        s.ready()
        hsm.control.write_text("C_Sign error 30\n")
        assert s.sign()[2]["fault"] == FAULTS["transient"]
        assert s.sign()[2]["fault"] == FAULTS["lost"]
        assert s.process.wait(20) == 1


@pytest.mark.parametrize("values", [dict(alg=ECDSA_SHA256, digest=b"\1" * 32), dict(alg=RSA_SHA256, digest=b"\1" * 31),
                                    dict(alg=9, digest=b"\1" * 32), dict(alg=ECDSA_SHA384, digest=b"\1" * 32)])
def test_what_is_no_digest_for_this_key_is_not_signed(hsm, values):
    with Signer(hsm) as s:
        s.ready()
        before = len(hsm.calls("C_Sign"))
        s.authority.send(MESSAGES.encode("sign", 1, key=1, **values))
        name, _, answer = s.answer()
        assert name == "sign_failed" and answer["fault"] == FAULTS["key_mismatch"]
        assert len(hsm.calls("C_Sign")) == before
        assert s.process.wait(20) == 1


@pytest.mark.parametrize("record", [b"x", MESSAGES.encode("signed", 1, signature=b"s"),
                                    MESSAGES.encode("sign", 1, key=1, alg=2, digest=b"d" * 32) + b"!"])
def test_bad_messages_end_it(hsm, record):
    with Signer(hsm) as s:
        s.ready()
        s.authority.send(record)
        assert s.process.wait(20) == 70


def test_signals_are_the_supervisors(hsm):
    with Signer(hsm) as s:
        s.ready()
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            s.process.send_signal(sent)
        assert s.sign()[0] == "signed"


def test_ends_with_its_parent(hsm, tmp_path):
    """PR_SET_PDEATHSIG: the parent dies while the sockets live on here."""
    middle = f"""
import os, sys, signal
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from hsm_harness import Hsm
import test_signer
class Given: pass
h = Given(); h.dir, h.module, h.env = Path({str(hsm.dir)!r}), {hsm.module!r}, {hsm.env!r}
s = test_signer.Signer(h); s.ready()
keeper = os.fork()
if keeper == 0:  # keeps the sockets open
    signal.alarm(60); signal.pause(); os._exit(0)
print(s.process.pid, keeper, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True,
                              env=dict(os.environ))
    signer, keeper = (int(x) for x in parent.stdout.readline().split())
    assert parent.wait(20) == -signal.SIGKILL
    for _ in range(200):  # the keeper lives a minute
        try:
            state = open(f"/proc/{signer}/stat").read().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the signer outlived its supervisor")
    os.kill(keeper, signal.SIGKILL)


def test_pin_is_wiped_and_nothing_but_the_design_is_mapped(hsm):
    with Signer(hsm) as s:
        s.ready()
        s.sign()
        pid = s.process.pid
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert Hsm.PIN not in open(f"/proc/{pid}/cmdline").read() + open(f"/proc/{pid}/environ").read()
        maps = open(f"/proc/{pid}/maps").read()
        libraries = {os.path.basename(p) for p in re.findall(r"(/\S+\.so\S*)", maps)}
        for refused in ("libssl", "libevent", "libcjson", "libsqlite3", "libcurl"):
            assert not any(lib.startswith(refused) for lib in libraries), libraries
        with open(f"/proc/{pid}/mem", "rb") as memory:
            for line in maps.splitlines():
                if " r" not in line or "[v" in line:
                    continue
                low, high = (int(x, 16) for x in line.split()[0].split("-"))
                if high - low > 1 << 28:  # a sanitizer's shadow
                    continue
                memory.seek(low)
                assert Hsm.PIN.encode() not in memory.read(high - low), line


def dumps_core(process):
    """Whether the kernel writes a core of it when it aborts."""
    with contextlib.suppress(PermissionError):  # it has given its limit up, and not every root may raise one
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    process.send_signal(signal.SIGABRT)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -os.WTERMSIG(status)
    return os.WCOREDUMP(status)


def test_no_core(hsm):
    if not dumps_core(subprocess.Popen(["sleep", "60"], cwd=hsm.dir)):
        pytest.skip("this kernel is set to write no core of anything")
    with Signer(hsm) as s:
        s.ready()
        assert not dumps_core(s.process)


def children(parent):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            pass
    return found


def remote_module():
    return next((str(p) for p in Path("/usr").glob("lib/**/p11-kit-client.so")), None)


@pytest.mark.skipif(not remote_module(), reason="p11-kit's client module is not installed")
def test_remote_token_whose_line_is_cut(hsm, tmp_path):
    """A module that is only a line to a token elsewhere: signs, and ends the signer when cut."""
    address = tmp_path / "p11-kit"
    server = subprocess.Popen(["p11-kit", "server", "-f", "-n", address, "--provider", SOFTHSM, "pkcs11:token=T"],
                              env=hsm.env, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if address.exists():
                break
            time.sleep(0.05)
        extra = {"module": remote_module(), "env.P11_KIT_SERVER_ADDRESS": f"unix:path={address}"}
        with Signer(hsm, **extra) as s:
            s.ready()
            assert s.sign()[0] == "signed"
            for pid in [*children(server.pid), server.pid]:
                os.kill(pid, signal.SIGKILL)
            # p11-kit says DEVICE_ERROR of it, which may pass once
            assert s.sign()[2]["fault"] == FAULTS["transient"]
            assert s.sign()[2]["fault"] == FAULTS["lost"]
            assert s.process.wait(20) == 1  # not by SIGPIPE
    finally:
        server.kill()
        server.wait(20)


def test_help():
    done = subprocess.run([SIGNER, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and "Started by signetd" in done.stdout
    assert subprocess.run([SIGNER, "--version"], capture_output=True, timeout=20).returncode == 0
