"""signet against a real server: every command of the desk, as a person uses it, with the verdict of openssl."""

import base64
import datetime
import json
import os
import re
import shutil
import subprocess

import pytest

from signet_site import (BIN, ISSUED, PATIENCE, REPO, REVOKED, Key, Kit, Site, mac, run, tool_environment, wait_for)

MAC = "24:0a:c4:12:34:56"
SERVER_PROFILE = """
[profile server]
operations       = req_server_cert
roles            = admin
keys             = rsa:2048-4096, ec:p256, ec:p384
name             = hostname
subject          = CN={name}
not_before       = -5m
not_after        = +397d
allowed_names    = .example.org, 127.0.0.0/8
basicConstraints = critical, CA:FALSE
keyUsage         = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName   = {names}
"""
SHORT_PROFILE = """
[profile %s]
operations       = req_client_cert, renew_client_cert
roles            = provisioner
keys             = ec:p256
name             = mac
subject          = CN={name}
not_before       = -5m
not_after        = +4s
%s
basicConstraints = critical, CA:FALSE
keyUsage         = critical, digitalSignature
extendedKeyUsage = clientAuth
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """One server for all tests; each has MACs of its own."""
    where = tmp_path_factory.mktemp("desk")
    with Site(Kit(where / "kit"), where / "site") as site:
        with open(site.conf, "a") as f:
            f.write(SERVER_PROFILE + SHORT_PROFILE % ("short", "renew_expired = 30d") + SHORT_PROFILE % ("shortest", ""))
        site.start()
        site.client(roles="provisioner,revoker,admin")
        yield site


class Desk:
    """The client of one test: a folder for devices, its MACs, a laptop's commands."""

    numbers = iter(range(1, 1 << 20))

    def __init__(self, site, directory):
        self.site, self.dir, self.out = site, directory, directory / "devices"
        self.mac = mac(next(self.numbers))
        self.folder = self.out / self.mac.replace(":", "")

    def run(self, *args, code=0, config=None, **kwargs):
        return run(BIN / "signet", *args, "--config", config or self.site.dir / "client/signet.conf", code=code,
                   cwd=self.dir, env=tool_environment(), **kwargs)

    def json(self, *args, code=0):
        return [json.loads(line) for line in self.run(*args, "--json", code=code).stdout.splitlines()]

    def refused(self, code, *args, exit=4, **kwargs):
        done = self.run(*args, "--json", code=exit, **kwargs)
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["error"]["code"] == code, answer
        return answer["error"]["message"]

    def provision(self, *more, mac=None, **kwargs):
        return self.run("provision", "--mac", mac or self.mac, "--key-type", "ec:p256", "--out", self.out, *more, **kwargs)

    def serial(self, path=None):
        return serial_of(path or self.folder / "device.crt")

    def state(self, serial):
        ((state,),) = self.site.query("SELECT state FROM certificate WHERE lower(hex(serial)) = ?", serial)
        return state

    def files(self, folder=None):
        return sorted(p.name for p in (folder or self.folder).iterdir())

    def other_operator(self, name, roles):
        """A config file for another person's laptop."""
        op = self.site.operator(name, roles)
        conf = self.dir / f"{name}.conf"
        conf.write_text(f"[client]\nserver = https://127.0.0.1:{self.site.port}\nca = {self.site.root}\n"
                        f"cert = {op.cert}\nkey = {op.key}\n")
        return conf

    def verdict(self, cert, entries):
        """What openssl verify -crl_check says, with a CRL that has (or has not) the certificate's serial."""
        serial = serial_of(cert).upper()

        def fresh():
            crl = self.dir / "fetched.crl"
            crl.unlink(missing_ok=True)
            self.run("crl", "--out", crl)
            text = run("openssl", "crl", "-in", crl, "-noout", "-text").stdout
            return crl if (f"Serial Number: {serial}" in text) == entries else None
        crl = wait_for(fresh, "a CRL " + ("with" if entries else "without") + " the certificate")
        done = run("openssl", "verify", "-x509_strict", "-crl_check", "-CAfile", self.site.root, "-untrusted",
                   self.site.state / "intermediate.pem", "-CRLfile", crl, cert, code=None)
        return done.returncode, done.stdout + done.stderr


