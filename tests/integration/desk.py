"""What the tests of the desk share: requests as raw bytes, signed requests, and "nothing was signed"."""

import base64
import calendar
import contextlib
import hashlib
import json
import re
import socket
import ssl
import subprocess

from cryptography import x509

from front_harness import read_answer
from signet_site import BOARDS, HELD, ISSUED, ORPHAN, REVOKED, Key, Operator, anchor_of, mac, serial_of, wait_for

MACS = iter(range(1, 1 << 20))


def new_key():
    """A key for a board that no test has used."""
    return Key(mac(next(MACS)))


def text_of(**fields):
    return json.dumps(fields)


def signature(operator, body, *more):
    """The value of Signet-Signature: a detached CMS signature over body by the operator's key."""
    body = body.encode() if isinstance(body, str) else body
    more = more or ["-nocerts"]
    made = subprocess.run(["openssl", "cms", "-sign", "-binary", "-md", "sha256", "-signer", operator.cert, "-inkey",
                           operator.key, "-outform", "DER", *more], input=body, capture_output=True, check=True)
    return base64.b64encode(made.stdout).decode()


def tls(site, operator=None, timeout=60):
    context = ssl.create_default_context(cafile=site.root)
    context.verify_flags |= site.verify_flags
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
                site.query("SELECT lower(hex(serial)), state, reason, revoked_at, board FROM certificate ORDER "
                           "BY id"))
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


LIFE = re.compile(r"intent (orphan |issued (held unheld )*(held )?(revoked )?)$")
STATE_AFTER = {"orphan": ORPHAN, "issued": ISSUED, "unheld": ISSUED, "held": HELD, "revoked": REVOKED}


def check_books(site, received=(), with_crl=True):
    """Site.check_books() where certificates were put on hold: store, journal, files and CRL agree with each other, and
    journal and store on what was reported of boards.
    {serial: (state, reason, time, name, profile, kinds of its events)} of all."""
    lives, last, reports = {}, {}, {}
    for text in site.check_journal():
        kind, *fields = text.split(" ")
        fields = dict(f.split("=", 1) for f in fields)
        if kind in BOARDS[1:]:
            reports.setdefault(fields["serial"], []).append(BOARDS.index(kind))
        elif "serial" in fields:
            lives.setdefault(fields["serial"], []).append(kind)
            last[fields["serial"]] = fields
    rows = {row[0]: row[1:] for row in site.query("SELECT lower(hex(serial)), state, reason, revoked_at, name, profile, "
                                                  "der, der_sha256 FROM certificate")}
    assert set(lives) == set(rows)
    assert all(states == sorted(set(states)) for states in reports.values()), reports
    assert dict(site.query("SELECT lower(hex(serial)), board FROM certificate WHERE board <> 0")) == \
        {serial: states[-1] for serial, states in reports.items()}
    for serial, (state, reason, at, name, profile_name, der, digest) in rows.items():
        kinds = lives[serial]
        assert LIFE.match(" ".join(kinds) + " ") and STATE_AFTER[kinds[-1]] == state, (serial, state, kinds)
        assert last[serial]["name"] == name and (at is None) == (reason is None) == (state == ISSUED)
        file = site.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem"
        if state == ORPHAN:
            assert der is None and not file.exists()
        else:
            assert hashlib.sha256(der).digest() == digest and file.read_text() == ssl.DER_cert_to_PEM_cert(der)
    assert len(list((site.state / "certs").rglob("*.pem"))) == sum(r[0] != ORPHAN for r in rows.values())
    for pem in received:
        row = rows[serial_of(x509.load_pem_x509_certificate(pem))]
        assert ssl.PEM_cert_to_DER_cert(pem.decode()) == row[5]
    if with_crl:
        check_crl(site, {serial: row[1:3] for serial, row in rows.items() if row[0] != ISSUED})
    return {serial: (*row[:5], lives[serial]) for serial, row in rows.items()}


REASONS = {0: None, 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
           5: "cessationOfOperation", 6: "certificateHold", 9: "privilegeWithdrawn"}


def check_crl(site, expected):
    """The CRL, once it anchors every event about a certificate, lists exactly {serial: (reason, time)}."""
    (last,) = site.query("SELECT max(seq) FROM journal WHERE line LIKE '% revoked serial=%' OR line LIKE "
                         "'% orphan serial=%' OR line LIKE '% held serial=%' OR line LIKE '% unheld serial=%'")[0]

    def fresh():
        status, der = site.get("/crl")
        found = x509.load_der_x509_crl(der) if status == 200 else None
        return found if found is not None and anchor_of(found)[0] >= (last or 0) else None
    listed = {}
    for entry in wait_for(fresh, "a CRL with all of it"):
        reason = [e.value.reason.value for e in entry.extensions if isinstance(e.value, x509.CRLReason)]
        listed[f"{entry.serial_number:032x}"] = (reason[0] if reason else None, calendar.timegm(entry.revocation_date.timetuple()))
    assert listed == {serial: (REASONS[reason], at) for serial, (reason, at) in expected.items()}


def device(site, name, pem, key):
    """A device as a client of its own."""
    cert = site.dir / f"{name}.device.crt"
    cert.write_bytes(pem)
    return Operator(name, cert, key.save(site.dir / f"{name}.device.key"))
