"""signet, the client, against a right server and against everything a wrong one can do.

Each failure must have its exit code, one sentence that names address or path and cause, and leave
nothing behind that looks like a device's folder."""

import base64
import fcntl
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import threading
import time

import pytest

import fake_server
from fake_server import CA, Honest, openssl, refusal

REPO = pathlib.Path(__file__).resolve().parents[2]
SIGNET = pathlib.Path(os.environ.get("SIGNET_BUILD", REPO / "build")) / "bin" / "signet"
MAC = "24:0a:c4:12:34:56"
NAME = "240ac4123456"


class PKI:
    """Root, intermediate, the server's and an operator's certificate; and a stranger's of each."""

    def __init__(self, directory):
        self.root = CA(directory / "root", "Test Root")
        self.ca = CA(directory / "ca", "Test Issuing CA", self.root)
        self.server = self.with_chain(self.ca, "server")
        self.operator = self.ca.issue("op@desk")
        self.other_root = CA(directory / "other-root", "Other Root")
        self.other_ca = CA(directory / "other-ca", "Other Issuing CA", self.other_root)

    @staticmethod
    def with_chain(ca, extensions, name="127.0.0.1", dates=()):
        key, pem = ca.issue(name, extensions, dates)
        pem.write_bytes(pem.read_bytes() + ca.pem.read_bytes())
        return key, pem


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return PKI(tmp_path_factory.mktemp("pki"))


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout.decode(), done.stderr.decode()


class Client:
    """A laptop with a config file; `out` is where the devices' folders go."""

    def __init__(self, pki, directory):
        self.pki, self.dir = pki, directory
        self.out = directory / "devices"
        self.out.mkdir()
        self.final, self.pending = self.out / NAME, self.out / f"{NAME}.pending"
        self.config = directory / "signet.conf"
        self.write_config("https://127.0.0.1:1")

    def write_config(self, server, **more):
        key, cert = self.pki.operator
        lines = {"server": server, "ca": self.pki.root.pem, "cert": cert, "key": key,
                 "out": "devices", "key_type": "ec:p256", "timeout": "10", **more}
        self.config.write_text("[client]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items()))

    def command(self, *args):
        return [SIGNET, *args]

    def env(self, **more):
        return {"PATH": os.environ["PATH"], "HOME": str(self.dir / "home"),
                "SIGNET_CONFIG": str(self.config), **more}

    def run(self, *args, env=None):
        return Result(subprocess.run(self.command(*args), capture_output=True, timeout=60,
                                     env=self.env(**(env or {})), cwd=self.dir))

    def provision(self, server, *args, **kwargs):
        return self.run("provision", "--mac", MAC, "--server", server, *args, **kwargs)

    def files(self):
        return sorted(str(p.relative_to(self.out)) for p in self.out.rglob("*"))


@pytest.fixture
def client(pki, tmp_path):
    return Client(pki, tmp_path)


@pytest.fixture
def serve(pki):
    """serve(answer) starts a fake server with the right certificate, or another one."""
    import contextlib
    with contextlib.ExitStack() as stack:
        def start(answer=None, server=None):
            key, certificate = server or pki.server
            return stack.enter_context(fake_server.serving(
                answer or Honest(pki.ca), certificate, key, pki.ca.chain().decode()))
        yield start


def assert_sentence(result, code, *words):
    """The exit code, and one line on stderr that holds these words."""
    assert result.code == code, result.err
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("signet: "), result.err
    for word in words:
        assert str(word) in lines[0], result.err


def assert_nothing_saved(client):
    """No device's folder, no certificate; at most a whole key and request that wait."""
    assert not client.final.exists()
    allowed = {client.pending.name, f"{client.pending.name}/device.key",
               f"{client.pending.name}/device.csr"}
    assert set(client.files()) <= allowed


def assert_no_trace(client):
    assert client.files() == []


def assert_complete(client, pki):
    assert client.files() == [NAME] + [f"{NAME}/{f}" for f in (
        "ca.pem", "chain.pem", "device.crt", "device.csr", "device.key")]
    folder = client.final
    key = folder / "device.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", folder / "ca.pem",
            "-untrusted", folder / "chain.pem", folder / "device.crt")
    public = openssl("pkey", "-in", key, "-pubout")
    assert public == openssl("x509", "-in", folder / "device.crt", "-noout", "-pubkey")
    assert public == openssl("req", "-in", folder / "device.csr", "-noout", "-pubkey", "-verify")
    subject = openssl("x509", "-in", folder / "device.crt", "-noout", "-subject")
    assert subject.decode().strip() == f"subject=CN = {MAC}"
    assert (folder / "ca.pem").read_bytes() == pki.root.pem.read_bytes()
    assert (folder / "chain.pem").read_bytes() == pki.ca.pem.read_bytes()


# --- the right way ---

def test_provision(client, serve, pki):
    server = serve()
    client.write_config(server.url)
    done = client.run("provision", "--mac", "24-0A-C4-12-34-56")
    assert (done.code, done.err) == (0, ""), done.err
    assert MAC in done.out and str(client.final) in done.out
    assert_complete(client, pki)
    request = json.loads(server.bodies[0])
    assert set(request) == {"operation", "csr", "profile", "request_id"}
    assert request["operation"] == "req_client_cert" and request["profile"] == "device"
    assert base64.b64decode(request["csr"]) == (client.final / "device.csr").read_bytes()
    assert server.peers[0]["subject"] == ((("commonName", "op@desk"),),)


@pytest.mark.parametrize("key_type, words", [
    ("rsa:2048", ["rsaEncryption", "2048 bit"]), ("rsa:3072", ["rsaEncryption", "3072 bit"]),
    ("ec:p256", ["prime256v1", "256 bit"]), ("ec:p384", ["secp384r1", "384 bit"])])
def test_key_types(client, serve, pki, key_type, words):
    done = client.provision(serve().url, "--key-type", key_type)
    assert done.code == 0, done.err
    text = openssl("x509", "-in", client.final / "device.crt", "-noout", "-text").decode()
    for word in words:
        assert word in text
    assert_complete(client, pki)


def test_rsa_is_the_default(client, serve, pki):
    client.config.write_text(client.config.read_text().replace("key_type", "#key_type"))
    assert client.provision(serve().url).code == 0
    text = openssl("pkey", "-in", client.final / "device.key", "-noout", "-text").decode()
    assert "2048 bit" in text


def test_flags_need_no_config_file(client, serve, pki):
    key, cert = pki.operator
    client.config.unlink()
    done = client.run("provision", "--mac", MAC, "--server", serve().url + "/", "--ca",
                      pki.root.pem, "--cert", cert, "--key", key, "--out", client.out,
                      "--key-type", "ec:p256", env={"SIGNET_CONFIG": ""})
    assert done.code == 0, done.err
    assert_complete(client, pki)


def test_json(client, serve):
    done = client.provision(serve().url, "--json")
    (line,) = done.out.splitlines()
    result = json.loads(line)
    assert result["status"] == "OK" and result["mac"] == MAC and result["resumed"] is False
    assert pathlib.Path(result["certificate"]).read_bytes()
    assert len(result["serial"]) >= 32

    done = client.provision(serve().url, "--json")
    (line,) = done.out.splitlines()
    result = json.loads(line)
    assert (done.code, result["exit"], result["status"]) == (5, 5, "ERROR")
    assert result["error"]["code"] == "already_exists"
    assert done.err == f"signet: {result['error']['message']}\n"


def test_no_proxy_no_system_roots(client, serve, pki):
    """Neither a proxy nor a root from the environment takes part."""
    env = {"https_proxy": fake_server.closed_port(), "ALL_PROXY": "http://127.0.0.1:1"}
    assert client.provision(serve().url, env=env).code == 0
    wrong = serve(server=pki.with_chain(pki.other_ca, "server", "10.0.0.1"))
    env = {"SSL_CERT_FILE": str(pki.other_root.pem), "CURL_CA_BUNDLE": str(pki.other_root.pem)}
    assert client.provision(wrong.url, "--out", client.dir / "b", env=env).code == 6


# --- exit code 3: unreachable or timed out ---

def test_nothing_listens(client):
    url = fake_server.closed_port()
    assert_sentence(client.provision(url), 3, url, "Connection refused")
    assert_no_trace(client)


def test_unknown_host(client):
    assert_sentence(client.provision("https://nowhere.invalid:8443"), 3,
                    "https://nowhere.invalid:8443", "host name is not known")
    assert_no_trace(client)


def test_port_that_never_answers(client):
    with fake_server.mute_port() as url:
        done = client.provision(url, "--connect-timeout", "0.5")
    assert_sentence(done, 3, url, "no TLS connection within 0.5 s")
    assert_no_trace(client)


