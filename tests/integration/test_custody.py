"""What the processes can do, whose key is signed with, and how a token is treated that refuses or is not there."""

import hashlib
import os
import re
import signal
import ssl
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hsm_harness import build_shim
from signet_site import PIN, SO_PIN, Key, mac, run, softhsm_module, wait_for

SPY = Path("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so")


def spy():
    found = [SPY] if SPY.exists() else sorted(Path("/usr").glob("lib*/**/pkcs11-spy.so"))
    assert found, "pkcs11-spy.so is not installed (Debian: opensc-pkcs11)"
    return found[0]


def softhsm(site, *command):
    return run(*command, cwd=site.dir, env={"PATH": os.environ["PATH"],
                                            "SOFTHSM2_CONF": str(site.dir / "hsm/softhsm2.conf")})


def pkcs11_tool(site, *args):
    return softhsm(site, "pkcs11-tool", "--module", softhsm_module(), "--token-label", "Signet", *args)


def refused(site, *words):
    """signetd does not start, and says why."""
    code, said = site.run_to_end()
    assert code == 1, said
    for word in words:
        assert word in said, said
    assert site.get("/healthz")[0] == 0
    return said


# ---- what is mapped ----

def maps(pid):
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except PermissionError:
        pytest.skip("needs CAP_SYS_PTRACE: the daemons are not dumpable")
    return {line.split()[-1].rsplit("/", 1)[-1] for line in lines if "/" in line and ".so" in line}


def test_maps(site):
    site.start()
    site.issue(site.operator(), Key(mac(1)))
    roles = site.roles()
    roles.pop("publisher", None)  # it comes and goes
    assert {role: len(pids) for role, pids in roles.items()} == {"authority": 1, "signer": 2, "front": 2}
    never = {"signer": ["event", "cjson", "sqlite", "libssl", "curl", "libpq"],
             "front": ["sqlite", "pkcs11", "softhsm", "curl", "libpq"],
             "authority": ["libssl", "pkcs11", "softhsm", "curl"],  # JSON: of what operators signed
             "supervisor": ["libssl", "cjson", "sqlite", "pkcs11", "softhsm", "curl"]}
    for role, words in never.items():
        for pid in roles.get(role, [site.process.pid]):
            mapped = maps(pid)
            assert any("libcrypto" in name for name in mapped), mapped
            bad = [name for name in mapped for word in words if word in name]
            assert not bad, f"{role}: {bad}"
    assert any("softhsm" in name for name in maps(roles["signer"][0]))  # the look itself works


# ---- whose key ----

def import_key(site):
    """A key that was made outside, with a CA certificate and root for it."""
    key, root_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (site.dir / "outside.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    softhsm(site, "softhsm2-util", "--import", "outside.pem", "--token", "Signet", "--label", "outside", "--id", "77",
            "--pin", PIN)
    root = certificate("Outside Root", root_key.public_key(), "Outside Root", root_key, 1)
    own = certificate("Outside CA", key.public_key(), "Outside Root", root_key, 0)
    site.root.write_bytes(root)
    (site.state / "intermediate.pem").write_bytes(own)
    (site.state / "ca-chain.pem").write_bytes(own + root)
    (site.state / "root-crl.der").unlink()
    site.set("token_key_label", "outside")
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def certificate(name, key, issuer, issuer_key, path_length):
    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    usage = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                          encipher_only=False, decipher_only=False)
    cert = (x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer)).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(datetime.utcnow() - timedelta(hours=1))
            .not_valid_after(datetime.utcnow() + timedelta(days=4000))
            .add_extension(x509.BasicConstraints(True, path_length), True).add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
            .sign(issuer_key, hashes.SHA256()))
    return cert.public_bytes(serialization.Encoding.PEM)


