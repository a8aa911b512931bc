"""The ceremony: tokens, root, intermediate, revocation. Verdicts by openssl, certtool, pkcs11-tool."""

import json
import os
import re

import pytest

from hsm_harness import CEREMONY, SCRIPTS, Hsm, build_shim, make_ca, sha256_of_spki

KEY_TYPES = ["rsa:2048", "rsa:3072", "rsa:4096", "ec:p256", "ec:p384"]
ROOT = ("--token", "Root", "--key-label", "root", "--out", "root")


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def hsm(tmp_path):
    return Hsm(tmp_path)


@pytest.fixture
def other(tmp_path):
    """The root's machine: nothing of it is the intermediate's."""
    (tmp_path / "offline").mkdir()
    return Hsm(tmp_path / "offline")


def make_root(other, kind="ec:p256"):
    other.script("root-ceremony.sh", *ROOT, "--subject", "CN=Test Root, O=Tests", "--key-type", kind)


def make_request(hsm, kind="ec:p256", name="a"):
    hsm.script("intermediate.sh", "--token", f"Inter {name}", "--key-label", name, "--key-type", kind,
               "--subject", f"CN=Test Intermediate {name}", "--out", f"{name}.csr")


def carry(source, target, *names):
    for name in names:
        (target.dir / os.path.basename(name)).write_bytes((source.dir / name).read_bytes())


def sign(hsm, other, name="a"):
    carry(hsm, other, f"{name}.csr")
    other.script("root-ceremony.sh", *ROOT, "--sign-csr", f"{name}.csr", "--public-url", "http://ca.example.org:8080")
    carry(other, hsm, f"{name}.pem", "root/root.pem", "root/root-crl.der")


def install(hsm, *more, name="a", code=0):
    return hsm.script("intermediate.sh", "--token", f"Inter {name}", "--key-label", name, "--install", f"{name}.pem",
                      "--root", "root.pem", "--crl", "root-crl.der", "--state", "state", "--config", "signet.conf",
                      "--public-url", "http://ca.example.org:8080", "--name", "ca.example.org", *more, code=code)


def crl_pem(hsm):
    hsm.run("openssl", "crl", "-inform", "DER", "-in", "root-crl.der", "-out", "root-crl.pem")


def verdict(hsm, name="a"):
    """What openssl says of the chain, the root's list included."""
    crl_pem(hsm)
    return hsm.run("openssl", "verify", "-x509_strict", "-crl_check_all", "-CAfile", "root.pem", "-CRLfile",
                   "root-crl.pem", f"{name}.pem", code=None)