def test_request_that_is_never_answered(client, serve):
    gone = threading.Event()
    server = serve(lambda request, number: lambda handler: gone.wait(30))
    done = client.provision(server.url, "--timeout", "3")
    gone.set()
    assert_sentence(done, 3, server.url, "no complete answer within 3 s")
    assert_nothing_saved(client)
    assert len(set(server.bodies)) == 1  # asked again, but nothing else


def test_slow_drip(client, serve):
    def drip(handler):
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
            for _ in range(100):
                handler.wfile.write(b"{")
                time.sleep(0.1)
        except OSError:
            pass
    server = serve(lambda request, number: drip)
    done = client.provision(server.url, "--timeout", "2")
    assert_sentence(done, 3, server.url, "no complete answer within 2 s")
    assert_nothing_saved(client)


def test_lost_answer_is_asked_for_again(client, serve, pki):
    """The connection breaks after the certificate was made: the same request gets the same one."""
    honest = Honest(pki.ca)

    def answer(request, number):
        result = honest(request, number)
        return result if number == 3 else lambda handler: handler.connection.close()
    server = serve(answer)
    assert client.provision(server.url).code == 0
    assert len(server.bodies) == 3 and len(set(server.bodies)) == 1
    assert len(honest.known) == 1
    assert_complete(client, pki)


def test_silent_server_is_asked_again(client, serve, pki):
    honest, gone = Honest(pki.ca), threading.Event()

    def answer(request, number):
        return honest(request, number) if number > 1 else lambda handler: gone.wait(30)
    server = serve(answer)
    done = client.provision(server.url, "--timeout", "6")
    gone.set()
    assert done.code == 0, done.err
    assert len(server.bodies) == 2 and len(set(server.bodies)) == 1


def test_busy_server_is_asked_again(client, serve, pki):
    honest = Honest(pki.ca)

    def answer(request, number):
        if number == 1:
            return refusal(503, "busy", "busy", headers={"Retry-After": "1"})
        return honest(request, number)
    server = serve(answer)
    began = time.monotonic()
    assert client.provision(server.url).code == 0
    assert time.monotonic() - began >= 1
    assert len(server.bodies) == 2 and server.bodies[0] == server.bodies[1]
    assert_complete(client, pki)


# --- exit code 4: refused ---

def test_refusal(client, serve):
    server = serve(lambda *_: refusal(403, "role_refused", "your role \x1b[31mdoes not\n allow"))
    done = client.provision(server.url)
    assert_sentence(done, 4, server.url, "req_client_cert", "(role_refused)", "?[31m")
    assert len(server.bodies) == 1
    assert_no_trace(client)


def test_busy_for_too_long(client, serve):
    server = serve(lambda *_: refusal(503, "token_unavailable", "the token is away",
                                      headers={"Retry-After": "60"}))
    assert_sentence(client.provision(server.url), 4, server.url, "(token_unavailable)")
    assert len(server.bodies) == 1  # 60 s do not fit into the timeout
    assert_nothing_saved(client)


def test_operator_of_another_ca(client, serve, pki):
    """Refused within TLS: nothing was asked, so nothing waits."""
    server = serve()
    key, cert = pki.other_ca.issue("stranger")
    assert_sentence(client.provision(server.url, "--cert", cert, "--key", key), 4, server.url,
                    "alert", "operator certificate")
    assert server.bodies == []
    assert_no_trace(client)


# --- exit code 6: what does not verify ---

@pytest.mark.parametrize("which, cause", [
    ("other CA", "self-signed certificate in certificate chain"),
    ("self-signed", "self-signed certificate"),
    ("other host", "another host name"), ("expired", "expired"),
    ("expired", "this machine's clock says 20"), ("not yet", "this machine's clock says 20"),
    ("a client's", "purpose")])
def test_wrong_server_certificate(client, serve, pki, tmp_path, which, cause):
    past = ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    if which == "other CA":
        server = pki.with_chain(pki.other_ca, "server")
        server[1].write_bytes(server[1].read_bytes() + pki.other_root.pem.read_bytes())
    elif which == "self-signed":
        server = (pki.other_root.dir / "ca.key", pki.other_root.pem)
    elif which == "other host":
        server = pki.with_chain(pki.ca, "otherhost")
    elif which == "expired":
        server = pki.with_chain(pki.ca, "server", "expired", past)
    elif which == "not yet":
        future = ("-startdate", "20700101000000Z", "-enddate", "20710101000000Z")
        server = pki.with_chain(pki.ca, "server", "not-yet", future)
    else:
        server = pki.with_chain(pki.ca, "client", "127.0.0.1")
    fake = serve(server=server)
    assert_sentence(client.provision(fake.url), 6, fake.url, "is not the server that was pinned",
                    cause)
    assert fake.bodies == []
    assert_no_trace(client)


def test_plain_http_port(client):
    import http.server
    plain = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=plain.serve_forever, kwargs={"poll_interval": 0.05}).start()
    url = f"https://127.0.0.1:{plain.server_address[1]}"
    done = client.provision(url)
    plain.shutdown()
    plain.server_close()
    assert_sentence(done, 6, url, "TLS")
    assert_no_trace(client)


@pytest.mark.parametrize("status, body", [
    (200, b"<html>hello</html>"), (200, b""), (200, b"[]"), (200, b'{"status":"OK"'),
    (200, b'{"status":"OK"}'), (200, b'{"status":"OK","operation":"get_crl"}'),
    (200, b'{"Status":"OK","Operation":"req_client_cert"}'),
    (200, b'{"status":"OK","operation":"req_client_cert"}x'),
    (200, b'{"status":1,"operation":"req_client_cert"}'),
    (200, b'{"status":"OK","operation":"req_client_cert","serial":12}'),
    (200, b'{"status":"OK","operation":"req_client_cert","serial":"4f","certificate":"*","chain":""}'),
    (500, b'{"status":"OK","operation":"req_client_cert"}'), (502, b"Bad Gateway"),
    (200, b'{"status":"ERROR","operation":"req_client_cert","error":{"code":"x","message":"y"}}'),
    (404, b'{"status":"ERROR","operation":"req_client_cert","error":"x"}'),
    (301, b""), (200, b"{" * 100000)],
    ids=lambda value: str(value)[:40])
def test_answer_that_is_not_understood(client, serve, status, body):
    server = serve(lambda *_: (status, {"Location": "https://127.0.0.1:1/"}, body))
    assert_sentence(client.provision(server.url), 6, server.url)
    assert len(server.bodies) == 1
    assert_nothing_saved(client)


@pytest.mark.parametrize("wrap", [
    lambda status, body: (status, body + b"x"), lambda status, body: (status, body + b"{}"),
    lambda status, body: (500, body), lambda status, body: (201, body),
    lambda status, body: (status, body.replace(b"req_client_cert", b"req_server_cert")),
    lambda status, body: (status, body.replace(b'"OK"', b'"ok"'))],
    ids=["trailing", "two objects", "500", "201", "other operation", "other status"])
def test_right_certificate_in_a_wrong_answer(client, serve, pki, wrap):
    honest = Honest(pki.ca)

    def answer(request, number):
        status, headers, body = honest(request, number)
        status, body = wrap(status, body)
        return status, headers, body
    server = serve(answer)
    assert_sentence(client.provision(server.url), 6, server.url, "not a Signet answer")
    assert_nothing_saved(client)


def test_huge_answer(client, serve):
    server = serve(lambda *_: (200, {}, b" " * (9 * 1024 * 1024)))
    assert_sentence(client.provision(server.url), 6, server.url, "more than 8388608 bytes")
    assert_nothing_saved(client)


class OtherKey(Honest):
    def certify(self, csr):
        return self.ca.sign(CA.new_csr(self.ca.dir / "stray.key", MAC))


class OtherMac(Honest):
    def certify(self, csr):
        return self.ca.sign(csr, subject="24:0a:c4:12:34:57")


class OtherRoot(Honest):
    def __init__(self, pki):
        super().__init__(pki.other_ca)


class CannedCertificate(Honest):
    """Signs with the wrong CA, and sends the right chain."""

    def __init__(self, pki):
        super().__init__(pki.ca)
        self.other = pki.other_ca

    def certify(self, csr):
        return self.other.sign(csr)


class ServerCertificate(Honest):
    def certify(self, csr):
        return self.ca.sign(csr, "server")


class Expired(Honest):
    def certify(self, csr):
        return self.ca.sign(csr, dates=("-startdate", "20200101000000Z",
                                        "-enddate", "20210101000000Z"))


class OtherSerial(Honest):
    def req_client_cert(self, request):
        return {**super().req_client_cert(request), "serial": "4f00"}


