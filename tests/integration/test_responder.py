"""The OCSP responder's certificate, for the second key in the token: what it holds, when it is renewed, for which key;
and the key itself, looked at like the CA's. The verdict on what is issued is openssl's and certtool's."""

import hashlib
import json
import os
import re
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID

from clock_site import ClockSite
from desk import reload
from signet_site import BUILD, ISSUED, PIN, SCRIPTS, Key, Site, mac, run, wait_for
from test_custody import logins, pkcs11_tool, refused, softhsm, use_spy

MINUTE, DAY = 60, 86400
LIFE = 7 * DAY


@pytest.fixture
def site(kit, tmp_path):
    with Site(kit, tmp_path / "site", ocsp=True) as s:
        yield s


@pytest.fixture
def clock(kit, tmp_path):
    with ClockSite(kit, tmp_path / "site", ocsp=True) as s:
        yield s


def rows(site):
    """[(serial, state, DER)] of the responder's certificates, in their order."""
    return site.query("SELECT lower(hex(serial)), state, der FROM certificate WHERE profile = 'ocsp' ORDER BY id")


def issued(site, count):
    """The certificates, once there are so many."""
    def enough():
        found = rows(site)
        return found if len(found) >= count and found[-1][2] else None
    return wait_for(enough, lambda: f"{count} certificates of the responder: {rows(site)}\n{site.log()}")


def in_use(site):
    """Until when."""
    return wait_for(lambda: status(site).get("ocsp_not_after"), "a responder's certificate is in use")


def no_more(site, count, seconds=2):
    time.sleep(seconds)  # one is asked for at once, but only each fifth second
    assert len(rows(site)) == count, site.log()


def token_key(site, label):
    """SubjectPublicKeyInfo, as the token itself shows it."""
    out = site.dir / "token-key.der"
    pkcs11_tool(site, "--read-object", "--type", "pubkey", "--label", label, "--output-file", out)
    return out.read_bytes()


def spki_of(der):
    return x509.load_der_x509_certificate(der).public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def status(site):
    return json.loads(site.ctl("--json", "status").stdout)


def access(pem):
    """{method: URL} of authorityInfoAccess."""
    names = {AuthorityInformationAccessOID.OCSP: "ocsp", AuthorityInformationAccessOID.CA_ISSUERS: "ca"}
    aia = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    return {names[a.access_method]: a.access_location.value for a in aia}


def make_key(site, label, kind="ec:p256"):
    softhsm(site, "pkcs11-tool", "--module", site_module(site), "--token-label", "Signet", "--login", "--pin", PIN,
            "--keypairgen", "--key-type", {"ec:p256": "EC:prime256v1", "rsa:2048": "rsa:2048"}[kind], "--label", label,
            "--id", hashlib.sha256(label.encode()).hexdigest()[:8], "--usage-sign", "--sensitive")


def site_module(site):
    return re.search(r"^module = (.*)$", site.conf.read_text(), re.M).group(1)


# ---- what it is ----


def test_what_it_holds(site):
    site.start()
    ((serial, state, der),) = issued(site, 1)
    assert state == ISSUED and spki_of(der) == token_key(site, "ocsp") != token_key(site, "intermediate")
    pem = site.dir / "responder.pem"
    pem.write_text(ssl.DER_cert_to_PEM_cert(der))
    own = site.state / "intermediate.pem"
    run("openssl", "verify", "-x509_strict", "-purpose", "ocsphelper", "-CAfile", site.root, "-untrusted", own, pem)
    for purpose in ("sslclient", "sslserver"):  # it is of use for nothing else
        run("openssl", "verify", "-purpose", purpose, "-CAfile", site.root, "-untrusted", own, pem, code=2)
    text = run("certtool", "--certificate-info", "--infile", pem).stdout
    assert "OCSP signing" in text and "1.3.6.1.5.5.7.48.1.5" in text and "Digital signature" in text, text
    for absent in ("CRL Distribution", "Authority Information Access", "Key agreement", "Certificate signing"):
        assert absent not in text, text
    shown = run("openssl", "x509", "-in", pem, "-noout", "-text").stdout
    assert "OCSP No Check" in shown and "OCSP Signing" in shown and "CA Issuers" not in shown
    cert = x509.load_der_x509_certificate(der)
    assert (cert.not_valid_after - cert.not_valid_before).total_seconds() == LIFE + 5 * MINUTE
    assert cert.subject.rfc4514_string() == "CN=OCSP-responder"
    file = site.state / "certs" / serial[:2] / serial[2:4] / f"{serial}.pem"
    wait_for(file.exists, "its file")
    assert file.read_text() == pem.read_text()