@pytest.mark.parametrize("kind", KEY_TYPES)
def test_whole_ceremony(hsm, other, kind):
    make_root(other, kind)
    make_request(hsm, kind)
    assert "verify OK" in hsm.run("openssl", "req", "-in", "a.csr", "-verify", "-noout").stderr
    sign(hsm, other)
    assert verdict(hsm).returncode == 0
    hsm.run("certtool", "--verify", "--infile", "a.pem", "--load-ca-certificate", "root.pem", "--load-crl",
            "root-crl.pem")
    text = hsm.run("openssl", "x509", "-in", "a.pem", "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text and "Certificate Sign, CRL Sign" in text
    assert "URI:http://ca.example.org:8080/root-crl" in text
    assert "CA Issuers - URI:http://ca.example.org:8080/root.cer" in text
    install(hsm)
    chain = (hsm.dir / "state/ca-chain.pem").read_text()
    assert chain.count("BEGIN CERTIFICATE") == 2
    assert (hsm.dir / "state/root-crl.der").read_bytes() == (hsm.dir / "root-crl.der").read_bytes()
    assert "label = Inter a" in (hsm.dir / "signet.conf").read_text()
    listing = hsm.pkcs11_tool("-O", token="Inter a")
    private, public = (re.search(rf"{half} Key Object.*?Access:[^\n]*", listing, re.S).group() for half in
                       ("Private", "Public"))
    assert re.search(r"Usage: +sign\n", private) and re.search(r"Usage: +verify\n", public)
    assert "sensitive, always sensitive, never extractable, local" in private
    assert listing.count("Certificate Object") == 2


def test_tokens_need_not_meet(hsm, other):
    """No token, PIN or private key goes between the two machines."""
    make_root(other)
    make_request(hsm)
    sign(hsm, other)
    install(hsm)
    assert not list((hsm.dir / "softhsm").rglob("*Root*"))
    assert "Root" not in hsm.run("softhsm2-util", "--show-slots").stdout
    assert "Inter" not in other.run("softhsm2-util", "--show-slots").stdout


def snapshot(where):
    return {p: p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file()
            and not re.search(r"tokens/|\.lock$", str(p))}


def test_run_twice_refuses(hsm, other):
    make_root(other)
    make_request(hsm)
    before = snapshot(other.dir), snapshot(hsm.dir)
    again = other.script("root-ceremony.sh", *ROOT, "--subject", "CN=Other", code=1)
    assert "root.pem exists already" in again.stderr
    again = hsm.script("intermediate.sh", "--token", "Inter a", "--key-label", "a", "--subject", "CN=Other", "--out",
                       "a.csr", code=1)
    assert "a.csr exists already" in again.stderr
    again = hsm.script("make-token.sh", "--token", "Inter a", "--key-label", "a", code=1)
    assert "has a key with this label already" in again.stderr
    assert (snapshot(other.dir), snapshot(hsm.dir)) == before


def test_a_run_cut_short_goes_on(hsm):
    hsm.script("make-token.sh", "--token", "Inter a", "--key-label", "a")
    make_request(hsm)  # the key was there, the request not
    assert (hsm.dir / "a.csr").exists()


def test_token_without_pin_is_completed(hsm):
    hsm.run("pkcs11-tool", "--module", hsm.module, "--init-token", "--slot-index", "0", "--label", "T", "--so-pin",
            Hsm.SO_PIN)
    hsm.init_token()
    hsm.key()


def test_an_initialized_token_is_not_wiped(hsm):
    hsm.init_token()
    hsm.key()
    other_pin = hsm.secret("other-pin", "quite-another")
    again = hsm.tool("init-token", "T", "--so-pin-file", hsm.so_pin, code=3, pin=other_pin)
    assert "is left as it is" in again.stderr
    slot = re.search(r"Slot (\d+)", hsm.run("softhsm2-util", "--show-slots").stdout).group(1)
    again = hsm.tool("init-token", "New", "--so-pin-file", hsm.so_pin, "--slot", slot, code=3)
    assert "it is not wiped" in again.stderr
    hsm.tool("check", "T", "--key-label", "k")


def test_install_refuses_what_does_not_belong(hsm, other):
    make_root(other)
    make_request(hsm, name="a")
    make_request(hsm, name="b")
    sign(hsm, other, "a")
    sign(hsm, other, "b")
    hsm.run("cp", "b.pem", "a.pem")
    refused = install(hsm, code=1)
    assert "does not belong to the CA's certificate" in refused.stderr
    assert not (hsm.dir / "state").exists()


def test_revocation_and_rising_numbers(hsm, other):
    make_root(other)
    make_request(hsm, name="a")
    make_request(hsm, name="b")
    sign(hsm, other, "a")
    sign(hsm, other, "b")
    install(hsm)
    other.script("root-ceremony.sh", *ROOT, "--revoke", "a.pem", "--reason", "superseded")
    carry(other, hsm, "root/root-crl.der")
    assert "certificate revoked" in verdict(hsm, "a").stderr
    assert verdict(hsm, "b").returncode == 0
    # the next list keeps it, also when the root's own record is lost
    (other.dir / "root/root.pem.index").unlink()
    other.script("root-ceremony.sh", *ROOT, "--crl")
    carry(other, hsm, "root/root-crl.der")
    assert "certificate revoked" in verdict(hsm, "a").stderr
    text = hsm.run("openssl", "crl", "-in", "root-crl.pem", "-noout", "-text").stdout
    assert re.search(r"CRL Number: *\n *5\n", text) and "Superseded" in text
    hsm.script("intermediate.sh", "--crl", "root-crl.der", "--root", "root.pem", "--state", "state")
    assert (hsm.dir / "state/root-crl.der").read_bytes() == (hsm.dir / "root-crl.der").read_bytes()


# ---- the OCSP responder's key ----


def private_keys(hsm, token):
    """{label: its line of what the token says} of the private keys in a token."""
    keys = json.loads(hsm.tool("show", token, "--json").stdout)["keys"]
    return {key["label"]: key for key in keys}


def ocsp_lines(hsm):
    return [line for line in (hsm.dir / "signet.conf").read_text().splitlines() if line.startswith("ocsp_")]


def ready_to_install(hsm, other):
    make_root(other)
    make_request(hsm)
    sign(hsm, other)


def test_the_ocsp_key_is_made_in_the_servers_token_alone(hsm, other):
    ready_to_install(hsm, other)
    assert "ocsp" not in private_keys(hsm, "Inter a")
    install(hsm)
    assert set(private_keys(hsm, "Inter a")) == {"a", "ocsp"} and ocsp_lines(hsm) == ["ocsp_key_label = ocsp"]
    hsm.tool("check", "Inter a", "--key-label", "ocsp")  # custody, and a signature
    assert "ocsp" not in private_keys(other, "Root")
    shown = private_keys(hsm, "Inter a")["ocsp"]
    assert shown["type"] == "ec:p256", shown


def test_the_ocsp_key_by_choice_or_not_at_all(hsm, other):
    ready_to_install(hsm, other)
    install(hsm, "--no-ocsp")
    assert set(private_keys(hsm, "Inter a")) == {"a"} and ocsp_lines(hsm) == []
    (hsm.dir / "signet.conf").unlink()
    install(hsm, "--ocsp-key-label", "o", "--ocsp-key-id", "0x4711", "--ocsp-key-type", "rsa:2048")
    shown = private_keys(hsm, "Inter a")["o"]
    assert (shown["type"], shown["id"]) == ("rsa:2048", "4711"), shown
    assert ocsp_lines(hsm) == ["ocsp_key_label = o", "ocsp_key_id = 4711"]


def test_an_adopted_token_gets_no_key(hsm, other):
    ready_to_install(hsm, other)
    install(hsm, "--adopt")
    assert set(private_keys(hsm, "Inter a")) == {"a"} and ocsp_lines(hsm) == []
    (hsm.dir / "signet.conf").unlink()
    refused = install(hsm, "--adopt", "--ocsp-key-label", "none", code=1)
    assert "no private key with label \"none\"" in refused.stderr and not (hsm.dir / "signet.conf").exists()
    hsm.key("Inter a", "mine")
    install(hsm, "--adopt", "--ocsp-key-label", "mine")
    assert ocsp_lines(hsm) == ["ocsp_key_label = mine"]


def test_an_older_list_is_not_installed(hsm, other):
    make_root(other)
    make_request(hsm)
    sign(hsm, other)
    install(hsm)
    old = (hsm.dir / "root-crl.der").read_bytes()
    other.script("root-ceremony.sh", *ROOT, "--crl")
    carry(other, hsm, "root/root-crl.der")
    newer = ("intermediate.sh", "--crl", "root-crl.der", "--root", "root.pem", "--state", "state")
    hsm.script(*newer)
    (hsm.dir / "root-crl.der").write_bytes(old)
    assert "older list is not installed" in hsm.script(*newer, code=1).stderr


def test_crl_of_another_root_is_not_overwritten(hsm, other):
    make_root(other)
    make_root(hsm)
    carry(hsm, other, "root/root-crl.der")
    (other.dir / "root-crl.der").rename(other.dir / "root/root-crl.der")
    refused = other.script("root-ceremony.sh", *ROOT, "--crl", code=1)
    assert "was not signed by this root" in refused.stderr


def test_request_is_checked(hsm, other):
    """Proof of possession, key size, and the root's own key."""
    make_root(other)
    other.run("openssl", "req", "-newkey", "rsa:1024", "-nodes", "-keyout", "k", "-out", "weak.csr", "-subj", "/CN=W")
    other.run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k2",
              "-out", "good.csr", "-subj", "/CN=W", "-outform", "DER")
    broken = bytearray((other.dir / "good.csr").read_bytes())
    broken[-1] ^= 1
    (other.dir / "broken.csr").write_bytes(broken)
    other.tool("csr", "Root", "--key-label", "root", "--subject", "CN=Sub", "--out", "own.csr")
    for name, why in (("weak", "RSA"), ("broken", "signature"), ("own", "the root's own name or key")):
        refused = other.tool("sign-intermediate", "Root", "--key-label", "root", "--root-certificate", "root/root.pem",
                             "--csr", f"{name}.csr", "--out", f"{name}.pem", code=1)
        assert why in refused.stderr
        assert not (other.dir / f"{name}.pem").exists()
    assert "issued" not in (other.dir / "root/root.pem.index").read_text()