@pytest.mark.parametrize("make, cause", [
    (lambda pki: OtherKey(pki.ca), "for another key"),
    (lambda pki: OtherMac(pki.ca), "for another MAC"),
    (OtherRoot, "self-signed certificate in certificate chain"),
    (CannedCertificate, "unable to get local issuer certificate"),
    (lambda pki: ServerCertificate(pki.ca), "purpose"),
    (lambda pki: Expired(pki.ca), "expired"),
    (lambda pki: OtherSerial(pki.ca), "serial")])
def test_wrong_certificate(client, serve, pki, make, cause):
    server = serve(make(pki))
    assert_sentence(client.provision(server.url), 6, server.url, cause, "nothing of it was saved",
                    client.pending)
    assert_nothing_saved(client)

    # the same server, put right: the same key and request go on
    key = (client.pending / "device.key").read_bytes()
    server.answer = Honest(pki.ca)
    assert client.provision(server.url).code == 0
    assert server.bodies[0] == server.bodies[-1]
    assert key == (client.final / "device.key").read_bytes()
    assert_complete(client, pki)


# --- exit code 5: files ---

def test_existing_output(client, serve):
    server = serve()
    assert client.provision(server.url).code == 0
    before = {p: p.read_bytes() for p in client.final.iterdir()}
    assert_sentence(client.provision(server.url), 5, client.final, "exists already", "--out")
    assert {p: p.read_bytes() for p in client.final.iterdir()} == before
    assert len(server.bodies) == 1


@pytest.mark.parametrize("thing", ["file", "folder", "dangling link"])
def test_existing_other_output(client, serve, thing):
    server = serve()
    if thing == "file":
        client.final.write_text("mine")
    elif thing == "folder":
        client.final.mkdir()
        (client.final / "device.key").write_text("mine")
    else:
        client.final.symlink_to(client.dir / "nowhere")
    before = client.files()
    assert_sentence(client.provision(server.url), 5, client.final, "exists already")
    assert client.files() == before and server.bodies == []


def test_out_is_a_file(client, serve):
    server = serve()
    (client.dir / "file").write_text("")
    assert_sentence(client.provision(server.url, "--out", "file"), 5, "file")
    assert server.bodies == []


def in_mount_namespace(client, mount, *args):
    """Runs signet with a file system of its own at client.out; returns it and what is there after."""
    listing = client.dir / "listing"
    script = (f'{mount} || exit 99; "$@"; code=$?; '
              f'cd "$OUT" && find . -mindepth 1 ! -name filler >"{listing}"; exit $code')
    command = ["unshare", "-m", "sh", "-c", script, "sh", *map(str, client.command(*args))]
    done = Result(subprocess.run(command, capture_output=True, timeout=60, cwd=client.dir,
                                 env=client.env(OUT=str(client.out))))
    if done.code == 99 or "unshare" in done.err:
        pytest.skip("needs root and mount namespaces")
    return done, sorted(listing.read_text().splitlines())


def test_read_only_folder(client, serve):
    server = serve()
    done, files = in_mount_namespace(client, 'mount -t tmpfs -o ro none "$OUT"', "provision",
                                     "--mac", MAC, "--server", server.url)
    assert_sentence(done, 5, client.out, "Read-only file system")
    assert files == [] and server.bodies == []


FULL = ('mount -t tmpfs -o size=64k none "$OUT" && '
        'dd if=/dev/zero of="$OUT/filler" bs=4k count={} status=none')


@pytest.mark.parametrize("pages_left", [0, 1])
def test_full_disk_before_the_request(client, serve, pages_left):
    """Without room for key and request nothing is sent, and nothing half written is left."""
    server = serve()
    done, files = in_mount_namespace(client, FULL.format(16 - pages_left), "provision", "--mac",
                                     MAC, "--server", server.url)
    assert_sentence(done, 5, client.out, "No space left on device")
    assert files == [] and server.bodies == []


def test_full_disk_after_the_answer(client, serve):
    server = serve()
    done, files = in_mount_namespace(client, FULL.format(16 - 3), "provision", "--mac", MAC,
                                     "--server", server.url)
    assert_sentence(done, 5, client.pending, "No space left on device", "goes on with it")
    assert not any(f.endswith("device.crt") or f == f"./{NAME}" for f in files)
    assert f"./{NAME}.pending/device.key" in files and len(server.bodies) == 1
    assert not any(re.search(r"\.(key|csr|crt|pem)\.", f) for f in files)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_missing_operator_file(client, serve, name):
    server = serve()
    client.write_config(server.url, **{name: "nowhere.pem"})
    assert_sentence(client.run("provision", "--mac", MAC), 5, client.dir / "nowhere.pem",
                    "No such file")
    assert server.bodies == []
    assert_no_trace(client)


def test_operator_key_of_another(client, serve, pki):
    server = serve()
    key, _ = pki.ca.issue("someone")
    assert_sentence(client.provision(server.url, "--key", key), 5, key, "does not belong")
    assert server.bodies == []


# --- interruption ---

def test_interrupted_and_resumed(client, serve, pki):
    honest, asked, gone = Honest(pki.ca), threading.Event(), threading.Event()

    def answer(request, number):
        result = honest(request, number)
        if number > 1:
            return result
        asked.set()
        return lambda handler: gone.wait(30)
    server = serve(answer)
    run = subprocess.Popen(client.command("provision", "--mac", MAC, "--server", server.url,
                                          "--timeout", "600"),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=client.env(),
                           cwd=client.dir)
    assert asked.wait(20)
    key = (client.pending / "device.key").read_bytes()  # safe before the request was sent
    busy = client.provision(server.url)
    assert_sentence(busy, 5, "another signet", MAC)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=20)
    gone.set()
    assert run.returncode == 130 and out == b""
    assert b"interrupted" in err and str(client.pending).encode() in err
    assert_nothing_saved(client)

    done = client.provision(server.url)
    assert done.code == 0 and "earlier" in done.out
    assert key == (client.final / "device.key").read_bytes()
    assert len(server.bodies) == 2 and server.bodies[0] == server.bodies[1]
    assert len(honest.known) == 1
    assert_complete(client, pki)


def test_interrupted_before_the_request(client, serve):
    """Ctrl-C during the handshake: nothing was sent, nothing is left."""
    with fake_server.mute_port() as url:
        run = subprocess.Popen(client.command("provision", "--mac", MAC, "--server", url,
                                              "--timeout", "600", "--connect-timeout", "600"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=client.env(),
                               cwd=client.dir)
        while not (client.pending / "device.csr").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=20)
    assert run.returncode == 130 and b"nothing was sent" in err
    assert_no_trace(client)


def test_killed_with_a_key_but_no_request(client, serve, pki):
    client.pending.mkdir()
    key = client.pending / "device.key"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    key.chmod(0o600)
    (client.pending / "device.csr.tmp-a1B2c3").write_text("half of a requ")
    before = key.read_bytes()
    assert client.provision(serve().url).code == 0
    assert (client.final / "device.key").read_bytes() == before
    assert_complete(client, pki)


def test_interrupted_while_making_a_key(client):
    """Ctrl-C at any time in a slow key generation: nothing is left."""
    run = subprocess.Popen(client.command("provision", "--mac", MAC, "--key-type", "rsa:4096",
                                          "--server", "https://127.0.0.1:1"),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=client.env(),
                           cwd=client.dir)
    while not client.pending.exists() and run.poll() is None:
        time.sleep(0.002)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 143 and err == (
        b"signet: interrupted; nothing was sent and nothing is left\n")
    assert_no_trace(client)


@pytest.mark.parametrize("spoil", ["key", "csr", "csr of another key", "csr of another MAC",
                                   "no key"])
def test_spoilt_pending_folder(client, serve, spoil):
    server = serve(lambda *_: (200, {}, b"no"))
    assert client.provision(server.url).code == 6
    asked = len(server.bodies)
    path = client.pending / ("device.csr" if spoil.startswith("csr") else "device.key")
    if spoil == "no key":
        path.unlink()
    elif spoil == "csr of another key":
        path.write_bytes(CA.new_csr(client.dir / "other.key", MAC).read_bytes())
    elif spoil == "csr of another MAC":
        openssl("req", "-new", "-key", client.pending / "device.key", "-subj",
                "/CN=24:0a:c4:00:00:00", "-out", path)
    else:
        path.write_text("spoilt")
    before = client.files()
    assert_sentence(client.provision(server.url), 5, path)
    assert client.files() == before and len(server.bodies) == asked


# --- exit code 2: usage ---

