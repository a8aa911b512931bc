"""What others' programs find of the TLS: sslscan, and testssl.sh as the long variant."""

import json
import re
import ssl
import xml.etree.ElementTree as ET

import pytest

from desk import tls
from signet_site import run

STRONG = {"TLSv1.3": {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"},
          "TLSv1.2": {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256",
                      "ECDHE-ECDSA-CHACHA20-POLY1305"}}
GROUPS = {"x25519", "secp256r1 (NIST P-256)", "secp384r1 (NIST P-384)"}
HYBRID = "X25519MLKEM768"  # where OpenSSL has it


def scan(site):
    report = site.dir / "sslscan.xml"
    run("sslscan", f"--xml={report}", "--show-sigs", "--connect-timeout=60", f"127.0.0.1:{site.port}")
    return ET.parse(report).find("ssltest")


def test_sslscan(site):
    """TLS 1.2 and 1.3, forward secrecy and AEAD alone, no renegotiation, groups and signatures of 128 bits and more."""
    site.start()
    found = scan(site)
    assert {(p.get("type"), p.get("version")) for p in found.iter("protocol") if p.get("enabled") == "1"} == \
        {("tls", "1.2"), ("tls", "1.3")}
    assert found.find("renegotiation").get("supported") == "0"
    assert all(h.get("vulnerable") == "0" for h in found.iter("heartbleed"))
    assert all(c.get("supported") == "0" for c in found.iter("compression"))
    ciphers = {}
    for c in found.iter("cipher"):
        ciphers.setdefault(c.get("sslversion"), set()).add(c.get("cipher"))
    assert ciphers == STRONG
    groups = {g.get("name") for g in found.iter("group")}
    assert groups - {HYBRID} == GROUPS, groups
    assert {s.get("name") for s in found.iter("connection-signature-algorithm")} == {"ecdsa_secp256r1_sha256"}
    certificate = found.find(".//certificate[@type='short']")
    assert certificate.find("signature-algorithm").text.strip() == "ecdsa-with-SHA256"
    assert certificate.find("pk").get("curve_name") == "prime256v1" and certificate.find("expired").text == "false"


def test_no_renegotiation(site):
    """Asked for by a client that can: it gets nothing, and the connection stays or ends, but the server does."""
    site.start()
    done = run("openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-CAfile", site.root, "-tls1_2",
               input="R\n", code=None)
    said = done.stdout + done.stderr
    assert "Secure Renegotiation IS supported" in said and re.search(r"no renegotiation|:error:", said), said
    assert "Compression: NONE" in said and "TLS session ticket" not in said
    with tls(site) as s:
        assert s.version() == "TLSv1.3" and s.compression() is None and not s.session.has_ticket


# What testssl.sh lists that is so by intent, and why.
INTENDED = {
    "cert_trust": "the CA is private: clients trust its root, no browser does",
    "cert_chain_of_trust": "as before",
    "cert_notAfter": "seven days, renewed by signetd itself",
    "cert_expirationStatus": "as before",
    "DNS_CAArecord": "127.0.0.1 has no DNS",
    "OCSP_stapling": "a client asks by itself, or takes the CRL",
    "cert_revocation": "the CRL's URL is there",
    "HSTS": "no browser comes here: /v1 refuses every Origin",
    "security_headers": "as before",
    "fallback_SCSV": "there is nothing below 1.2 to fall back to",
}
BAD = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}


@pytest.mark.long
def test_testssl(site):
    """Everything from LOW upwards is one of those that are intended."""
    site.start()
    report = site.dir / "testssl.json"
    run("testssl", "--warnings", "batch", "--color", "0", "--jsonfile", report, f"127.0.0.1:{site.port}", code=None,
        timeout=1800)
    found = json.loads(report.read_text())
    assert len(found) > 100, "it did not come to its end"
    bad = {f["id"]: (f["severity"], f["finding"]) for f in found if f["severity"] in BAD}
    print("\n".join(f"{key}: {value}" for key, value in bad.items()))
    unexpected = {key: value for key, value in bad.items() if key.split(" ")[0] not in INTENDED}
    assert unexpected == {}
