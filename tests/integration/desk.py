"""What the tests of the desk share: requests as raw bytes, signed requests, and "nothing was signed"."""

import base64
import contextlib
import json
import socket
import ssl
import subprocess

from front_harness import read_answer
from signet_site import Key, Operator, mac, wait_for

MACS = iter(range(1, 1 << 20))


def new_key():
    """A key for a board that no test has used."""
    return Key(mac(next(MACS)))


def text_of(**fields):
    return json.dumps(fields)


def signature(operator, body, *more):
    """The value of Signet-Signature: a detached CMS signature over body by the operator's key."""
    body = body.encode() if isinstance(body, str) else body
    made = subprocess.run(["openssl", "cms", "-sign", "-binary", "-md", "sha256", "-nocerts", "-signer", operator.cert,
                           "-inkey", operator.key, "-outform", "DER", *more], input=body, capture_output=True, check=True)
    return base64.b64encode(made.stdout).decode()


def tls(site, operator=None, timeout=60):
    context = ssl.create_default_context(cafile=site.root)
    if operator:
        context.load_cert_chain(operator.cert, operator.key)
    raw = socket.create_connection(("127.0.0.1", site.port), timeout=timeout)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


def plain(site, timeout=60):
    return socket.create_connection(("127.0.0.1", site.http_port), timeout=timeout)


def http(method="POST", path="/v1", headers=(), body=b'{"operation":"get_status"}', kind="application/json",
         length=True):
    lines = [f"{method} {path} HTTP/1.1", "Host: x"]
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def exchange(site, data, operator=None, over_tls=True, head_only=False):
    """One answer to raw bytes."""
    with (tls(site, operator) if over_tls else plain(site)) as s:
        s.sendall(data)
        return read_answer(s, head_only)


def post(site, operator, body, sign=None, headers=(), **how):
    """The answer to one request; sign: by whom, or the header's value itself."""
    if isinstance(body, dict):
        body = json.dumps(body)
    body = body.encode() if isinstance(body, str) else body
    headers = list(headers)
    if sign is not None:
        headers.append("Signet-Signature: " + (sign if isinstance(sign, str) else signature(sign, body)))
    return exchange(site, http(headers=headers, body=body, **how), operator)


def code_of(answer):
    """(status, code) of a refusal, (status, "OK") of anything else."""
    said = answer.json
    return answer.status, "OK" if said["status"] == "OK" else said["error"]["code"]


def pem_of(answer):
    assert answer.status == 200, answer
    return base64.b64decode(answer.json["certificate"])


def events(site, kind=None):
    """The texts of the journal's events, without number, time and hash."""
    lines = [line.split(" ", 2)[2].rsplit(" ", 1)[0] for (line,) in
             site.query("SELECT line FROM journal ORDER BY seq")]
    return [line for line in lines if kind is None or line.split(" ")[0] == kind]


@contextlib.contextmanager
def nothing_done(site):
    """No intent, no issue, no revocation, no change of any certificate's state."""
    def state():
        return (site.query("SELECT seq, line FROM journal WHERE line NOT LIKE '% crl number=%'"),
                site.query("SELECT lower(hex(serial)), state, reason, revoked_at FROM certificate ORDER BY id"))
    before = state()
    yield
    assert state() == before


def edit(site, text):
    """Adds a section, or more, to the configuration."""
    with open(site.conf, "a") as f:
        f.write("\n" + text)


PROFILES = {
    "operator": "keys = rsa:2048-4096, ec:p256, ec:p384\nname = label\nsubject = CN={name}\nnot_before = -5m\n"
                "not_after = %s\nbasicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n"
                "extendedKeyUsage = clientAuth\n",
    "device": "operations = req_client_cert, renew_client_cert\nroles = provisioner\nkeys = rsa:2048-4096, ec:p256, "
              "ec:p384\nname = mac\nsubject = CN={name}\nnot_before = -5m\nnot_after = %s\nbasicConstraints = critical, "
              "CA:FALSE\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\n",
    "server": "operations = req_server_cert\nroles = admin\nkeys = rsa:2048-4096, ec:p256, ec:p384\nname = hostname\n"
              "subject = CN={name}\nnot_before = -5m\nnot_after = %s\nbasicConstraints = critical, CA:FALSE\n"
              "keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\nsubjectAltName = {names}\n",
}


def profile(name, not_after="+397d", more="", called=None):
    """A [profile …] section as shipped, but with another end and more lines."""
    return f"[profile {called or name}]\n{PROFILES[name] % not_after}{more}\n"


def reload(site):
    """SIGHUP, and the new fronts serve."""
    import signal
    before, old = site.log().count("the new configuration is in force"), site.roles()["front"]
    site.process.send_signal(signal.SIGHUP)
    wait_for(lambda: site.log().count("the new configuration is in force") > before, "the configuration is taken")
    wait_for(lambda: not set(site.roles().get("front", [])) & set(old), "the old fronts end")
    site.wait_ready()


def device(site, name, pem, key):
    """A device as a client of its own."""
    cert = site.dir / f"{name}.device.crt"
    cert.write_bytes(pem)
    return Operator(name, cert, key.save(site.dir / f"{name}.device.key"))