@pytest.mark.parametrize("args", [
    ["frobnicate"], ["provision"], ["provision", "--mac"], ["provision", "--mac", "zz"],
    ["provision", "--mac", "ff:ff:ff:ff:ff:ff"], ["provision", "--mac", "00:00:00:00:00:00"],
    ["provision", "--mac", "01:00:5e:00:00:01"], ["provision", "--mac", MAC, "more"],
    ["provision", "--mac", MAC, "--serial", "4f"], ["provision", "--mac", MAC, "--frob"],
    ["provision", "--mac", MAC, "--key-type", "rsa:1024"],
    ["provision", "--mac", MAC, "--server", "http://127.0.0.1:1"],
    ["provision", "--mac", MAC, "--server", "https://u:p@127.0.0.1:1"],
    ["provision", "--mac", MAC, "--server", "https://127.0.0.1:1/v1"],
    ["provision", "--mac", MAC, "--server", ""],
    ["provision", "--mac", MAC, "--timeout", "soon"],
    ["provision", "--mac", MAC, "--timeout", "0"],
    ["revoke"], ["revoke", "--serial", "xyz"], ["revoke", "--serial", "4f", "--reason", "boredom"],
    ["revoke", "--serial", "00" * 21], ["revoke", "--serial", "4f", "--certificate", "x"],
    ["verify"], ["verify", "a", "--mac", MAC], ["verify", "a", "--offline", "--crl", "b"],
    ["init"], ["init", "--server", "https://127.0.0.1:1"],
    ["init", "--ca-fingerprint", "00" * 32],
    ["init", "--server", "https://127.0.0.1:1", "--ca-fingerprint", "00"],
    ["init", "--server", "https://127.0.0.1:1", "--ca-fingerprint", "00" * 32, "--name", "a b"]])
def test_usage(client, args):
    assert_sentence(client.run(*args), 2)
    result = json.loads(client.run(args[0], "--json", *args[1:]).out)
    assert (result["status"], result["exit"], result["error"]["code"]) == ("ERROR", 2, "usage")
    assert_no_trace(client)


def test_init_without_fingerprint_says_how_to_get_it(client):
    done = client.run("init", "--server", "https://127.0.0.1:1")
    assert_sentence(done, 2, "openssl x509 -in root.pem -noout -fingerprint -sha256")


def test_config_mistakes(client):
    client.config.write_text("[client]\nservr = https://127.0.0.1:1\n")
    assert_sentence(client.run("crl"), 5, client.config, "servr")
    client.config.write_text("server\n")
    assert_sentence(client.run("crl"), 5, client.config, "line 1")
    assert_sentence(client.run("crl", "--config", "nowhere.conf"), 5, "nowhere.conf")
    assert_sentence(client.run("crl", env={"SIGNET_CONFIG": ""}), 2, "signet init", "signet.conf")


def test_help_and_version(client):
    assert client.run("--version").out.startswith("signet 0.")
    assert client.run("--help").code == 0
    for command in ("init", "provision", "revoke", "verify", "crl"):
        assert command in client.run("--help").out
        done = client.run(command, "--help")
        assert done.code == 0 and f"signet {command}" in done.out and "--timeout" in done.out
    nothing = client.run()
    assert nothing.code == 2 and "provision" in nothing.err


# --- init ---

def init(client, server, pki, *args):
    return client.run("init", "--server", server.url, "--ca-fingerprint", pki.root.fingerprint(),
                      "--key-type", "ec:p256", "--config", client.dir / "new/signet.conf", *args)


def test_init_and_install(client, serve, pki):
    server = serve()
    done = init(client, server, pki, "--name", "kim@bench-2")
    assert (done.code, done.err) == (0, ""), done.err
    assert "signetctl operator issue" in done.out and "operator.csr" in done.out
    folder = client.dir / "new"
    assert sorted(p.name for p in folder.iterdir()) == ["ca.pem", "operator.csr", "operator.key",
                                                        "signet.conf"]
    assert stat.S_IMODE((folder / "operator.key").stat().st_mode) == 0o600
    assert (folder / "ca.pem").read_bytes() == pki.root.pem.read_bytes()
    subject = openssl("req", "-in", folder / "operator.csr", "-noout", "-subject", "-verify")
    assert subject.decode().strip() == "subject=CN = kim@bench-2"

    again = init(client, server, pki)
    assert_sentence(again, 5, folder / "signet.conf", "exists already")

    certificate = client.dir / "answer.pem"
    certificate.write_bytes(pki.ca.sign(folder / "operator.csr"))
    done = client.run("init", "--install", certificate, "--config", folder / "signet.conf")
    assert done.code == 0, done.err
    assert (folder / "operator.pem").read_bytes() == certificate.read_bytes()
    done = client.run("provision", "--mac", MAC, "--config", folder / "signet.conf", "--out",
                      client.out, "--key-type", "ec:p256")
    assert done.code == 0, done.err
    assert server.peers[-1]["subject"] == ((("commonName", "kim@bench-2"),),)


def test_init_default_name_and_quoting(client, serve, pki):
    folder = client.dir / 'a #b $c "d" \\e'
    done = client.run("init", "--server", serve().url, "--ca-fingerprint",
                      pki.root.fingerprint().lower().replace(":", ""), "--key-type", "ec:p256",
                      "--config", folder / "s.conf", "--json")
    assert done.code == 0, done.err
    name = json.loads(done.out)["name"]
    assert re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name) and "@" in name
    done = client.run("crl", "--config", folder / "s.conf")
    assert done.code == 0 and "BEGIN X509 CRL" in done.out, done.err


def test_init_goes_on_after_an_interruption(client, serve, pki):
    server = serve()
    assert init(client, server, pki).code == 0
    (client.dir / "new/signet.conf").unlink()
    key = (client.dir / "new/operator.key").read_bytes()
    assert init(client, server, pki).code == 0
    assert (client.dir / "new/operator.key").read_bytes() == key


def test_init_refuses_another_fingerprint(client, serve, pki):
    server = serve()
    done = client.run("init", "--server", server.url, "--ca-fingerprint",
                      pki.other_root.fingerprint(), "--config", client.dir / "new/signet.conf")
    assert_sentence(done, 6, server.url, "no root with this fingerprint")
    assert not (client.dir / "new").exists()


def test_init_pins_roots_only(client, serve, pki):
    """The fingerprint of the intermediate, or of the listener, pins nothing."""
    server = serve()
    done = client.run("init", "--server", server.url, "--ca-fingerprint", pki.ca.fingerprint(),
                      "--config", client.dir / "new/signet.conf")
    assert_sentence(done, 6, "no root")


def test_init_refuses_a_server_that_only_shows_the_root(client, serve, pki):
    """Anybody can show the right chain; only the server has a certificate under that root."""
    server = serve(server=pki.with_chain(pki.other_ca, "server"))
    done = init(client, server, pki)
    assert_sentence(done, 6, server.url, "is not the server that was pinned")
    assert not (client.dir / "new").exists()


def test_install_refuses_a_certificate_of_another_key(client, serve, pki):
    server = serve()
    assert init(client, server, pki).code == 0
    _, cert = pki.ca.issue("someone-else")
    done = client.run("init", "--install", cert, "--config", client.dir / "new/signet.conf")
    assert_sentence(done, 6, cert, "another key")
    other = client.dir / "other.pem"
    other.write_bytes(pki.other_ca.sign(client.dir / "new/operator.csr"))
    done = client.run("init", "--install", other, "--config", client.dir / "new/signet.conf")
    assert_sentence(done, 6, other, "does not verify up to the pinned root")
    assert not (client.dir / "new/operator.pem").exists()


# --- revoke ---

def test_revoke(client, serve):
    server = serve()
    done = client.run("revoke", "--server", server.url, "--serial", "4F:00:AB", "--reason",
                      "superseded")
    assert done.code == 0 and "4f00ab is revoked since 2026-11-23T12:00:00Z" in done.out
    request = json.loads(server.bodies[0])
    assert (request["operation"], request["serial"], request["reason"]) == (
        "revoke_cert", "4f00ab", "superseded")
    assert server.peers[0]
    client.run("revoke", "--server", server.url, "--serial", "4f00ab")
    assert json.loads(server.bodies[1])["request_id"] != request["request_id"]


