"""A signet-front with a made-up authority and supervisor around it, in one test process.

The message formats are read from src/common/msg_fields.h, so they cannot differ from the program's.
"""

import hashlib
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SIGNET_BUILD", REPO / "build"))
PROGRAM = BUILD / "bin" / "signet-front"

# Puts the sockets where signetd does: 3 supervisor, 4 configuration, 5 authority, 6 HTTPS, 7 HTTP.
PLACE = """
import os, sys
fds = [int(a) for a in sys.argv[1].split(',')]
high = [os.dup2(fd, 200 + i) for i, fd in enumerate(fds)]
for fd in range(3, 64):
    try: os.close(fd)
    except OSError: pass
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.execv(sys.argv[2], sys.argv[2:])
"""


def run(*command, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, timeout=60, **kwargs)


class Messages:
    """Encodes and decodes by the table."""

    def __init__(self):
        text = (REPO / "src/common/msg_fields.h").read_text()
        self.version = int(re.search(r"#define MSG_VERSION (\d+)", (REPO / "src/common/msg.h").read_text()).group(1))
        text_caller = re.search(r"#define M_CALLER(.*?[^\\])\n", text, re.S).group(1)
        self.number, self.fields = {}, {}
        for name, number, body in re.findall(r"^MSG\((\w+), (\d+),(.*?)\)\s*(?:/\*[^\n]*\*/)?\s*$(?=\n\n|\nMSG|\n/\*|\n#)",
                                             text, re.S | re.M):
            body = body.replace("M_CALLER", text_caller)
            self.number[name] = int(number)
            self.fields[name] = re.findall(r"F_(\w+)\((\w+)", body)
        self.name = {v: k for k, v in self.number.items()}

    def encode(self, name, ident, /, **values):
        out = b""
        for kind, field in self.fields[name]:
            value = values.pop(field, None)
            if kind == "text":
                raw = (value or "").encode() + b"\0"
                out += struct.pack(">I", len(raw)) + raw
            elif kind == "bytes":
                out += struct.pack(">I", len(value or b"")) + (value or b"")
            else:
                out += struct.pack({"u8": ">B", "u32": ">I", "u64": ">Q", "i64": ">q"}[kind], value or 0)
        assert not values, values
        return struct.pack(">BBHIQ", self.version, self.number[name], 0, len(out), ident) + out

    def decode(self, record):
        version, number, zero, length, ident = struct.unpack(">BBHIQ", record[:16])
        assert version == self.version and zero == 0 and length == len(record) - 16
        name, at, values = self.name[number], 16, {}
        for kind, field in self.fields[name]:
            if kind in ("text", "bytes"):
                (n,) = struct.unpack_from(">I", record, at)
                raw = record[at + 4:at + 4 + n]
                assert len(raw) == n
                at += 4 + n
                values[field] = raw[:-1].decode() if kind == "text" else raw
            else:
                form = {"u8": ">B", "u32": ">I", "u64": ">Q", "i64": ">q"}[kind]
                (values[field],) = struct.unpack_from(form, record, at)
                at += struct.calcsize(form)
        assert at == len(record)
        return name, ident, values


MESSAGES = Messages()


def error_codes():
    """Names of enum err_code, in order; the first is 1."""
    text = (REPO / "src/common/err.h").read_text()
    table = text[text.index("#define ERR_TABLE"):text.index("enum err_code")]
    return ["none"] + re.findall(r"X\((\w+),", table)


ERRORS = error_codes()
LABELS = {"device": bytes.fromhex("300906072b0601010101" "16"), "sensor": bytes.fromhex("3000"), "l" * 64: b""}  # for EST