def test_everybody_is_told_where_to_ask(site):
    site.start()
    op, url = site.operator(), f"http://127.0.0.1:{site.http_port}"
    told = {"ocsp": f"{url}/ocsp", "ca": f"{url}/ca.cer"}
    code, pem = site.issue(op, Key(mac(1)))
    assert code == 200 and access(pem) == told
    assert access(op.cert.read_bytes()) == told
    assert access((site.state / "listener.pem").read_bytes()) == told
    text = run("openssl", "x509", "-noout", "-ocsp_uri", input=pem.decode()).stdout
    assert text.strip() == told["ocsp"]
    in_use(site)
    assert re.search(r"^OCSP +until ", site.ctl("status").stdout, re.M)
    end = x509.load_der_x509_certificate(rows(site)[0][2]).not_valid_after
    assert status(site)["ocsp_not_after"] == end.strftime("%Y-%m-%dT%H:%M:%SZ") == \
        site.ask(op, "get_status")[1]["ocsp_not_after"]
    assert "OCSP-responder" not in site.ctl("operator", "list").stdout
    assert any(re.match(r"issued serial=\w+ profile=ocsp name=OCSP-responder ", line) for line in site.check_journal())
    site.check_books([pem])
    site.ctl("audit")


def test_without_a_key_there_is_none(kit, tmp_path):
    with Site(kit, tmp_path / "site") as site:
        site.start()
        op = site.operator()
        code, pem = site.issue(op, Key(mac(1)))
        assert code == 200 and access(pem) == {"ca": f"http://127.0.0.1:{site.http_port}/ca.cer"}
        no_more(site, 0)
        assert site.ask(op, "get_status")[1]["ocsp_not_after"] is None and "OCSP" not in site.ctl("status").stdout


def test_the_script_adds_a_key_to_what_is_there(kit, tmp_path):
    with Site(kit, tmp_path / "site") as site:
        before = site.conf.read_text()
        site.start()
        script = ("intermediate.sh", "--softhsm", "hsm", "--pin-file", "pin", "--config", site.conf,
                  "--ocsp-key", "--ocsp-key-label", "ocsp2", "--ocsp-key-type", "rsa:2048")
        run_script(site, *script)
        added = [line for line in site.conf.read_text().splitlines() if line not in before.splitlines()]
        assert added == ["ocsp_key_label = ocsp2"]
        assert "names the key ocsp2 for OCSP already" in run_script(site, *script[:-3], "other", code=1).stderr
        assert "The key that is there is used" in run_script(site, *script).stdout
        reload(site)
        ((_, _, der),) = issued(site, 1)
        assert spki_of(der) == token_key(site, "ocsp2")
        code, pem = site.issue(site.operator(), Key(mac(1)))
        assert code == 200 and access(pem)["ocsp"].endswith("/ocsp")
        site.stop()
        for kind in ("privkey", "pubkey"):
            pkcs11_tool(site, "--login", "--pin", PIN, "--delete-object", "--type", kind, "--label", "ocsp2")
        refused(site, "ocsp2", "intermediate.sh --ocsp-key")
        text = site.conf.read_text()
        run_script(site, *script[:-4])  # by the name that the file has
        assert site.conf.read_text() == text
        site.start()
        assert spki_of(issued(site, 2)[1][2]) == token_key(site, "ocsp2") != spki_of(der)


def run_script(site, name, *args, code=0):
    env = {"PATH": os.environ["PATH"], "SIGNET_BUILD": str(BUILD), "LC_ALL": "C.UTF-8"}
    if "ASAN_OPTIONS" in os.environ:
        env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
    return run("bash", SCRIPTS / name, *args, cwd=site.dir, env=env, code=code)


def test_nobody_else_gets_one(site):
    site.start()
    op = site.operator("op", "provisioner,revoker,admin")
    assert site.issue(op, Key("OCSP-responder"), profile="ocsp")[0] == 422
    assert site.issue(op, Key(mac(1)), profile="ocsp") == (403, "profile_refused")
    before = site.conf.read_text()
    for section, why in ((("mine", "extendedKeyUsage = OCSPSigning"), "for the profile ocsp alone"),
                         (("ocsp", "extendedKeyUsage = clientAuth"), "it is the OCSP responder's own"),
                         (("ocsp", "extendedKeyUsage = OCSPSigning\noperations = req_client_cert\nroles = provisioner"),
                          "it is the OCSP responder's own")):
        name, lines = section
        site.conf.write_text(before + f"\n[profile {name}]\nkeys = ec:p256\nname = label\nsubject = CN={{name}}\n"
                             f"not_before = -5m\nnot_after = +7d\nbasicConstraints = critical, CA:FALSE\n{lines}\n")
        code, said = site.run_to_end("--check")
        assert code == 1 and why in said and f"[profile {name}]" in said, said


# ---- when ----