def test_revoke_by_file(client, serve, pki):
    server = serve()
    _, cert = pki.ca.issue("24:0a:c4:00:00:01")
    done = client.run("revoke", "--server", server.url, "--certificate", cert, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["serial"] == fake_server.serial_of(cert.read_bytes())


def test_revoke_failures(client, serve, pki):
    server = serve(lambda *_: refusal(404, "serial_unknown", "no such serial", "revoke_cert"))
    done = client.run("revoke", "--server", server.url, "--serial", "4f")
    assert_sentence(done, 4, server.url, "revoke_cert", "(serial_unknown)")

    class Other(Honest):
        def revoke_cert(self, request):
            return {**super().revoke_cert(request), "serial": "50"}
    done = client.run("revoke", "--server", serve(Other(pki.ca)).url, "--serial", "4f")
    assert_sentence(done, 6, "another certificate than 4f")


# --- verify ---

@pytest.fixture
def device(client, serve):
    server = serve()
    client.write_config(server.url)
    assert client.run("provision", "--mac", MAC).code == 0
    client.server = server
    return client


def test_verify(device):
    for what in (["--mac", MAC], [device.final], [device.final / "device.crt"]):
        done = device.run("verify", *what)
        assert done.code == 0 and "is good" in done.out and "not revoked (CRL" in done.out, done.err
    result = json.loads(device.run("verify", "--mac", MAC, "--json").out)
    assert (result["status"], result["key"], result["revocation"], result["subject"]) == (
        "OK", "matches", "good", MAC)


def test_verify_offline_asks_nobody(device):
    asked = len(device.server.bodies)
    done = device.run("verify", "--mac", MAC, "--offline", "--server", fake_server.closed_port())
    assert done.code == 0 and "not checked" in done.out
    done = device.run("verify", "--mac", MAC, "--server", fake_server.closed_port())
    assert_sentence(done, 3, "Connection refused", "--offline")
    assert len(device.server.bodies) == asked


def test_verify_revoked(device, pki):
    pki.ca.revoke(device.final / "device.crt")
    assert_sentence(device.run("verify", "--mac", MAC), 6, "is revoked since")
    crl = device.dir / "crl.pem"
    assert device.run("crl", "--out", crl).code == 0
    done = device.run("verify", "--mac", MAC, "--crl", crl, "--server", fake_server.closed_port())
    assert_sentence(done, 6, device.final, "is revoked since")
    openssl("crl", "-in", crl, "-outform", "DER", "-out", device.dir / "crl.der")
    assert_sentence(device.run("verify", "--mac", MAC, "--crl", device.dir / "crl.der"), 6,
                    "revoked")


def test_verify_failures(device, pki):
    other_crl = device.dir / "other.crl"
    other_crl.write_bytes(pki.other_ca.crl())
    assert_sentence(device.run("verify", "--mac", MAC, "--crl", other_crl), 6, other_crl,
                    "another CA")
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
            device.final / "device.key")
    assert_sentence(device.run("verify", device.final), 6, "another key")
    (device.final / "device.key").unlink()
    assert "absent" in device.run("verify", device.final, "--offline").out
    done = device.run("verify", "--mac", MAC, "--ca", pki.other_root.pem, "--offline")
    assert_sentence(done, 6, device.final / "device.crt", "pinned root")
    device.final.rename(device.out / "240ac4123457")
    assert_sentence(device.run("verify", "--mac", "24:0a:c4:12:34:57", "--offline"), 6,
                    "another MAC")
    assert_sentence(device.run("verify", "nowhere"), 5, "nowhere", "No such file")
    assert_sentence(device.run("verify", "--mac", MAC), 5, device.final)


# --- crl ---

def test_crl(client, serve, pki):
    server = serve()
    client.write_config(server.url)
    done = client.run("crl")
    assert done.code == 0
    path = client.dir / "from-stdout.pem"
    path.write_text(done.out)
    openssl("crl", "-in", path, "-noout", "-CAfile", pki.ca.pem)
    assert server.peers == [None, None] or not any(server.peers)  # anyone may ask
    saved = client.dir / "crl.pem"
    result = json.loads(client.run("crl", "--out", saved, "--json").out)
    assert result["status"] == "OK" and result["file"] == str(saved) and result["number"]
    openssl("crl", "-in", saved, "-noout", "-CAfile", pki.ca.pem)


def test_crl_never_goes_back(client, serve, pki):
    class Fixed(Honest):
        def get_crl(self, request):
            return {"status": "OK", "operation": "get_crl", "crl": fake_server.b64(self.fixed)}
    answer = Fixed(pki.ca)
    client.write_config(serve(answer).url)
    older, newer = pki.ca.crl(0x20), pki.ca.crl(0x120)
    saved = client.dir / "crl.pem"
    for answer.fixed in (older, newer, newer):
        assert client.run("crl", "--out", saved).code == 0
        assert saved.read_bytes() == answer.fixed
    answer.fixed = older
    assert_sentence(client.run("crl", "--out", saved), 6, saved, "higher CRL number")
    assert saved.read_bytes() == newer
    assert sorted(p.name for p in client.dir.iterdir()) == ["crl.pem", "devices", "signet.conf"]

    saved.write_text("a letter")
    assert_sentence(client.run("crl", "--out", saved), 5, saved, "not a CRL", "not overwritten")
    assert saved.read_text() == "a letter"


def test_crl_that_does_not_verify(client, serve, pki):
    class Wrong(Honest):
        def get_crl(self, request):
            return {"status": "OK", "operation": "get_crl", "crl": fake_server.b64(self.wrong)}
    answer = Wrong(pki.ca)
    server = serve(answer)
    client.write_config(server.url)
    good = openssl("crl", "-outform", "DER", input=pki.ca.crl())
    spoilt = good[:-1] + bytes([good[-1] ^ 1])
    cases = {"another CA": pki.other_ca.crl(), "is not a CRL": b"hello",
             "signature": openssl("crl", "-inform", "DER", input=spoilt)}
    saved = client.dir / "crl.pem"
    for cause, answer.wrong in cases.items():
        assert_sentence(client.run("crl", "--out", saved), 6, server.url, "CRL", cause)
        assert not saved.exists()


def test_crl_of_a_foreign_chain(client, serve, pki):
    """A server that is proven, but hands out another CA's chain and CRL."""
    server = serve(OtherRoot(pki))
    client.write_config(server.url)
    assert_sentence(client.run("crl", "--out", client.dir / "crl.pem"), 6, server.url,
                    "pinned root")
    assert not (client.dir / "crl.pem").exists()


# --- 429: a cap is reached ---

def test_too_many_says_when(client, serve):
    server = serve(lambda *_: refusal(429, "too_many", "the cap of certificates an hour is reached",
                                      headers={"Retry-After": "1790"}))
    began = time.monotonic()
    done = client.provision(server.url)
    assert_sentence(done, 4, server.url, "(too_many)", "in 30 min (at ")
    assert len(server.bodies) == 1 and time.monotonic() - began < 9  # not waited for
    assert_no_trace(client)


# --- signed requests ---

def verify_signature(tmp_path, server, number, certificate):
    """openssl cms with the body as it was on the wire."""
    header = server.headers[number].get_all("Signet-Signature")
    assert len(header) == 1 and re.fullmatch(r"[A-Za-z0-9+/]+=*", header[0])
    (tmp_path / "body").write_bytes(server.bodies[number])
    (tmp_path / "cms").write_bytes(base64.b64decode(header[0]))
    openssl("cms", "-verify", "-binary", "-inform", "DER", "-in", tmp_path / "cms", "-content",
            tmp_path / "body", "-certfile", certificate, "-noverify", "-out", "/dev/null")
    text = openssl("cms", "-cmsout", "-print", "-inform", "DER", "-in", tmp_path / "cms").decode()
    assert "sha256" in text and "<ABSENT>" in text  # no content, no certificate
    assert "d.certificate" not in text and "issuer: CN=Test Issuing CA" in text
    wrong = subprocess.run(["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", tmp_path / "cms",
                            "-content", "/etc/passwd", "-certfile", certificate, "-noverify"], capture_output=True)
    assert wrong.returncode != 0


@pytest.mark.parametrize("args", [
    ["revoke", "--mac", MAC], ["hold", "--mac", MAC], ["unhold", "--mac", MAC],
    ["revoke", "--issued-by", "kim", "--from", "2026-11-20", "--to", "2026-11-23"],
    ["revoke", "--serials", "list"], ["server-cert", "--name", "127.0.0.1", "--out-key", "s.key",
                                      "--out", "s.crt", "--key-type", "ec:p256"]])
def test_signed(client, serve, pki, tmp_path, args):
    (client.dir / "list").write_text("4f00\n4F:01\n")
    server = serve()
    done = client.run(*args, "--server", server.url)
    assert done.code == 0, done.err
    verify_signature(tmp_path, server, 0, pki.operator[1])
    request = json.loads(server.bodies[0])
    assert request["request_id"]
    if "--issued-by" in args:
        assert (request["from"], request["to"]) == ("2026-11-20T00:00:00Z", "2026-11-23T23:59:59Z")
    if "--serials" in args:
        assert request["serials"] == ["4f00", "4f01"]
    if args[0] in ("hold", "unhold"):
        assert request["reason"] == {"hold": "certificateHold", "unhold": "removeFromCRL"}[args[0]]


def test_signed_with_an_rsa_key(client, serve, pki, tmp_path):
    key = client.dir / "rsa.key"
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", client.dir / "rsa.csr",
            "-subj", "/CN=rsa@desk")
    cert = client.dir / "rsa.pem"
    cert.write_bytes(pki.ca.sign(client.dir / "rsa.csr"))
    server = serve()
    done = client.run("revoke", "--mac", MAC, "--server", server.url, "--cert", cert, "--key", key)
    assert done.code == 0, done.err
    verify_signature(tmp_path, server, 0, cert)