def serial_of(path):
    return run("openssl", "x509", "-in", path, "-noout", "-serial").stdout.strip().split("=")[1].lower()


@pytest.fixture
def d(desk, tmp_path):
    return Desk(desk, tmp_path)


# ---- provision --replace ----

def test_replace(d):
    d.provision()
    first, key = d.serial(), (d.folder / "device.key").read_bytes()
    message = d.refused("already_exists", "provision", "--mac", d.mac, "--out", d.out, exit=5)
    assert "--replace" in message
    done = d.provision("--replace")
    aside = d.out / f"{d.folder.name}.replaced-{first[:8]}"
    assert str(aside) in done.stdout and "superseded" in done.stdout
    assert (aside / "device.key").read_bytes() == key and d.serial(aside / "device.crt") == first
    assert (d.folder / "device.key").read_bytes() != key and d.serial() != first
    assert (d.state(first), d.state(d.serial())) == (REVOKED, ISSUED)
    assert sorted(p.name for p in d.out.iterdir()) == [d.folder.name, aside.name]
    d.run("verify", d.folder)
    code, said = d.verdict(aside / "device.crt", True)
    assert code == 2 and "certificate revoked" in said


def test_replace_what_another_laptop_has(d):
    """The older folder is elsewhere: without --replace the server refuses, and the client says what to do."""
    d.provision()
    first = d.serial()
    shutil.move(d.out, d.dir / "elsewhere")
    message = d.refused("subject_has_certificate", "provision", "--mac", d.mac, "--out", d.out, "--key-type", "ec:p256")
    assert f"signet provision --mac {d.mac} --replace" in message
    assert not d.folder.exists() and not list(d.out.iterdir())
    d.provision("--replace")
    assert (d.state(first), d.state(d.serial())) == (REVOKED, ISSUED)


def test_replace_needs_the_revoker_or_its_own(d):
    """Not verified on its board and one's own: a provisioner may; another's: not, and nothing has moved."""
    d.provision()
    other = d.other_operator("kim", "provisioner")
    before = d.files()
    assert "revoker" in d.refused("role_refused", "provision", "--mac", d.mac, "--out", d.out, "--key-type", "ec:p256",
                                  "--replace", config=other)
    assert [p.name for p in d.out.iterdir()] == [d.folder.name] and d.files() == before
    own = mac(next(Desk.numbers))
    d.provision(mac=own, config=other)
    d.provision("--replace", mac=own, config=other)


def test_replace_refuses_what_is_no_device(d):
    d.folder.mkdir(parents=True)
    (d.folder / "notes").write_text("mine")
    d.provision("--replace", code=5)
    assert [p.name for p in d.out.iterdir()] == [d.folder.name] and d.files() == ["notes"]


# ---- renew ----

def test_renew(d):
    d.provision()
    first, key = d.serial(), (d.folder / "device.key").read_bytes()
    older = (d.folder / "device.crt").read_bytes()
    (d.folder / "notes").write_text("mine")
    done = d.run("renew", d.folder)
    second = d.serial()
    assert second != first and second in done.stdout and "signet revoke --serial " + first in done.stdout
    assert (d.folder / f"device.crt.{first[:8]}").read_bytes() == older
    assert (d.folder / "device.key").read_bytes() == key
    assert d.files() == sorted(["ca.pem", "chain.pem", "device.crt", f"device.crt.{first[:8]}", "device.csr", "device.key",
                                "notes"])
    assert (d.state(first), d.state(second)) == (ISSUED, ISSUED)
    d.run("verify", d.folder)
    again = d.json("renew", "--mac", d.mac, "--out", d.out)[0]
    assert again["older_serial"] == second and again["serial"] == d.serial() and again["new_key"] is False