def test_a_restart_takes_it_from_the_store(site):
    site.start()
    issued(site, 1)
    until = in_use(site)
    site.stop()
    site.start()
    assert in_use(site) == until
    no_more(site, 1)


def test_renewed_at_half_of_its_life_and_after_its_end(clock):
    clock.start()
    issued(clock, 1)
    clock.offset(LIFE // 2 - 10 * MINUTE)
    clock.accept()
    no_more(clock, 1, 6)
    clock.offset(LIFE // 2 + MINUTE)
    issued(clock, 2)
    first, second = (x509.load_der_x509_certificate(der) for _, _, der in rows(clock))
    assert abs((second.not_valid_after - first.not_valid_after).total_seconds() - LIFE / 2) < 5 * MINUTE
    assert spki_of(rows(clock)[0][2]) == spki_of(rows(clock)[1][2])
    assert [state for _, state, _ in rows(clock)] == [ISSUED] * 2  # what was answered with it holds until it ends
    wait_for(lambda: status(clock)["ocsp_not_after"] == second.not_valid_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
             "the second is in use")
    clock.stop()
    clock.offset(LIFE // 2 + 8 * DAY)  # nobody was there to renew it
    clock.start(ready=False)
    wait_for(lambda: "clock" in clock.ctl("status", code=None).stdout, "the clock is asked about")
    no_more(clock, 2)
    clock.accept()
    issued(clock, 3)
    third = x509.load_der_x509_certificate(rows(clock)[2][2])
    assert third.not_valid_before > second.not_valid_after


def test_never_beyond_the_issuers_end(clock):
    ca = x509.load_pem_x509_certificate((clock.state / "intermediate.pem").read_bytes())
    left = (ca.not_valid_after - ca.not_valid_before).total_seconds()
    clock.offset(int(left) - 3 * DAY)
    clock.start()
    ((_, _, der),) = issued(clock, 1)
    assert x509.load_der_x509_certificate(der).not_valid_after == ca.not_valid_after
    clock.offset(int(left) - DAY)  # more than half of it is over, and no other would end later
    clock.accept()
    no_more(clock, 1, 6)


# ---- for which key ----


def test_another_key_another_certificate(site):
    site.start()
    issued(site, 1)
    make_key(site, "next", "rsa:2048")
    site.set("token_ocsp_key_label", "next")
    reload(site)
    (_, state, _), (_, _, second) = issued(site, 2)
    assert state == ISSUED and spki_of(second) == token_key(site, "next")
    in_use(site)
    site.set("token_ocsp_key_label", "ocsp")
    site.stop()
    site.start()
    in_use(site)
    no_more(site, 2)


# ---- the key, looked at like the CA's ----


def test_a_key_that_cannot_be_had_stops_the_start(site):
    site.set("token_ocsp_key_label", "nobody")
    refused(site, "OCSP responder's key", "nobody", "intermediate.sh --ocsp-key")
    site.set("token_ocsp_key_label", "intermediate")
    refused(site, "OCSP responder's key", "the CA's own")
    make_key(site, "two")
    softhsm(site, "pkcs11-tool", "--module", site_module(site), "--token-label", "Signet", "--login", "--pin", PIN,
            "--keypairgen", "--key-type", "EC:prime256v1", "--label", "two", "--id", "99", "--usage-sign", "--sensitive")
    site.set("token_ocsp_key_label", "two")
    refused(site, "OCSP responder's key", "more than one private key")
    assert not (site.state / "pin-refused").exists()


def test_an_imported_key_needs_its_own_exception(site):
    key = Key("outside")
    key.save(site.dir / "outside.pem")
    softhsm(site, "softhsm2-util", "--import", "outside.pem", "--token", "Signet", "--label", "outside", "--id", "77",
            "--pin", PIN)
    spki = key.private.public_key().public_bytes(serialization.Encoding.DER,
                                                 serialization.PublicFormat.SubjectPublicKeyInfo)
    site.set("token_ocsp_key_label", "outside")
    refused(site, "OCSP responder's key", "LOCAL", "NEVER_EXTRACTABLE", "custody")
    digest = hashlib.sha256(spki).hexdigest()
    site.set("token_ocsp_custody_exception", digest + ", moved from the old server")
    site.start()
    issued(site, 1)
    assert "moved from the old server" in site.ctl("status").stdout
    assert wait_for(lambda: [line for line in site.check_journal() if
                             line.startswith(f"custody-exception key={digest} ")], "the journal tells it")


def test_one_login_for_both_keys(site):
    use_spy(site)
    site.start()
    issued(site, 1)
    assert [rv for rv in logins(site) if rv != "CKR_USER_ALREADY_LOGGED_IN"] == ["CKR_OK"] * 2  # of two signers
    site.stop()