class Pki:
    """A CA, the listener's certificate, a client's, CSRs: all by the openssl command."""

    def __init__(self, where):
        self.dir = Path(where)
        self.ca_key, self.ca = self.authority("ca")
        self.server_key, self.server = self.leaf("server", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1")
        self.client_key, self.client = self.leaf("client", "/CN=op", "extendedKeyUsage=clientAuth")
        self.crl = self.make_crl()

    def path(self, name):
        return self.dir / name

    def authority(self, name):
        key, cert = self.path(name + ".key"), self.path(name + ".pem")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", cert, "-days", "30", "-subj", f"/CN=Test {name}")
        return key, cert

    def leaf(self, name, subject, extension, serial="0x4f00112233445566778899aabbccddee", newkey=("ec", "ec_paramgen_curve:P-256")):
        key, csr, cert, ext = (self.path(f"{name}.{s}") for s in ("key", "csr", "pem", "ext"))
        run("openssl", "req", "-newkey", newkey[0], "-pkeyopt", newkey[1], "-nodes", "-keyout", key, "-out", csr,
            "-subj", subject)
        ext.write_text(extension)
        run("openssl", "x509", "-req", "-in", csr, "-CA", self.ca, "-CAkey", self.ca_key, "-days", "7",
            "-set_serial", serial, "-extfile", ext, "-out", cert)
        return key, cert

    def csr(self, cn="24:0a:c4:12:34:56", name="device", args=("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        key, csr = self.path(name + ".key"), self.path(name + ".csr")
        run("openssl", "req", *args, "-nodes", "-keyout", key, "-out", csr, "-subj", f"/CN={cn}")
        return csr.read_bytes()

    def make_crl(self):
        config, index, number = self.path("ca.cnf"), self.path("index.txt"), self.path("crlnumber")
        index.write_text("")
        number.write_text("01\n")
        config.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={index}\ncrlnumber={number}\n"
                          "default_md=sha256\ndefault_crl_days=7\n")
        pem = run("openssl", "ca", "-config", config, "-gencrl", "-keyfile", self.ca_key, "-cert", self.ca).stdout
        return self.der(pem, "crl")

    @staticmethod
    def der(pem, kind="x509"):
        return run("openssl", kind, "-outform", "DER", input=pem).stdout


def listening():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    s.listen(256)
    return s


def memfd(data):
    fd = os.memfd_create("document")
    os.write(fd, data)
    return fd


class Front:
    """The process; answer(name, values) gives the made-up authority's answer: (name, values), or None
    for none at all. A list, asked, keeps the questions."""

    def __init__(self, pki, credits=8, plain=True, start=True):
        self.pki, self.asked, self.answer, self.credits = pki, [], self.default_answer, credits
        self.https, self.http = listening(), listening()
        self.supervisor, theirs_supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.authority, theirs_authority = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = memfd(b"")
        fds = [theirs_supervisor.fileno(), config, theirs_authority.fileno(), self.https.fileno()]
        fds += [self.http.fileno()] if plain else []
        self.log = self.pki.path(f"front-{id(self)}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PLACE, ",".join(map(str, fds)), PROGRAM, "--number", "1"],
                pass_fds=fds, stderr=log)
        theirs_supervisor.close()
        theirs_authority.close()
        os.close(config)
        self.port, self.http_port = self.https.getsockname()[1], self.http.getsockname()[1]
        self.https.close()
        self.http.close()
        self.lock = threading.Lock()
        self.told = os.memfd_create("count")
        os.write(self.told, bytes(8))
        if start:
            self.give_all()

    def give_all(self):
        self.send("listener", credits=self.credits, certificate_pem=self.pki.server.read_bytes() + self.pki.ca.read_bytes(),
                  key_pem=self.pki.server_key.read_bytes())
        for label, csrattrs in LABELS.items():
            self.send("est_label", label=label, csrattrs=csrattrs)
        ca = self.pki.ca.read_bytes()
        self.send("ocsp_told", fd=self.told, count=0)
        self.send("chain", issuer_der=self.pki.der(ca), chain_pem=ca, ocsp=1)
        self.document("/crl", "application/pkix-crl", self.pki.crl)
        self.document("/ca.cer", "application/pkix-cert", self.pki.der(ca))
        self.wait_ready()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def wait_ready(self):
        self.supervisor.settimeout(20)
        name, _, _ = MESSAGES.decode(self.supervisor.recv(200000))
        assert name == "ready"

    def send(self, name, ident=0, fd=None, **values):
        record = MESSAGES.encode(name, ident, **values)
        if fd is None:
            self.authority.send(record)
        else:
            socket.send_fds(self.authority, [record], [fd])

    def tell(self):
        """Raises the count of ocsp_forget, as is done before one is sent."""
        os.pwrite(self.told, struct.pack("=Q", struct.unpack("=Q", os.pread(self.told, 8, 0))[0] + 1), 0)

    def document(self, path, content_type, data, modified=1_700_000_000, expires=0):
        fd = memfd(data)
        self.send("document", fd=fd, path=path, content_type=content_type, modified=modified, expires=expires,
                  digest=hashlib.sha256(data).digest())
        os.close(fd)

    def default_answer(self, name, values):
        if name in ("issue", "renew", "enrol"):
            return "answer_certificate", {"serial": bytes.fromhex("4f" + "01" * 15),
                                          "der": self.pki.der(self.pki.client.read_bytes())}
        if name == "revoke":
            return "answer_revoked", {"serial": values["serial"], "revoked_at": 1795435200, "reason": values["reason"]}
        return "answer_status", {"ready": 1, "detailed": 1 if values["caller_digest"] else 0, "signers_ready": 2,
                                 "signers_wanted": 2, "token_detail": "SoftHSM", "custody": "all", "issued": 2**60,
                                 "crl_number": 3, "crl_this_update": 1795435200, "issuer_not_after": 1795435201}

    def serve(self):
        while True:
            try:
                record = self.authority.recv(200000)
            except OSError:
                return
            if not record:
                return
            name, ident, values = MESSAGES.decode(record)
            with self.lock:
                self.asked.append((name, values))
            answer = self.answer(name, values)
            if answer:
                self.send(answer[0], ident, **answer[1])

    # ---- clients ----

    def context(self, client=True):
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        if client:
            context.load_cert_chain(self.pki.client, self.pki.client_key)
        return context

    def connect(self, client=True, timeout=20):
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return self.context(client).wrap_socket(raw, server_hostname="127.0.0.1")

    def plain(self, timeout=20):
        return socket.create_connection(("127.0.0.1", self.http_port), timeout=timeout)

    def exchange(self, data, tls=True, client=True):
        """Raw bytes there, everything that comes back until the end or one complete answer."""
        with (self.connect(client) if tls else self.plain()) as s:
            s.sendall(data)
            return read_answer(s)

    def post(self, body, client=True, headers=(), path="/v1"):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
        if not any(h.lower().startswith("content-type") for h in headers):
            head.append("Content-Type: application/json")
        return self.exchange("\r\n".join([*head, *headers, "", ""]).encode() + body, client=client)

    def alive(self):
        return self.process.poll() is None

    def stop(self, expect=0):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        self.supervisor.close()
        self.authority.close()
        os.close(self.told)
        text = self.log.read_text(errors="replace")
        assert "Sanitizer" not in text and "runtime error" not in text, text
        if expect is not None:
            assert code == expect, (code, text)
        return text


class Answer:
    def __init__(self, status, headers, body, closed):
        self.status, self.headers, self.body, self.closed = status, headers, body, closed

    @property
    def json(self):
        assert self.headers["content-type"] == "application/json", self.headers
        assert self.body.endswith(b"\n")
        return json.loads(self.body)

    @property
    def code(self):
        answer = self.json
        assert answer["status"] == "ERROR" and answer["error"]["message"]
        return answer["error"]["code"]

    @property
    def text_code(self):
        """Of an error as text: "code: message" (EST)."""
        assert self.headers["content-type"] == "text/plain; charset=utf-8", self.headers
        code, message = self.body.decode().split(": ", 1)
        assert message.endswith("\n") and message.count("\n") == 1 and len(message) > 5, self.body
        return code

    @property
    def message(self):
        return self.json["error"]["message"]

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:400]!r}>"


def read_answer(s, head_only=False, to_end=True):
    data = b""
    while b"\r\n\r\n" not in data:
        more = s.recv(65536)
        if not more:
            return None if not data else data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    status = int(lines[0].split()[1])
    if status == 100:
        return Answer(100, headers, rest, False)
    length = 0 if head_only or status == 304 else int(headers.get("content-length", 0))
    while len(rest) < length:
        more = s.recv(65536)
        if not more:
            break
        rest += more
    closed = False
    if to_end and headers.get("connection") == "close":
        try:
            closed = s.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            closed = True
    return Answer(status, headers, rest, closed)


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