def test_renew_with_a_new_key(d):
    d.provision()
    first, key = d.serial(), (d.folder / "device.key").read_bytes()
    d.run("renew", d.folder, "--new-key")
    kept = d.folder / f"device.key.{first[:8]}"
    assert kept.read_bytes() == key != (d.folder / "device.key").read_bytes()
    assert kept.stat().st_mode & 0o777 == (d.folder / "device.key").stat().st_mode & 0o777 == 0o600
    text = run("openssl", "pkey", "-in", d.folder / "device.key", "-noout", "-text").stdout
    assert "prime256v1" in text  # of the kind before
    d.run("verify", d.folder)
    d.run("renew", d.folder, "--new-key", "--key-type", "rsa:2048")
    d.run("verify", d.folder)
    assert "2048 bit" in run("openssl", "pkey", "-in", d.folder / "device.key", "-noout", "-text").stdout


def test_renew_needs_no_operator(d):
    d.provision()
    conf = d.dir / "device.conf"
    conf.write_text(f"[client]\nserver = https://127.0.0.1:{d.site.port}\nca = {d.site.root}\n")
    d.run("renew", d.folder, config=conf)


def test_renew_expired(d):
    """For as long as the profile says; after that it says what to do."""
    for profile in ("short", "shortest"):
        d.mac = mac(next(Desk.numbers))
        d.folder = d.out / d.mac.replace(":", "")
        d.provision("--profile", profile)
        cert = d.folder / "device.crt"
        wait_for(lambda: run("openssl", "x509", "-in", cert, "-noout", "-checkend", "0", code=None).returncode == 1,
                 "the certificate expires")
        if profile == "short":
            assert "It has expired" in d.run("show", cert).stdout
            first = d.serial()
            d.run("renew", d.folder)
            assert d.serial() != first
        else:
            assert "--replace" in d.refused("certificate_expired", "renew", d.folder)


def test_renew_refused(d):
    d.provision()
    before = {p: (d.folder / p).read_bytes() for p in d.files()}
    d.run("hold", "--serial", d.serial())
    assert "provision --mac" in d.refused("certificate_revoked", "renew", d.folder)
    assert {p: (d.folder / p).read_bytes() for p in d.files()} == before
    d.run("unhold", "--serial", d.serial())
    d.run("renew", d.folder)
    d.run("renew", d.dir / "nowhere", code=5)
    d.run("renew", code=2)
    d.run("renew", d.folder, "--key-type", "ec:p256", code=2)


def test_operator_cannot_renew(d):
    """The operation is the device's: an operator's certificate as device.crt is refused by its profile or name."""
    d.provision()
    for name, source in (("device.crt", "operator.pem"), ("device.key", "operator.key")):
        shutil.copy(d.site.dir / "client" / source, d.folder / name)
    done = d.run("renew", d.folder, code=None)
    assert done.returncode in (4, 5), done.stderr


# ---- hold, unhold, revoke ----

def test_hold_and_unhold(d):
    d.provision()
    cert = d.folder / "device.crt"
    assert d.verdict(cert, False)[0] == 0
    done = d.run("hold", "--certificate", cert)
    assert "on hold" in done.stdout and f"signet unhold --serial {d.serial()}" in done.stdout
    code, said = d.verdict(cert, True)
    assert code == 2 and "certificate revoked" in said
    assert "Certificate Hold" in run("openssl", "crl", "-in", d.dir / "fetched.crl", "-noout", "-text").stdout
    assert "good again" in d.run("unhold", "--certificate", cert).stdout
    assert d.verdict(cert, False)[0] == 0
    d.refused("not_on_hold", "unhold", "--certificate", cert)
    d.run("hold", "--mac", d.mac)
    assert d.json("unhold", "--mac", d.mac)[0]["reason"] == "removeFromCRL"
    d.run("revoke", "--certificate", cert, "--reason", "keyCompromise")
    d.refused("already_revoked", "unhold", "--certificate", cert)
    d.refused("already_revoked", "hold", "--certificate", cert)