def test_one_certificate_needs_no_signature(client, serve):
    server = serve()
    for args in (["revoke", "--serial", "4f"], ["hold", "--serial", "4f"], ["crl", "--out", "crl.pem"]):
        assert client.run(*args, "--server", server.url).code == 0
    assert all(h.get("Signet-Signature") is None for h in server.headers)


def test_signed_request_is_sent_again_as_it_was(client, serve):
    honest = Honest(None)

    def answer(request, number):
        if number == 1:
            return refusal(503, "busy", "busy", "revoke_cert", headers={"Retry-After": "1"})
        return honest(request, number)
    server = serve(answer)
    assert client.run("revoke", "--mac", MAC, "--server", server.url).code == 0
    assert len(server.bodies) == 2 and server.bodies[0] == server.bodies[1]
    assert server.headers[0]["Signet-Signature"] == server.headers[1]["Signet-Signature"]


# --- revocation of several: what the server answers ---

@pytest.mark.parametrize("answer, code, words", [
    ({"count": 3}, 0, "3 certificates are revoked now"), ({"count": 1}, 0, "1 certificate is revoked now"),
    ({"count": 0}, 0, "nothing has changed"), ({}, 6, "neither"), ({"count": "3"}, 6, "neither"),
    ({"count": -1}, 6, "neither"), ({"serial": "4f"}, 6, "revoked_at")])
def test_answer_of_several(client, serve, answer, code, words):
    body = json.dumps({"status": "OK", "operation": "revoke_cert", "reason": "unspecified", **answer}).encode()
    server = serve(lambda *_: (200, {}, body))
    done = client.run("revoke", "--mac", MAC, "--server", server.url)
    assert done.code == code and words in done.out + done.err, done.out + done.err


# --- server-cert ---

class OtherHost(Honest):
    def req_server_cert(self, request):
        pem = self.ca.sign(base64.b64decode(request["csr"]), "otherhost")
        return {**super().req_server_cert(request), "serial": fake_server.serial_of(pem),
                "certificate": fake_server.b64(pem)}


class ClientCertificate(Honest):
    def req_server_cert(self, request):
        pem = self.ca.sign(base64.b64decode(request["csr"]), "client")
        return {**super().req_server_cert(request), "serial": fake_server.serial_of(pem),
                "certificate": fake_server.b64(pem)}


@pytest.mark.parametrize("make, cause", [(OtherHost, "not for IP:127.0.0.1"), (ClientCertificate, "not for")])
def test_server_cert_of_another(client, serve, pki, make, cause):
    server = serve(make(pki.ca))
    done = client.run("server-cert", "--name", "127.0.0.1", "--out-key", "s.key", "--out", "s.crt", "--server",
                      server.url, "--key-type", "ec:p256")
    assert_sentence(done, 6, server.url, cause, "nothing of it was saved")
    assert not (client.dir / "s.crt").exists()


def test_server_cert_asks_nothing_when_it_cannot_save(client, serve, pki):
    server = serve()
    (client.dir / "s.crt").write_text("mine")
    args = ["server-cert", "--name", "127.0.0.1", "--out-key", "s.key", "--server", server.url, "--key-type", "ec:p256"]
    assert_sentence(client.run(*args, "--out", "s.crt"), 5, "s.crt", "never overwritten")
    assert_sentence(client.run(*args, "--out", "nowhere/s.crt"), 5, "nowhere")
    assert server.bodies == [] and not (client.dir / "s.key").exists()


# --- renew ---

@pytest.fixture
def renewing(device):
    """A device with its certificate; state() is what must not change when a renewal fails."""
    def state():
        return {p.name: p.read_bytes() for p in device.final.iterdir() if p.is_file()}
    device.state = state
    device.pending_renewal = device.final / "renewal.pending"
    return device


def renew(client, server, *args, **kwargs):
    return client.run("renew", client.final, "--server", server.url, *args, **kwargs)


def test_renew_connects_as_the_device(renewing, serve, pki):
    server = serve()
    before = renewing.state()
    assert renew(renewing, server).code == 0
    assert server.peers[0]["subject"] == ((("commonName", MAC),),)
    request = json.loads(server.bodies[0])
    assert set(request) == {"operation", "csr", "request_id"} and request["operation"] == "renew_client_cert"
    assert renewing.state()["device.key"] == before["device.key"]
    assert not renewing.pending_renewal.exists()


class Renewal(Honest):
    """Renews; `change` says how wrongly."""

    def __init__(self, ca, change):
        super().__init__(ca)
        self.change = change

    def renew_client_cert(self, request):
        return {**super().renew_client_cert(request), **self.change(self, request)}


def answer_with(pem):
    return {"serial": fake_server.serial_of(pem), "certificate": fake_server.b64(pem)}


@pytest.mark.parametrize("change, cause", [
    (lambda s, r: answer_with(s.ca.sign(CA.new_csr(s.ca.dir / "x.key", MAC))), "another key"),
    (lambda s, r: answer_with(s.ca.sign(base64.b64decode(r["csr"]), subject="24:0a:c4:12:34:57")), "another MAC"),
    (lambda s, r: answer_with(s.ca.sign(base64.b64decode(r["csr"]), subject=f"{MAC}/O=x")), "subject"),
    (lambda s, r: answer_with(s.ca.sign(base64.b64decode(r["csr"]), "server")), "purpose"),
    (lambda s, r: {"serial": "4f00"}, "serial"),
    (lambda s, r: answer_with(s.old), "the certificate that was to be renewed"),
    (lambda s, r: {"certificate": "AAAA"}, "not a certificate")])
def test_renewal_that_is_wrong(renewing, serve, pki, change, cause):
    before = renewing.state()
    wrong = Renewal(pki.ca, change)
    wrong.old = before["device.crt"]
    server = serve(wrong)
    assert_sentence(renew(renewing, server), 6, server.url, cause)
    assert renewing.state() == before
    wrong.change = lambda s, r: {}
    assert renew(renewing, server).code == 0  # and the next one goes on
    assert renewing.state()["device.crt"] != before["device.crt"]
    assert not renewing.pending_renewal.exists()


@pytest.mark.parametrize("more", [[], ["--new-key"]])
def test_renewal_lost_answer(renewing, serve, pki, more):
    """The server did it, the client never heard: the next run asks the same and gets the same one."""
    honest, before = Honest(pki.ca), renewing.state()
    deaf = [True]

    def answer(request, number):
        result = honest(request, number)
        return (lambda handler: handler.connection.close()) if deaf[0] else result
    server = serve(answer)
    assert_sentence(renew(renewing, server, *more, "--timeout", "1"), 3, "the same command goes on")
    assert renewing.state() == before
    deaf[0] = False
    assert renew(renewing, server, *more).code == 0
    assert len(set(server.bodies)) == 1 and len(honest.known) == 1
    assert renewing.run("verify", renewing.final, "--offline").code == 0


def test_renewal_of_an_rsa_key_twice(client, serve, pki):
    """Its request is the same each time (PKCS#1 v1.5 signs without chance), the renewal is another."""
    server = serve()
    assert client.provision(server.url, "--key-type", "rsa:2048").code == 0
    assert renew(client, server).code == 0 and renew(client, server).code == 0
    first, second = map(json.loads, server.bodies[1:])
    assert first["csr"] == second["csr"] and first["request_id"] != second["request_id"]


def test_renewal_resumed_for_another_key(renewing, serve, pki):
    """--new-key is asked for because the old key is not to be used any more: no old request is resumed."""
    server = serve(lambda *_: (200, {}, b"no"))
    assert renew(renewing, server).code == 6
    assert renew(renewing, server, "--new-key").code == 6
    first, second = (json.loads(b)["csr"] for b in server.bodies)
    assert first != second
    key = renewing.pending_renewal / "device.key"
    assert key.read_bytes() != renewing.state()["device.key"]