def test_garbage_signature_is_never_written(hsm, shim):
    """The trial signature passes, the next is broken by the module."""
    hsm.init_token()
    hsm.key()
    hsm.use_shim(shim)
    hsm.control.write_text("C_Sign garbage\n")
    refused = hsm.tool("csr", "T", "--key-label", "k", "--subject", "CN=A", "--out", "a.csr", code=1)
    assert "trial signature does not verify" in refused.stderr and not (hsm.dir / "a.csr").exists()


def test_wrong_pin_is_tried_once(hsm, shim):
    hsm.init_token()
    hsm.key()
    hsm.use_shim(shim)
    wrong = hsm.secret("wrong", "not-the-pin")
    refused = hsm.tool("check", "T", "--key-label", "k", code=1, pin=wrong)
    assert "CKR_PIN_INCORRECT" in refused.stderr and "not-the-pin" not in refused.stderr + refused.stdout
    assert hsm.calls("C_Login") == ["0xa0"]
    shown = hsm.run(CEREMONY, "show", "--module", hsm.module, "--token", "T").stdout
    assert "wrong tries since the last login" in shown


def test_right_pin_logs_in_once(hsm, shim):
    hsm.init_token()
    hsm.key()
    hsm.use_shim(shim)
    hsm.tool("check", "T", "--key-label", "k")
    assert hsm.calls("C_Login").count("0x0") == 1
    assert set(hsm.calls("C_Login")) <= {"0x0", "0x100"}