def test_revoke_by_mac_takes_all(d):
    d.provision()
    first = d.serial()
    d.run("renew", d.folder)
    done = d.run("revoke", "--mac", d.mac.replace(":", "-").upper(), "--reason", "cessationOfOperation")
    assert "2 certificates are revoked now (cessationOfOperation)" in done.stdout
    assert (d.state(first), d.state(d.serial())) == (REVOKED, REVOKED)
    d.refused("serial_unknown", "revoke", "--mac", d.mac)


def test_revoke_by_mac_of_one(d):
    d.provision()
    answer = d.json("revoke", "--mac", d.mac)[0]
    assert answer["serial"] == d.serial() and answer["reason"] == "unspecified"


def test_revoke_by_list(d):
    serials = []
    for _ in range(3):
        d.mac = mac(next(Desk.numbers))
        d.folder = d.out / d.mac.replace(":", "")
        d.provision()
        serials.append(d.serial())
    path = d.dir / "serials"
    path.write_text(f"# lost\n{serials[0]}\n\n  {serials[1].upper()}  # the second\n{serials[0]}\n")
    assert "2 certificates are revoked" in d.run("revoke", "--serials", path, "--reason", "keyCompromise").stdout
    assert [d.state(s) for s in serials] == [REVOKED, REVOKED, ISSUED]
    # an unknown one: nothing is done
    path.write_text(f"{serials[2]}\n{'4f' * 16}\n")
    assert "4f" * 16 in d.refused("serial_unknown", "revoke", "--serials", path)
    assert d.state(serials[2]) == ISSUED
    d.run("hold", "--serials", "-", input=serials[2] + "\n")
    held = [row["serial"] for row in d.json("list", "--state", "held")]
    assert serials[2] in held
    d.run("unhold", "--serials", "-", input="\n".join(held))
    path.write_text("4f\nxyz\n")
    assert f"{path}: line 2" in d.run("revoke", "--serials", path, code=2).stderr
    path.write_text("".join(f"{n:032x}\n" for n in range(1, 1002)))
    assert "at most 1000" in d.run("revoke", "--serials", path, code=2).stderr
    path.write_text("# nothing\n")
    d.run("revoke", "--serials", path, code=2)