@pytest.mark.parametrize("placed", range(5))
@pytest.mark.parametrize("new_key", [False, True])
def test_renewal_interrupted_while_it_is_put_in_place(renewing, serve, pki, placed, new_key):
    """Whatever was in place already: the next run finishes it, without the server."""
    server = serve()
    before = renewing.state()
    serial = fake_server.serial_of(before["device.crt"])[:8]
    assert renew(renewing, server, *(["--new-key"] if new_key else [])).code == 0
    after = renewing.state()
    # back to the moment when `placed` of the steps were done
    for name in renewing.final.iterdir():
        name.unlink()
    pending = renewing.pending_renewal
    pending.mkdir()
    for name, data in before.items():
        (renewing.final / name).write_bytes(data)
    (renewing.final / "device.key").chmod(0o600)
    steps = ["device.crt." + serial, "chain.pem", "device.csr", "device.key"] if new_key else \
        ["device.crt." + serial, "chain.pem", "device.csr"]
    for name in ["chain.pem", "device.csr", "device.crt"] + (["device.key"] if new_key else []):
        (pending / name).write_bytes(after[name])
    for name in steps[:placed]:
        (renewing.final / name).write_bytes(after[name])
        if name == "device.key":
            (renewing.final / f"device.key.{serial}").write_bytes(before["device.key"])
        if name in ("chain.pem", "device.csr", "device.key"):
            (pending / name).unlink()
    done = renewing.run("renew", renewing.final, "--server", fake_server.closed_port())
    assert done.code == 0, done.err
    assert "of an earlier run" in done.out
    assert renewing.state() == after and not pending.exists()


def test_renewal_that_waits_is_verified_again(renewing, serve, pki):
    before = renewing.state()
    renewing.pending_renewal.mkdir()
    stranger = pki.other_ca.sign(CA.new_csr(pki.other_ca.dir / "y.key", MAC))
    (renewing.pending_renewal / "device.crt").write_bytes(stranger)
    assert_sentence(renewing.run("renew", renewing.final), 6, "renewal.pending/device.crt")
    assert renewing.state() == before


def test_renewal_never_to_another_key(renewing, serve, pki):
    """A certificate of this CA, for this MAC, for some other key, that waits: not taken."""
    before = renewing.state()
    renewing.pending_renewal.mkdir()
    other = pki.ca.sign(CA.new_csr(pki.ca.dir / "z.key", MAC))
    (renewing.pending_renewal / "device.crt").write_bytes(other)
    (renewing.pending_renewal / "chain.pem").write_bytes(before["chain.pem"])
    assert_sentence(renewing.run("renew", renewing.final), 6, "another key")
    assert renewing.state() == before


def test_renewal_never_to_another_mac(renewing, serve, pki):
    before = renewing.state()
    renewing.pending_renewal.mkdir()
    other = pki.ca.sign(renewing.final / "device.csr", subject="24:0a:c4:12:34:57")
    (renewing.pending_renewal / "device.crt").write_bytes(other)
    assert_sentence(renewing.run("renew", renewing.final), 6, "another MAC")
    assert renewing.state() == before


def test_renew_one_at_a_time(renewing, serve):
    server = serve()
    folder = os.open(renewing.final, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert_sentence(renew(renewing, server), 5, "another signet is at work")
    os.close(folder)
    assert server.bodies == [] and renew(renewing, server).code == 0


def test_renew_refused_leaves_nothing(renewing, serve):
    before = renewing.state()
    server = serve(lambda *_: refusal(401, "certificate_expired", "it has expired", "renew_client_cert"))
    assert_sentence(renew(renewing, server), 4, "(certificate_expired)", f"signet provision --mac {MAC} --replace")
    assert renewing.state() == before and not renewing.pending_renewal.exists()


def test_renew_of_a_strange_folder(renewing, serve):
    server = serve()
    (renewing.final / "device.key").write_text("spoilt")
    assert_sentence(renew(renewing, server), 5, "device.key")
    assert server.bodies == [] and not renewing.pending_renewal.exists()


# --- provision --replace ---

def test_replace_moves_nothing_before_the_new_one_is_verified(device, serve, pki):
    before = {p: (device.out / p).read_bytes() for p in device.files() if (device.out / p).is_file()}

    def now():
        return {p: (device.out / p).read_bytes() for p in device.files() if (device.out / p).is_file()
                and not p.startswith(device.pending.name)}
    server = serve(OtherSerial(pki.ca))
    assert_sentence(device.provision(server.url, "--replace"), 6, "nothing of it was saved")
    assert now() == before
    server = serve(lambda *_: refusal(403, "role_refused", "not you"))
    assert_sentence(device.provision(server.url, "--replace"), 4, "(role_refused)")
    assert now() == before
    server = serve()
    assert device.provision(server.url, "--replace").code == 0
    request = json.loads(server.bodies[0])
    assert request["replace"] is True
    aside = f"{NAME}.replaced-{fake_server.serial_of(before[NAME + '/device.crt'])[:8]}"
    moved = {p.replace(NAME, aside, 1): data for p, data in before.items()}
    assert {p: d for p, d in now().items() if p.startswith(aside)} == moved
    assert device.run("verify", "--mac", MAC, "--server", server.url).code == 0


def test_replace_goes_on_after_an_interruption(device, serve, pki):
    """Cut between the two renames: the older folder is aside, the new one waits."""
    server = serve()
    assert device.provision(server.url, "--replace").code == 0
    device.final.rename(device.pending)
    assert device.provision(server.url, "--replace").code == 0
    assert len(set(server.bodies)) == 1
    assert len([p for p in device.out.iterdir()]) == 2


def test_replace_never_overwrites_what_was_replaced(device, serve, pki):
    """A folder that was copied back: its name for afterwards is taken, and is not given up."""
    server = serve()
    serial = fake_server.serial_of((device.final / "device.crt").read_bytes())
    aside = device.out / f"{NAME}.replaced-{serial[:8]}"
    aside.mkdir()
    (aside / "device.key").write_text("older")
    assert_sentence(device.provision(server.url, "--replace"), 5, aside, "exists already")
    assert server.bodies == [] and (aside / "device.key").read_text() == "older"


def test_replace_is_another_request(client, serve, pki):
    """An id belongs to one body: with --replace the same key's request has another."""
    honest = Honest(pki.ca)

    def answer(request, number):
        if number == 1:
            return 200, {}, b"no"
        return honest(request, number)
    server = serve(answer)
    assert client.provision(server.url).code == 6
    assert client.provision(server.url, "--replace").code == 0
    first, second = map(json.loads, server.bodies)
    assert first["csr"] == second["csr"] and first["request_id"] != second["request_id"]


# --- list, show ---

ROW = {"serial": "4f00", "state": "issued", "name": MAC, "profile": "device", "operator": "kim",
       "not_before": "2026-11-23T12:00:00Z", "not_after": "2036-11-20T12:00:00Z",
       "issued_at": "2026-11-23T12:00:00Z"}


class Lister(Honest):
    def __init__(self, ca, rows, step=2):
        super().__init__(ca)
        self.rows, self.step = rows, step

    def list_certs(self, request):
        at = int(request.get("after", "0"))
        page = self.rows[at:at + min(self.step, request["limit"])]
        more = at + len(page) < len(self.rows)
        return {"status": "OK", "operation": "list_certs", "certificates": page,
                **({"next": str(at + len(page))} if more else {})}


def test_list_follows_pages_and_aligns(client, serve, pki):
    rows = [{**ROW, "serial": f"{i:04x}", "operator": "k" * i} for i in range(1, 6)]
    server = serve(Lister(pki.ca, rows))
    done = client.run("list", "--server", server.url, "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == rows and len(server.bodies) == 3
    done = client.run("list", "--server", server.url, "--limit", "3")
    assert len(done.out.splitlines()) == 4 and "raise --limit" in done.err
    assert [json.loads(b)["limit"] for b in server.bodies[3:]] == [3, 1]


def test_list_shows_what_is_hostile_as_harmless(client, serve, pki):
    row = {**ROW, "name": "\x1b[2J\n\x9b", "operator": None, "state": 7, "issued_at": None}
    done = client.run("list", "--server", serve(Lister(pki.ca, [row])).url)
    assert done.code == 0 and "\x1b" not in done.out and len(done.out.splitlines()) == 2
    assert "?[2J?" in done.out


@pytest.mark.parametrize("answer", [{"certificates": [], "next": "1"}, {"certificates": {}}, {},
                                    {"certificates": [], "next": 1}, {"certificates": [], "next": "1" * 100}])
def test_list_that_leads_nowhere(client, serve, answer):
    body = json.dumps({"status": "OK", "operation": "list_certs", **answer}).encode()
    server = serve(lambda *_: (200, {}, body))
    assert_sentence(client.run("list", "--server", server.url), 6, server.url)
    assert len(server.bodies) <= 2


class Shower(Honest):
    def __init__(self, ca, row, pem):
        super().__init__(ca)
        self.row, self.pem = row, pem

    def get_cert(self, request):
        return {"status": "OK", "operation": "get_cert", **self.row, "serial": request["serial"],
                **({"certificate": fake_server.b64(self.pem)} if self.pem else {})}


def test_show_says_what_to_do(client, serve, pki):
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 10 * 86400))
    gone = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 10 * 86400 - 60))
    _, cert = pki.ca.issue("24:0a:c4:00:00:02")
    pem = cert.read_bytes()
    for change, words in (({}, "Nothing to do"), ({"not_after": soon}, f"signet renew --mac {MAC}"),
                          ({"not_after": gone}, "ended 10 days ago"), ({"not_after": gone}, "as long as the"),
                          ({"state": "held", "reason": "certificateHold", "revoked_at": gone}, "signet unhold"),
                          ({"state": "revoked", "reason": "superseded", "revoked_at": gone}, "signet provision"),
                          ({"not_after": "9999-12-31T23:59:59Z"}, "without an end"),
                          ({"name": "mqtt.example.org", "not_after": soon}, "have a new one issued")):
        server = serve(Shower(pki.ca, {**ROW, **change}, pem))
        done = client.run("show", cert, "--server", server.url)
        assert done.code == 0 and words in done.out, (done.out, done.err)
    orphan = {**ROW, "state": "orphan", "reason": "unspecified", "revoked_at": gone, "issued_at": None}
    done = client.run("show", "--serial", "4f00", "--server", serve(Shower(pki.ca, orphan, None)).url)
    assert done.code == 0 and "never handed out" in done.out