@pytest.mark.parametrize("flag, why", [("20000", "one more wrong PIN locks it"), ("40000", "its PIN is locked")])
def test_last_try_and_locked_are_not_tried(hsm, shim, flag, why):
    hsm.init_token()
    hsm.key()
    hsm.use_shim(shim)
    hsm.control.write_text(f"C_GetTokenInfo flags {flag}\n")
    assert why in hsm.tool("check", "T", "--key-label", "k", code=1).stderr
    assert hsm.calls("C_Login") == []


def test_pins_are_in_no_command_line_and_no_environment(hsm, other):
    """Every program that the scripts start, with all its words and variables, by strace."""
    def traced(which, trace, script, *args):
        which.run("strace", "-f", "-v", "-s", "100000", "-e", "trace=execve", "-o", trace, SCRIPTS / script, "--module",
                  which.module, "--pin-file", which.pin, "--so-pin-file", which.so_pin, *args)
        text = (which.dir / trace).read_text()
        assert "signet-ceremony" in text
        return text

    def absent(text):
        assert Hsm.PIN not in text and Hsm.SO_PIN not in text

    absent(traced(other, "trace1", "root-ceremony.sh", *ROOT, "--subject", "CN=R"))
    absent(traced(hsm, "trace2", "intermediate.sh", "--token", "Inter a", "--key-label", "a", "--subject", "CN=I",
                  "--out", "a.csr"))
    sign(hsm, other)
    absent(traced(hsm, "trace3", "intermediate.sh", "--token", "Inter a", "--key-label", "a", "--install", "a.pem",
                  "--root", "root.pem", "--crl", "root-crl.der", "--state", "state", "--config", "signet.conf"))
    absent((hsm.dir / "signet.conf").read_text())


def test_random_pins_are_private(hsm):
    hsm.run(SCRIPTS / "make-token.sh", "--softhsm", "own", "--token", "My token", "--key-label", "k")
    pin, so_pin = hsm.dir / "My-token.pin", hsm.dir / "My-token.so-pin"
    assert pin.stat().st_mode & 0o777 == so_pin.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[A-Za-z0-9]{15}\n", pin.read_text())
    assert re.fullmatch(r"[0-9a-f]{16}\n", so_pin.read_text())
    assert (hsm.dir / "own/tokens").stat().st_mode & 0o077 == 0


def test_pin_file_that_others_can_read_is_refused(hsm):
    hsm.init_token()
    hsm.pin.chmod(0o644)
    assert "chmod 600" in hsm.tool("show", code=1).stderr