def test_lost_laptop(d):
    """All that one operator had issued, in the time that it was lost; others' and earlier ones stay."""
    kim, lee = d.other_operator("kim-lost", "provisioner"), d.other_operator("lee", "provisioner")
    serials = []
    for conf in (kim, kim, kim, lee):
        d.mac = mac(next(Desk.numbers))
        d.folder = d.out / d.mac.replace(":", "")
        d.provision(config=conf)
        serials.append(d.serial())
    now = datetime.datetime.now(datetime.timezone.utc)
    tomorrow = (now + datetime.timedelta(days=2)).strftime("%Y-%m-%d")
    yesterday = (now - datetime.timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "nothing has changed" in d.run("revoke", "--issued-by", "kim-lost", "--from", tomorrow).stdout
    assert "nothing has changed" in d.run("revoke", "--issued-by", "kim-lost", "--to", yesterday).stdout
    listed = d.json("list", "--operator", "kim-lost", "--from", yesterday, "--state", "issued")
    assert [row["serial"] for row in listed] == serials[:3]
    before = d.site.query("SELECT count(*) FROM crl")[0][0]
    done = d.run("revoke", "--issued-by", "kim-lost", "--from", yesterday, "--to", tomorrow, "--reason", "keyCompromise")
    assert "3 certificates are revoked now (keyCompromise)" in done.stdout
    assert [d.state(s) for s in serials] == [REVOKED] * 3 + [ISSUED]
    code, said = d.verdict(d.out / d.folder.name / "device.crt", False)
    assert code == 0, said
    assert d.site.query("SELECT count(*) FROM crl")[0][0] >= before
    d.refused("operator_unknown", "revoke", "--issued-by", "nobody")
    d.refused("role_refused", "revoke", "--issued-by", "lee", config=lee)
    assert d.state(serials[3]) == ISSUED
    d.run("revoke", "--issued-by", "lee", "--from", "2026-02-30", code=2)
    d.run("revoke", "--serial", "4f", "--from", tomorrow, code=2)
    d.run("revoke", "--serial", "4f", "--mac", d.mac, code=2)


# ---- server-cert ----

def test_server_cert(d):
    done = d.run("server-cert", "--name", "mqtt.example.org", "--name", "127.0.0.1", "--out-key", "mqtt.key", "--out",
                 "mqtt.crt", "--key-type", "ec:p256")
    assert "DNS:mqtt.example.org, IP:127.0.0.1" in done.stdout
    cert, key = d.dir / "mqtt.crt", d.dir / "mqtt.key"
    assert key.stat().st_mode & 0o777 == 0o600
    run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "mqtt.example.org", "-CAfile",
        d.site.root, "-untrusted", cert, cert)
    assert cert.read_text().count("BEGIN CERTIFICATE") == 2
    # a broker and its client: what is in the file is what a server needs
    with open(os.devnull) as null:
        server = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", cert, "-cert_chain", cert, "-key", key,
                                   "-naccept", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=null, text=True)
    try:
        port = next(m.group(1) for line in server.stdout if (m := re.search(r"ACCEPT 127\.0\.0\.1:(\d+)", line)))
        seen = run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", d.site.root, "-verify_return_error",
                   "-verify_ip", "127.0.0.1", input="Q\n")
        assert "Verify return code: 0 (ok)" in seen.stdout
    finally:
        server.kill()
        server.communicate()
    # never overwritten; moved away, the same key gets the next one
    d.refused("already_exists", "server-cert", "--name", "mqtt.example.org", "--out-key", "mqtt.key", "--out", "mqtt.crt",
              exit=5)
    cert.rename(d.dir / "old.crt")
    before = key.read_bytes()
    done = d.run("server-cert", "--name", "mqtt.example.org", "--out-key", "mqtt.key", "--out", "mqtt.crt")
    assert "the one that was there" in done.stdout and key.read_bytes() == before
    assert serial_of(cert) != serial_of(d.dir / "old.crt")


