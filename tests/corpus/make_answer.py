#!/usr/bin/env python3
"""Makes the server's answers in answer/ and the CRLs in crl/, signed by the keys of tests/fuzz/ca.h.

    tests/corpus/make_answer.py       new signatures each time, for the rest the same

A file's name says what the laptop makes of it: "ok", or what is wrong with it.
"""
import base64
import datetime
import json
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = pathlib.Path(__file__).resolve().parent
START, END = datetime.datetime(2020, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)
ANCHOR = "1.2.840.113556.1.8000.2554.54693.671.13568.20450.35417.6933421.5119703"  # pki/crl.c
MAC = "24:0a:c4:00:00:01"


def key_of(byte):
    return ec.derive_private_key(int.from_bytes(bytes([byte]) * 32, "big"), ec.SECP256R1())


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


ROOT, CA, DEVICE, OTHER = (key_of(b) for b in (0x11, 0x22, 0x33, 0x44))


def certificate(subject, key, issuer, issuer_key, ca, serial, end=END):
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                           "encipher_only", "decipher_only"), False)
    b = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
         .serial_number(serial).not_valid_before(START).not_valid_after(end)
         .add_extension(x509.BasicConstraints(ca, None), critical=True)
         .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
         .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
         .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False))
    if not ca:
        b = b.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return b.sign(issuer_key, hashes.SHA256())


def pem(*certificates):
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def crl(key, issuer, number, revoked=(), end=END):
    b = (x509.CertificateRevocationListBuilder().issuer_name(name(issuer)).last_update(START).next_update(end)
         .add_extension(x509.CRLNumber(number), critical=False)
         .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
         .add_extension(x509.UnrecognizedExtension(  # the anchor
             x509.ObjectIdentifier(ANCHOR), b"\x04\x28" + bytes(40)), critical=False))
    for serial, reason in revoked:
        r = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(START)
        if reason:
            r = r.add_extension(x509.CRLReason(reason), critical=False)
        b = b.add_revoked_certificate(r.build())
    return b.sign(key, hashes.SHA256())


def text(data):
    return base64.b64encode(data).decode()


def answer(operation, **fields):
    return json.dumps({"status": "OK", "operation": operation, **fields}).encode()


root = certificate("Fuzz Root", ROOT, "Fuzz Root", ROOT, True, 1)
ca = certificate("Fuzz CA", CA, "Fuzz Root", ROOT, True, 2)
serial = 0x4F00000000000000000000000000000000000001
device = certificate(MAC, DEVICE, "Fuzz CA", CA, False, serial)


def issued(cert, chain=pem(ca, root), shown=serial):
    return answer("req_client_cert", serial=f"{shown:040x}", certificate=text(pem(cert)), chain=text(chain))


REASONS = [None, *(r for r in x509.ReasonFlags if r not in (x509.ReasonFlags.unspecified,
                                                           x509.ReasonFlags.aa_compromise))]
small = crl(CA, "Fuzz CA", 7, [(serial + i, r) for i, r in enumerate(REASONS)])
ANSWERS = {
    "ok--certificate": issued(device),
    "ok--chain": answer("get_ca_chain", chain=text(pem(ca, root))),
    "ok--crl": answer("get_crl", crl=text(crl(ROOT, "Fuzz Root", 3).public_bytes(serialization.Encoding.PEM))),
    "other-key": issued(certificate(MAC, OTHER, "Fuzz CA", CA, False, serial)),
    "other-mac": issued(certificate("24:0a:c4:00:00:02", DEVICE, "Fuzz CA", CA, False, serial)),
    "other-ca": issued(certificate(MAC, DEVICE, "Fuzz CA", OTHER, False, serial)),
    "other-serial": issued(device, shown=serial + 1),
    "expired": issued(certificate(MAC, DEVICE, "Fuzz CA", CA, False, serial, START + datetime.timedelta(1))),
    "no-chain": issued(device, chain=pem(root)),
    "a-ca": issued(certificate(MAC, DEVICE, "Fuzz CA", CA, True, serial)),
    "refused": json.dumps({"status": "ERROR", "operation": "req_client_cert",
                           "error": {"code": "busy", "message": "come again\u001b[2J\n\u00fc"}}).encode(),
    "trailing": issued(device) + b" \r\n\t{}",
}
CRLS = {
    "pem": small.public_bytes(serialization.Encoding.PEM),
    "der": small.public_bytes(serialization.Encoding.DER),
    "empty": crl(CA, "Fuzz CA", 1).public_bytes(serialization.Encoding.DER),
    "large-number": crl(CA, "Fuzz CA", 2**150).public_bytes(serialization.Encoding.DER),
    "over": crl(CA, "Fuzz CA", 8, end=START + datetime.timedelta(7)).public_bytes(serialization.Encoding.DER),
    "of-other": crl(OTHER, "Other CA", 8).public_bytes(serialization.Encoding.DER),
}

for folder, files in (("answer", ANSWERS), ("crl", CRLS)):
    for file, data in files.items():
        (HERE / folder / file).write_bytes(data)
