"""A CA made with the openssl command, and servers that misbehave, for the tests of the client.

Nothing here shares code with Signet: what the client accepts was made by openssl, and what it
refuses is wrong on the wire."""

import base64
import contextlib
import datetime
import http.server
import json
import pathlib
import socket
import socketserver
import ssl
import subprocess
import threading

CA_CONFIG = """
[ca]
default_ca = this
[this]
dir = {dir}
database = $dir/index.txt
crlnumber = $dir/crlnumber
new_certs_dir = $dir/issued
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 30
default_crl_days = 7
rand_serial = yes
policy = any
unique_subject = no
copy_extensions = none
crl_extensions = crl
[any]
commonName = supplied
organizationName = optional
[crl]
authorityKeyIdentifier = keyid
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[intermediate]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1
[otherhost]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:elsewhere.example
"""


def openssl(*args, **kwargs):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, timeout=60, **kwargs)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class CA:
    """A root or, with a parent, an intermediate."""

    def __init__(self, directory, name, parent=None):
        self.dir = pathlib.Path(directory)
        self.parent = parent
        self.lock = threading.Lock()
        (self.dir / "issued").mkdir(parents=True)
        (self.dir / "index.txt").touch()
        (self.dir / "crlnumber").write_text("10\n")
        (self.dir / "ca.cnf").write_text(CA_CONFIG.format(dir=self.dir))
        csr = self.new_csr(self.dir / "ca.key", name)
        if parent:
            pem = parent.sign(csr, "intermediate")
        else:
            pem = openssl("x509", "-req", "-in", csr, "-key", self.dir / "ca.key", "-days", 60,
                          "-extfile", self.dir / "ca.cnf", "-extensions", "root")
        self.pem = self.dir / "ca.pem"
        self.pem.write_bytes(pem)

    @staticmethod
    def new_csr(key, name):
        csr = pathlib.Path(f"{key}.csr")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", key, "-out", csr, "-subj", f"/CN={name}")
        return csr

    def sign(self, csr, extensions="client", subject=None, dates=()):
        """PEM of a new certificate for the CSR's key. One at a time: openssl ca has one index."""
        if isinstance(csr, bytes):
            path = self.dir / "in.csr"
        else:
            path, csr = csr, None
        with self.lock:
            if csr:
                path.write_bytes(csr)
            extra = ["-subj", f"/CN={subject}"] if subject else []
            return openssl("ca", "-batch", "-config", self.dir / "ca.cnf", "-in", path, "-notext",
                           "-extensions", extensions, *extra, *dates)

    def issue(self, name, extensions="client", dates=()):
        """Key and certificate files for a name."""
        stem = f"{name}-{extensions}".replace(":", "")
        key, pem = self.dir / f"{stem}.key", self.dir / f"{stem}.pem"
        pem.write_bytes(self.sign(self.new_csr(key, name), extensions, dates=dates))
        return key, pem

    def revoke(self, pem):
        openssl("ca", "-config", self.dir / "ca.cnf", "-revoke", pem, "-crl_reason", "superseded")

    def crl(self, number=None):
        if number is not None:
            (self.dir / "crlnumber").write_text(f"{number:04x}\n")
        return openssl("ca", "-config", self.dir / "ca.cnf", "-gencrl")

    def chain(self):
        return self.pem.read_bytes() + (self.parent.chain() if self.parent else b"")

    def fingerprint(self):
        line = openssl("x509", "-in", self.pem, "-noout", "-fingerprint", "-sha256")
        return line.decode().strip().split("=")[1]


def b64(data):
    return base64.b64encode(data).decode()


def serial_of(pem):
    return openssl("x509", "-noout", "-serial", input=pem).decode().strip().split("=")[1].lower()


class Honest:
    """What a right server answers. The subclasses of the tests answer something else."""

    def __init__(self, ca):
        self.ca = ca
        self.known = {}  # request_id: certificate

    def __call__(self, request, number):
        """(HTTP status, headers, body) for the number-th request, from 1."""
        return 200, {}, json.dumps(getattr(self, request["operation"])(request)).encode()

    def certify(self, csr):
        return self.ca.sign(csr)

    def req_client_cert(self, request):
        pem = self.known.get(request["request_id"])
        if not pem:
            pem = self.known[request["request_id"]] = self.certify(base64.b64decode(request["csr"]))
        return {"status": "OK", "operation": "req_client_cert", "serial": serial_of(pem),
                "certificate": b64(pem), "chain": b64(self.ca.chain())}

    def revoke_cert(self, request):
        if "serial" not in request:
            return {"status": "OK", "operation": "revoke_cert", "count": 3,
                    "reason": request["reason"]}
        return {"status": "OK", "operation": "revoke_cert", "serial": request["serial"],
                "revoked_at": "2026-11-23T12:00:00Z", "reason": request["reason"]}

    def renew_client_cert(self, request):
        return {**self.req_client_cert(request), "operation": "renew_client_cert"}

    def req_server_cert(self, request):
        pem = self.ca.sign(base64.b64decode(request["csr"]), "server")
        return {"status": "OK", "operation": "req_server_cert", "serial": serial_of(pem),
                "certificate": b64(pem), "chain": b64(self.ca.chain())}

    def get_ca_chain(self, request):
        return {"status": "OK", "operation": "get_ca_chain",
                "certificate": b64(self.ca.pem.read_bytes()), "chain": b64(self.ca.chain())}

    def get_status(self, request):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"status": "OK", "operation": "get_status", "ready": True, "version": "0.1.0",
                "certificates": {}, "time": now, "problem": "",
                "operator": {"name": "op@desk", "roles": "provisioner"}}

    def get_crl(self, request):
        return {"status": "OK", "operation": "get_crl", "crl": b64(self.ca.crl())}


def refusal(status, code, message, operation="req_client_cert", headers=None):
    body = {"status": "ERROR", "operation": operation, "error": {"code": code, "message": message}}
    return status, headers or {}, json.dumps(body).encode()


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """HTTPS on a free port of the loopback; keeps the body of every request."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, answer, certificate, key, client_ca):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.bodies = []
        self.headers = []  # of each request
        self.peers = []  # the client's certificate at each request, or None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.load_verify_locations(cadata=client_ca)
        self.context.verify_mode = ssl.CERT_OPTIONAL

    @property
    def url(self):
        return f"https://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # clients that refuse the certificate are the subject of these tests

    def finish_request(self, request, client_address):
        request.settimeout(30)
        tls = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with tls:
            try:
                tls.do_handshake()
            except ssl.SSLError:
                drain(tls)  # a close with bytes unread is a reset, and may overtake the alert
                raise
            super().finish_request(tls, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1" and self.headers["Content-Type"] == "application/json"
        self.server.bodies.append(body)
        self.server.headers.append(self.headers)
        self.server.peers.append(self.connection.getpeercert())
        result = self.server.answer(json.loads(body), len(self.server.bodies))
        if callable(result):  # does as it likes with the connection
            result(self)
            self.close_connection = True
            return
        status, headers, answer = result
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


def drain(tls):
    with contextlib.suppress(OSError):
        while socket.socket.recv(tls, 4096):
            pass


@contextlib.contextmanager
def serving(answer, certificate, key, client_ca):
    server = Server(answer, certificate, key, client_ca)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def mute_port():
    """Takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"https://127.0.0.1:{s.getsockname()[1]}"