def test_server_cert_by_csr(d):
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "s.key",
        "-subj", "/CN=a.example.org", "-addext", "subjectAltName=DNS:a.example.org,DNS:b.example.org", "-out", "s.csr",
        cwd=d.dir)
    (answer,) = d.json("server-cert", "--csr", "s.csr", "--out", "s.crt")
    assert answer["names"] == ["DNS:a.example.org", "DNS:b.example.org"] and answer["serial"] == serial_of(d.dir / "s.crt")
    text = run("openssl", "x509", "-in", d.dir / "s.crt", "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:a.example.org, DNS:b.example.org" in text


def test_server_cert_refused(d):
    args = ["server-cert", "--out", "x.crt", "--key-type", "ec:p256", "--out-key", "x.key", "--name"]
    assert "x.key stays" in d.refused("name_not_allowed", *args, "evil.example.com")
    d.refused("role_refused", *args, "a.example.org", config=d.other_operator("sam", "provisioner,revoker"))
    assert not (d.dir / "x.crt").exists()
    for wrong in (["--name", "a"], ["--csr", "f", "--out", "o", "--name", "b", "--out-key", "k"], ["--out", "o"],
                  ["--name", "*.example.org", "--out", "o", "--out-key", "k"], ["--name", "a,b", "--out", "o", "--out-key", "k"],
                  ["--name", "a.example.org", "--out-key", "k"], ["--csr", "f", "--out", "o", "--key-type", "ec:p256"]):
        d.run("server-cert", *wrong, code=2)
    (d.dir / "no.csr").write_text("no")
    d.run("server-cert", "--csr", "no.csr", "--out", "o", code=5)


# ---- list, show ----

def test_list(d):
    serials = []
    conf = d.other_operator("lister", "provisioner")
    with d.site.connect(type("Op", (), {"cert": d.site.dir / "lister.crt", "key": d.site.dir / "lister.key"})) as c:
        for _ in range(260):  # more than a page
            status, pem = c.issue(Key(mac(next(Desk.numbers))))
            assert status == 200
    rows = d.json("list", "--operator", "lister")
    assert len(rows) == 260 == len({row["serial"] for row in rows})
    assert all(row["operator"] == "lister" and row["state"] == "issued" for row in rows)
    done = d.run("list", "--operator", "lister", "--limit", "255")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["SERIAL", "NAME", "STATE", "BOARD", "PROFILE", "OPERATOR", "ISSUED", "EXPIRES", "REVOKED"]
    assert len(lines) == 255 and "raise --limit" in done.stderr
    at = head.index("NAME")
    assert all(line[at:].startswith("24:0a:c4:") and line[at - 1] == " " for line in lines)
    assert d.json("list", "--operator", "lister", "--limit", "255") == rows[:255]
    one = rows[7]
    assert d.json("list", "--mac", one["name"]) == [one]
    d.run("revoke", "--serial", one["serial"], "--reason", "superseded")
    (row,) = d.json("list", "--operator", "lister", "--state", "revoked")
    assert row["serial"] == one["serial"] and row["reason"] == "superseded" and row["revoked_at"]
    assert "superseded" in d.run("list", "--mac", one["name"]).stdout
    done = d.run("list", "--operator", "lister", "--to", "2020-01-01")
    assert done.stdout == "" and "no certificate fits" in done.stderr
    d.refused("operator_unknown", "list", "--operator", "nobody")
    d.run("list", "--limit", "0", code=2)
    d.run("list", "--state", "lost", code=2)
    assert d.run("list", "--limit", "1", config=conf).stdout  # any operator


def test_show(d):
    d.provision()
    cert, first = d.folder / "device.crt", d.serial()
    for args in (["--serial", first.upper()], ["--mac", d.mac], [cert]):
        done = d.run("show", *args)
        assert f"the certificate of {d.mac} is issued and not revoked" in done.stdout and first in done.stdout, done.stdout
        assert "ec:p256" in done.stdout and "Nothing to do" in done.stdout
    fingerprint = run("openssl", "x509", "-in", cert, "-noout", "-fingerprint", "-sha256").stdout.split("=")[1]
    assert fingerprint.strip().replace(":", "").lower() in done.stdout
    assert base64.b64decode(d.json("show", cert)[0]["certificate"]) == cert.read_bytes()
    d.run("hold", "--mac", d.mac)
    assert f"signet unhold --serial {first}" in d.run("show", "--mac", d.mac).stdout
    d.provision("--replace")
    done = d.run("show", "--mac", d.mac)
    assert d.serial() in done.stdout and "1 more: signet list --mac" in done.stdout
    done = d.run("show", "--serial", first)
    assert "is revoked" in done.stdout and "(superseded)" in done.stdout and "signet provision" in done.stdout
    assert f"signet provision --mac {MAC}" in d.refused("serial_unknown", "show", "--mac", MAC)
    d.refused("serial_unknown", "show", "--serial", "4f" * 16)
    d.refused("serial_unknown", "show", d.site.root)
    for wrong in ([], ["--serial", "4f", "--mac", d.mac], ["--serial", "4f", cert]):
        d.run("show", *wrong, code=2)


# ---- doctor ----

def doctor(d, *more, code=0, config=None, env=None):
    done = run(BIN / "signet", "doctor", "--json", "--config", config or d.site.dir / "client/signet.conf", *more, code=code,
               cwd=d.dir, env=env or tool_environment())
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["check"]: line for line in lines if "check" in line}


def with_esptool(d, name, version="esptool.py v4.7.0"):
    bin_dir = d.dir / f"bin-{name}"
    bin_dir.mkdir()
    tool = bin_dir / name
    tool.write_text(f"#!/bin/sh\n[ \"$1\" = version ] && echo '{version}'\n")
    tool.chmod(0o755)
    return {**tool_environment(), "PATH": f"{bin_dir}:{os.environ['PATH']}"}