def test_show_believes_only_the_ca(client, serve, pki):
    _, mine = pki.ca.issue("24:0a:c4:00:00:03")
    _, other = pki.ca.issue("24:0a:c4:00:00:04")
    _, strange = pki.other_ca.issue("24:0a:c4:00:00:03")
    server = serve(Shower(pki.ca, ROW, other.read_bytes()))
    assert_sentence(client.run("show", mine, "--server", server.url), 6, "another certificate than")
    server = serve(Shower(pki.ca, ROW, strange.read_bytes()))
    assert_sentence(client.run("show", "--serial", fake_server.serial_of(strange.read_bytes()), "--server", server.url),
                    6, "its CA has not signed")
    forger = CA(client.dir / "forger", "Test Issuing CA", pki.other_root)
    _, forged = forger.issue("24:0a:c4:00:00:05")
    server = serve(Shower(pki.ca, ROW, forged.read_bytes()))
    assert_sentence(client.run("show", "--serial", fake_server.serial_of(forged.read_bytes()), "--server", server.url),
                    6, "its CA has not signed")
    twin = client.dir / "twin.pem"  # its serial, by a CA that has the same name
    twin.write_bytes(openssl("x509", "-req", "-in", CA.new_csr(client.dir / "twin.key", "twin"), "-CA", pki.ca.pem, "-CAkey",
                             pki.ca.dir / "ca.key", "-set_serial", "0x" + fake_server.serial_of(mine.read_bytes())))
    server = serve(Shower(pki.ca, ROW, mine.read_bytes()))
    assert client.run("show", mine, "--server", server.url).code == 0
    assert_sentence(client.run("show", twin, "--server", server.url), 6, "not the one that this CA issued")
    server = serve(Shower(pki.ca, ROW, b"no"))
    assert_sentence(client.run("show", mine, "--server", server.url), 6, "not a certificate")


# --- doctor ---

class Patient(Honest):
    def __init__(self, ca, **change):
        super().__init__(ca)
        self.change = change

    def get_status(self, request):
        status = {**super().get_status(request), **self.change}
        return {k: v for k, v in status.items() if v is not None}


def utc(offset):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset))


@pytest.mark.parametrize("change, check, result, code, words", [
    ({}, "clock", "ok", 0, "as the server's"),
    ({"time": utc(86400 * 400)}, "clock", "fail", 5, "behind the server"),
    ({"time": utc(-86400)}, "clock", "fail", 5, "ahead of the server"),
    ({"time": None}, "clock", "ok", 0, ""),  # by the Date header
    ({"ready": False, "problem": "no signer"}, "ready", "fail", 4, "no signer"),
    ({"ready": False}, "ready", "fail", 4, "signetctl status"),
    ({"problem": "fewer signers\x1b[m"}, "ready", "warn", 0, "fewer signers?[m"),
    ({"certificates": None}, "accepted", "fail", 4, "signetctl operator issue"),
    ({"operator": None}, "accepted", "ok", 0, "takes the operator certificate")])
def test_doctor(client, serve, pki, change, check, result, code, words):
    done = client.run("doctor", "--json", "--server", serve(Patient(pki.ca, **change)).url)
    lines = {}
    for line in map(json.loads, done.out.splitlines()):
        lines[line.get("check")] = line
    assert done.code == code, done.out
    assert lines[check]["result"] == result and words in lines[check]["message"], lines[check]
    if code:
        assert lines[None]["exit"] == code and lines[None]["status"] == "ERROR"
        assert [c for c, line in lines.items() if line.get("result") == "fail"] == [check]


def test_doctor_clock_a_minute_off(client, serve, pki):
    class Slow(Honest):
        def get_status(self, request):
            return {**super().get_status(request), "time": utc(-60)}
    done = client.run("doctor", "--server", serve(Slow(pki.ca)).url)
    assert done.code == 0 and re.search(r"^warn  clock .*ahead of the server", done.out, re.M), done.out


def test_doctor_crl(client, serve, pki):
    class Old(Honest):
        def get_crl(self, request):
            return {**super().get_crl(request), "crl": fake_server.b64(pki.other_ca.crl())}
    done = client.run("doctor", "--server", serve(Old(pki.ca)).url)
    assert done.code == 6 and re.search(r"^FAIL  crl .*another CA", done.out, re.M)


def test_doctor_expired_operator(client, serve, pki):
    dates = ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    key, cert = pki.ca.issue("late@desk", dates=dates)
    done = client.run("doctor", "--server", serve().url, "--cert", cert, "--key", key)
    assert done.code == 6 and re.search(r"^FAIL  operator .*expired on 2021", done.out, re.M)
    near = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + 5 * 86400 + 3600))
    key, cert = pki.ca.issue("soon@desk", dates=("-enddate", near))
    done = client.run("doctor", "--server", serve().url, "--cert", cert, "--key", key)
    assert done.code == 0 and re.search(r"^warn  operator .*5 days.*signetctl operator issue", done.out, re.M)


# --- a terminal ---

def on_a_terminal(client, *args):
    """Exit code and all that a person would see on stderr."""
    import pty
    mine, theirs = pty.openpty()
    run = subprocess.Popen(client.command(*args), stdout=subprocess.DEVNULL, stderr=theirs, env=client.env(),
                           cwd=client.dir)
    os.close(theirs)
    seen = b""
    while True:
        try:
            more = os.read(mine, 4096)
        except OSError:
            break
        seen += more
    os.close(mine)
    return run.wait(30), seen.decode()


def test_progress_while_the_server_is_slow(client, serve, pki):
    honest = Honest(pki.ca)

    def answer(request, number):
        time.sleep(2.5)
        return honest(request, number)
    server = serve(answer)
    code, seen = on_a_terminal(client, "provision", "--mac", MAC, "--server", server.url)
    assert code == 0
    assert re.search(rf"\rsignet: waiting for {server.url} … [1-9] s", seen), repr(seen)
    assert seen.endswith("\r\x1b[K") and "\n" not in seen  # nothing of it stays
    done = client.run("provision", "--mac", "24:0a:c4:12:34:57", "--server", server.url)
    assert (done.code, done.err) == (0, "")  # no terminal


def test_no_progress_for_what_is_quick(client, serve, pki):
    code, seen = on_a_terminal(client, "provision", "--mac", MAC, "--server", serve().url)
    assert (code, seen) == (0, "")


# --- help ---

COMMANDS = ("init", "provision", "renew", "server-cert", "revoke", "hold", "unhold", "list", "show", "verify", "crl",
            "doctor", "batch", "station", "image")


def test_help_answers_what_one_asks_next(client):
    """Each command is in the list, and its examples use options that it has."""
    top = client.run("--help").out
    options = {c: set(re.findall(r"^  (--[a-z-]+) ", client.run(c, "--help").out, re.M)) for c in COMMANDS}
    texts = [top] + [client.run(c, "--help").out for c in COMMANDS]
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", top, re.M)
        assert "Examples:" in client.run(command, "--help").out
    for line in "\n".join(texts).splitlines():
        if not re.match(r"  signet |.*\| signet ", line):
            continue
        for command, rest in re.findall(r"signet ([a-z-]+)((?: [^|]*)?)", line):
            used = set(re.findall(r" (--[a-z-]+)", rest))
            assert command == "COMMAND" or used <= options[command] | {"--help"}, line
    assert all(len(line) <= 100 for text in texts for line in text.splitlines())


def test_manual_names_every_option(client):
    page = (REPO / "docs/man/signet.1").read_text().replace("\\-", "-")
    for command in COMMANDS:
        assert f".SS {command}\n" in page
        for option in re.findall(r"^  (--[a-z-]+) ", client.run(command, "--help").out, re.M):
            assert option in page, (command, option)