def import_key(hsm):
    hsm.init_token()
    hsm.run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "soft.pem")
    hsm.run("softhsm2-util", "--import", "soft.pem", "--token", "T", "--label", "k", "--id", "01", "--pin", Hsm.PIN)
    hsm.run("openssl", "req", "-x509", "-new", "-key", "soft.pem", "-subj", "/CN=Imported", "-days", "9", "-out",
            "soft-ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return sha256_of_spki(hsm, "soft-ca.pem")


def test_imported_key_breaks_custody(hsm):
    digest = import_key(hsm)
    refused = hsm.tool("check", "T", "--key-label", "k", "--certificate", "soft-ca.pem", code=1)
    assert "breaks custody" in refused.stderr
    for attribute in ("ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL"):
        assert attribute in refused.stderr
    hsm.tool("csr", "T", "--key-label", "k", "--subject", "CN=A", "--out", "a.csr", code=1)
    shown = hsm.tool("show", "T").stdout
    assert "missing: ALWAYS_SENSITIVE, NEVER_EXTRACTABLE, LOCAL" in shown and digest in shown


def test_waiver_is_for_one_key_and_has_a_reason(hsm):
    digest = import_key(hsm)

    def check(exception, code):
        return hsm.tool("check", "T", "--key-label", "k", "--custody-exception", exception, code=code)

    check(f"{digest}, wrapped backup in the safe", 0)
    assert "names another key" in check("00" * 32 + ", reason", 1).stderr
    for malformed in (digest, digest + ",", digest + ", ", digest[:-2] + ", reason", "xy" * 32 + ", reason", "all"):
        assert "it must be" in check(malformed, 1).stderr


@pytest.mark.parametrize("attribute, name", [("103", "SENSITIVE"), ("2", "PRIVATE"), ("108", "SIGN")])
def test_absolute_custody_is_never_waived(hsm, shim, attribute, name):
    hsm.init_token()
    hsm.key()
    digest = re.search(r"SHA-256: (\w+)", hsm.tool("show").stdout).group(1)
    hsm.use_shim(shim)
    hsm.control.write_text(f"C_GetAttributeValue false {attribute}\n")
    refused = hsm.tool("check", "T", "--key-label", "k", "--custody-exception", digest + ", reason", code=1)
    assert f"does not say {name}." in refused.stderr and "cannot be waived" in refused.stderr


@pytest.mark.parametrize("kind, why", [("EC:secp521r1", "cannot be a CA's"), ("rsa:1024", "cannot be a CA's")])
def test_other_keys_are_refused(hsm, kind, why):
    hsm.init_token()
    hsm.pkcs11_tool("--keypairgen", "--key-type", kind, "--label", "k", "--id", "01", "--usage-sign")
    assert why in hsm.tool("check", "T", "--key-label", "k", code=1).stderr


def test_faults_name_the_cause(hsm, tmp_path):
    hsm.init_token()
    hsm.key()
    ca = make_ca(hsm)
    hsm.key("T", "other")

    def fault(*more, token="T", key="k"):
        return hsm.tool("check", token, "--key-label", key, *more, code=1).stderr

    assert 'there is no token "U" (the module shows "T")' in fault(token="U")
    assert 'no private key with label "none"' in fault(key="none")
    assert "does not belong to the CA's certificate" in fault("--certificate", ca, key="other")
    hsm.pkcs11_tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--id", "77", "--usage-sign")
    assert "more than one private key" in fault()
    hsm.tool("check", "T", "--key-id", "77")
    hsm.run("softhsm2-util", "--init-token", "--free", "--label", "T", "--pin", Hsm.PIN, "--so-pin", Hsm.SO_PIN)
    assert '2 tokens have the label "T"' in fault()
    (tmp_path / "empty.so").write_bytes(b"")
    hsm.module = str(tmp_path / "empty.so")
    assert "does not load" in fault()
    hsm.module = "libz.so.1"
    assert "not a PKCS#11 module" in fault()


def test_no_session_does_not_hang(hsm, shim):
    """libp11 0.4.12 waits for ever here; the raw probe comes first."""
    hsm.init_token()
    hsm.key()
    hsm.use_shim(shim)
    hsm.control.write_text("C_OpenSession error b1\n")
    assert "CKR_SESSION_COUNT" in hsm.tool("check", "T", "--key-label", "k", code=1).stderr


def test_labels_cannot_break_out_of_the_uri(hsm):
    token, label = "A;object=x?pin", 'k;id=%01&"é'
    hsm.init_token(token)
    hsm.key(token, label)
    hsm.tool("check", token, "--key-label", label)


def test_usage(hsm):
    assert "needs --token" in hsm.run(CEREMONY, "csr", "--module", "m", code=2).stderr
    assert "does not take --years" in hsm.run(CEREMONY, "show", "--years", "3", code=2).stderr
    assert "no command" in hsm.run(CEREMONY, "frobnicate", code=2).stderr
    hsm.run(CEREMONY, "--version")
    for script in ("make-token.sh", "root-ceremony.sh", "intermediate.sh"):
        assert "--adopt" in hsm.run(SCRIPTS / script, "--help").stdout