@pytest.mark.parametrize("tool", ["esptool", "esptool.py"])
def test_doctor_all_well(d, tool):
    found = doctor(d, env=with_esptool(d, tool))
    assert list(found) == ["config", "ca", "operator", "server", "clock", "ready", "accepted", "crl", "esptool", "out"]
    assert {line["result"] for line in found.values()} == {"ok"}, found
    assert "provisioner,revoker,admin" in found["accepted"]["message"] and "laptop" in found["operator"]["message"]
    assert found["esptool"]["message"] == "esptool.py v4.7.0"
    text = d.run("doctor").stdout
    assert re.search(r"^ok    server    https://127\.0\.0\.1:\d+ answers", text, re.M)
    assert text.splitlines()[-1] in ("All is well.", "Nothing failed; see the warnings.")


def doctor_conf(d, **more):
    client = d.site.dir / "client"
    lines = {"server": f"https://127.0.0.1:{d.site.port}", "ca": client / "ca.pem", "cert": client / "operator.pem",
             "key": client / "operator.key", **more}
    conf = d.dir / "doctor.conf"
    conf.write_text("[client]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items()))
    return conf


def test_doctor_finds(d):
    """Each thing that can be wrong, alone: its line, its next step, its exit code; other lines still come."""
    def finds(check, result, code, *words, more=(), **settings):
        found = doctor(d, *more, code=code, config=doctor_conf(d, **settings))
        assert found[check]["result"] == result, found
        for word in words:
            assert word in found[check]["message"], found[check]
        assert "esptool" in found
        return found

    conf = d.dir / "broken.conf"
    conf.write_text("[client]\nservr = x\n")
    assert doctor(d, code=5, config=conf)["config"]["result"] == "fail"
    assert "signet init" in doctor(d, code=5, config=d.dir / "none.conf")["config"]["message"]
    finds("ca", "fail", 5, "nowhere.pem", ca=d.dir / "nowhere.pem")
    finds("operator", "fail", 5, "signet init --install", cert=d.dir / "nowhere.pem")
    stranger = Key("stranger").save(d.dir / "stranger.key")
    found = finds("operator", "fail", 5, "does not belong", key=stranger)
    assert found["server"]["result"] == "ok" and "accepted" not in found  # asked without a certificate
    key = d.dir / "open.key"
    shutil.copy(d.site.dir / "client/operator.key", key)
    key.chmod(0o644)
    finds("operator", "warn", 0, "chmod 600", key=key)
    found = finds("server", "fail", 3, "Connection refused", server="https://127.0.0.1:1")
    assert "clock" not in found and "crl" not in found
    (d.dir / "other.pem").write_bytes(other_root(d))
    finds("server", "fail", 6, "not the server that was pinned", ca=d.dir / "other.pem")
    (d.dir / "file").write_text("")
    finds("out", "fail", 5, "no folder", out=d.dir / "file")
    finds("out", "ok", 0, "not there yet", out=d.dir / "new/devices")
    empty = {**tool_environment(), "PATH": str(d.dir)}
    found = doctor(d, env=empty)
    assert found["esptool"]["result"] == "warn" and "only flashing needs it" in found["esptool"]["message"]
    text = d.run("doctor", code=3, config=doctor_conf(d, server="https://127.0.0.1:1"))
    assert re.search(r"^FAIL  server ", text.stdout, re.M) and "1 of the checks failed" in text.stderr


def other_root(d):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "o.key",
        "-subj", "/CN=Other", "-out", "o.pem", "-addext", "basicConstraints=critical,CA:TRUE", "-days", "2000", cwd=d.dir)
    return (d.dir / "o.pem").read_bytes()


def test_doctor_revoked_operator(d):
    conf = d.other_operator("leaver", "provisioner")
    assert doctor(d, config=conf)["accepted"]["result"] == "ok"
    d.site.ctl("operator", "revoke", "--name", "leaver")
    found = doctor(d, code=4, config=conf)
    assert found["accepted"]["result"] == "fail" and found["crl"]["result"] == "ok"