def test_imported_key(site):
    digest = import_key(site)
    refused(site, "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "custody")
    assert not (site.state / "pin-refused").exists()

    site.set("token_custody_exception", "00" * 32 + ", of another key")
    refused(site, "custody_exception names another key", digest)
    site.set("token_custody_exception", digest)
    refused(site, "custody_exception", "<reason>")

    site.set("token_custody_exception", digest + ", wrapped backup in the safe")
    site.start()
    op = site.operator()
    assert site.issue(op, Key(mac(1)))[0] == 200
    shown = site.ctl("status").stdout
    assert "exception in force" in shown and "wrapped backup in the safe" in shown, shown
    assert "wrapped backup in the safe" in site.ask(op, "get_status")[1]["token"]["custody"]
    assert "custody_exception is in force" in site.log() and "LOCAL" in site.log()
    site.check_books()


@pytest.mark.parametrize("attribute, name", [("0x103", "SENSITIVE"), ("0x2", "PRIVATE"), ("0x108", "SIGN")])
def test_absolute_attributes(site, tmp_path, attribute, name):
    """No exception lets them be missing."""
    control = site.dir / "control"
    control.write_text(f"C_GetAttributeValue false {attribute}\n")
    site.set("token_module", build_shim(tmp_path))
    site.set("token_env.SHIM_MODULE", softhsm_module())
    site.set("token_env.SHIM_CONTROL", control)
    der = ssl.PEM_cert_to_DER_cert((site.state / "intermediate.pem").read_text())
    spki = x509.load_der_x509_certificate(der).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    site.set("token_custody_exception", hashlib.sha256(spki).hexdigest() + ", a try")
    said = refused(site)
    assert re.search(rf"\b{name}\b", said), said
    control.write_text("")
    site.start()


def test_two_keys_of_one_label(site):
    pkcs11_tool(site, "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1", "--label",
                "intermediate", "--id", "55", "--usage-sign", "--sensitive")
    refused(site, "more than one private key", "intermediate")


def test_missing_key(site):
    site.set("token_key_label", "nobody")
    refused(site, "no private key", "nobody")


def test_key_of_another_ca(site):
    pkcs11_tool(site, "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "other",
                "--id", "55", "--usage-sign", "--sensitive")
    site.set("token_key_label", "other")
    refused(site, "other", "certificate")


# ---- the PIN ----

def logins(site):
    """Logins that the module has seen: result codes."""
    log = site.dir / "spy.log"
    if not log.exists():
        return []
    calls = re.split(r"\n\d+: ", "\n" + log.read_text(errors="replace"))
    return [re.search(r"Returned:\s+\d+ (\w+)", call).group(1) for call in calls if call.startswith("C_Login\n")]


def use_spy(site):
    site.set("token_module", spy())
    site.set("token_env.PKCS11SPY", softhsm_module())
    site.set("token_env.PKCS11SPY_OUTPUT", site.dir / "spy.log")


def test_wrong_pin_one_login_in_ten_restarts(site):
    use_spy(site)
    right = site.pin_file.read_text()
    site.pin_file.write_text("wrong-pin-0815\n")
    for i in range(10):
        said = refused(site, "CKR_PIN_INCORRECT" if i == 0 else "pin-refused stands", "PIN")
        assert "0815" not in said
    assert logins(site) == ["CKR_PIN_INCORRECT"]
    assert (site.state / "pin-refused").exists()

    site.pin_file.write_text(right)
    refused(site, "pin-refused stands", "signetctl pin retry")  # a person must say so
    assert len(logins(site)) == 1
    assert "forgotten" in site.ctl("pin", "retry").stdout
    site.start()
    assert site.issue(site.operator(), Key(mac(1)))[0] == 200
    # a signer logs in once, and so that the engine finds it done
    assert [rv for rv in logins(site)[1:] if rv != "CKR_USER_ALREADY_LOGGED_IN"] == ["CKR_OK"] * 2
    site.stop()


def test_wrong_pin_while_it_runs(site):
    """The token's PIN is changed under signetd: one try, then none until signetctl pin retry."""
    use_spy(site)
    site.start()
    op = site.operator()
    before = len(logins(site))
    softhsm(site, "pkcs11-tool", "--module", softhsm_module(), "--token-label", "Signet", "--login", "--login-type",
            "so", "--so-pin", SO_PIN, "--init-pin", "--new-pin", "another-pin-4711")
    for pid in site.roles()["signer"]:
        os.kill(pid, signal.SIGKILL)
    site.wait_ready(503)
    wait_for((site.state / "pin-refused").exists, "pin-refused")
    time.sleep(1.5)  # many backoffs long
    assert logins(site)[before:] == ["CKR_PIN_INCORRECT"]
    assert site.issue(op, Key(mac(1))) == (503, "token_unavailable")
    assert "NOT READY" in site.ctl("status", code=4).stdout
    site.pin_file.write_text("another-pin-4711\n")
    site.ctl("pin", "retry")
    site.wait_ready()
    assert not (site.state / "pin-refused").exists()
    assert site.issue(op, Key(mac(1)))[0] == 200
    site.check_books()


# ---- the token that is not there ----

def test_token_absent_at_start(site):
    site.start()
    op = site.operator()
    status, pem = site.issue(op, Key(mac(1)))
    assert status == 200
    number = site.crl().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    site.stop()

    tokens, away = site.dir / "hsm/tokens", site.dir / "hsm/away"
    tokens.rename(away)
    tokens.mkdir(0o700)
    site.start(ready=False)
    site.wait_ready(503)
    assert site.get("/healthz")[0] == 200
    status, crl = site.get("/crl")
    assert status == 200 and crl == (site.state / "crl.der").read_bytes()
    assert site.get("/ca.cer")[0] == 200
    with site.connect(op) as c:
        assert c.issue(Key(mac(2))) == (503, "token_unavailable")
        assert int(c.headers["Retry-After"]) >= 1
        status, body = c.ask("get_status")
        assert status == 200 and body["ready"] is False and body["token"]["state"] == "absent", body
        serial = x509.load_pem_x509_certificate(pem).serial_number
        status, body = c.ask("revoke_cert", serial=f"{serial:032x}", reason="keyCompromise")
        assert status == 200, body  # what needs no token goes on
    assert not (site.state / "pin-refused").exists()

    tokens.rmdir()
    away.rename(tokens)
    site.wait_ready()
    assert site.issue(op, Key(mac(2)))[0] == 200
    listed = site.crl()
    assert [r.serial_number for r in listed] == [serial]
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number > number
    site.check_books([pem])


def test_token_absent_at_the_very_first_start(site):
    """No listener certificate yet, so plain HTTP alone; all comes with the token."""
    tokens, away = site.dir / "hsm/tokens", site.dir / "hsm/away"
    tokens.rename(away)
    tokens.mkdir(0o700)
    site.start(ready=False)
    site.wait_ready(503)
    assert site.get("/ca.cer")[0] == 200
    tokens.rmdir()
    away.rename(tokens)
    site.wait_ready()
    op = wait_for(site.operator, "an operator")
    wait_for(lambda: (site.state / "listener.pem").exists(), "the listener's certificate")
    assert site.issue(op, Key(mac(1)))[0] == 200
    site.check_books()