# ---- signed requests ----

def post(d, body, header=None, operator=None):
    """By curl; (status, code or 'OK')."""
    client = d.site.dir / "client"
    cert, key = operator or (client / "operator.pem", client / "operator.key")
    more = ["-H", f"Signet-Signature: {header}"] if header is not None else []
    (d.dir / "posted.json").write_bytes(body)
    done = run("curl", "-sS", "--cacert", d.site.root, "--cert", cert, "--key", key, "-H", "Content-Type: application/json",
               *more, "--data-binary", f"@{d.dir}/posted.json", "-w", "\n%{http_code}", f"https://127.0.0.1:{d.site.port}/v1")
    answer, status = done.stdout.rsplit("\n", 1)
    answer = json.loads(answer)
    return int(status), answer["error"]["code"] if answer["status"] == "ERROR" else "OK"


def sign(d, body, operator=None):
    client = d.site.dir / "client"
    cert, key = operator or (client / "operator.pem", client / "operator.key")
    made = subprocess.run(["openssl", "cms", "-sign", "-binary", "-md", "sha256", "-nocerts", "-signer", cert, "-inkey", key,
                           "-outform", "DER"], input=body, capture_output=True, check=True, timeout=PATIENCE)
    return base64.b64encode(made.stdout).decode()


def test_signature_guards(d):
    """Without it, of another body, by another key: refused, and nothing done."""
    d.provision()
    fields = {"operation": "revoke_cert", "serials": [d.serial()], "reason": "superseded", "request_id": f"g-{d.mac}"}
    body = json.dumps(fields).encode()
    other = json.dumps({**fields, "reason": "keyCompromise"}).encode()
    op = d.site.operator("signer2", "revoker")
    stranger = (op.cert, op.key)
    assert post(d, body) == (403, "signature_required")
    assert post(d, body, sign(d, other)) == (403, "signature_invalid")
    assert post(d, body, sign(d, body + b" ")) == (403, "signature_invalid")
    assert post(d, body, sign(d, body, stranger)) == (403, "signature_invalid")
    assert post(d, body, sign(d, body), stranger) == (403, "signature_invalid")
    without_id = json.dumps({k: v for k, v in fields.items() if k != "request_id"}).encode()
    assert post(d, without_id, sign(d, without_id)) == (400, "request_id_required")
    assert d.state(d.serial()) == ISSUED
    assert post(d, body, sign(d, body)) == (200, "OK")
    assert d.state(d.serial()) == REVOKED
    assert post(d, body, sign(d, body)) == (200, "OK")  # once more is the same
    assert post(d, other, sign(d, other)) == (409, "request_id_reused")


def test_signed_requests_page(d):
    """docs/signed-requests.md, as it is pasted."""
    page = (REPO / "docs/signed-requests.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)
    assert len(blocks) == 2
    d.provision()
    client = d.site.dir / "client"
    env = {"PATH": os.environ["PATH"], "SERIAL": d.serial(), "SIGNET_CA": str(d.site.root),
           "SIGNET_OPERATOR_CERT": str(client / "operator.pem"), "SIGNET_OPERATOR_KEY": str(client / "operator.key"),
           "SIGNET_SERVER": f"https://127.0.0.1:{d.site.port}"}
    done = run("bash", "-e", "-c", blocks[0], cwd=d.dir, env=env)
    answer = json.loads(done.stdout)
    assert answer["status"] == "OK" and answer["serial"] == d.serial() and answer["reason"] == "superseded"
    assert d.state(d.serial()) == REVOKED
    run("bash", "-e", "-c", blocks[1], cwd=d.dir, env=env)
    table = dict((code, status) for status, code in re.findall(r"^\| `(\d+) (\w+)` \|", page, re.M))
    source = dict(re.findall(r"X\((\w+), (\d+)", (REPO / "src/common/err.h").read_text()))
    assert table and all(source[code] == status for code, status in table.items())
