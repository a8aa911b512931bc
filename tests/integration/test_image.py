"""signet image on what signet provision made, with the server gone. The images are read by flash_reader.py, and what is
in them by mbedTLS, as a board's firmware does."""

import datetime
import json
import re
import shutil
import stat
import struct
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import flash_reader
from signet_site import BIN, REPO, Kit, Site, run, tool_environment

DEVICES = {"rsa:2048": "24:0a:c4:00:00:01", "ec:p256": "24:0a:c4:00:00:02", "rsa:4096": "24:0a:c4:00:00:03"}
EPOCH = datetime.datetime(2024, 1, 1)
FILES = ("device.key", "device.crt", "chain.pem", "ca.pem")


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    """Folders of provisioned devices, by type of key; the server has stopped."""
    with Site(Kit(tmp_path_factory.mktemp("kit")), tmp_path_factory.mktemp("site")) as site:
        site.start()
        site.client()
        for key_type, mac in DEVICES.items():
            site.signet("provision", "--mac", mac, "--key-type", key_type, "--out", "devices")
        site.stop()
        yield {key_type: site.dir / "devices" / mac.replace(":", "") for key_type, mac in DEVICES.items()}


@pytest.fixture(scope="module")
def mbedtls(tmp_path_factory):
    program = tmp_path_factory.mktemp("mbedtls") / "reader"
    run("cc", "-o", program, REPO / "tests/integration/mbedtls_reader.c", "-lmbedx509", "-lmbedcrypto")

    def read(folder, *items):
        """CA, key, certificate and intermediates, as bytes"""
        paths = []
        for number, item in enumerate(items):
            paths.append(folder / f"item{number}")
            paths[-1].write_bytes(item)
        return run(program, *paths, code=None)
    return read


def signet(*args, code=0, cwd=None):
    """Without a config file: nothing but the folder is needed."""
    done = run(BIN / "signet", "image", *args, code=code, cwd=cwd, env=tool_environment() | {"HOME": "/nonexistent"})
    assert "PRIVATE KEY-----" not in done.stdout + done.stderr
    return done


def make(device, out, *args, code=0):
    return signet(device, "--out", out, *args, code=code)


def certificates(device):
    """Leaf, intermediate, root"""
    return [x509.load_pem_x509_certificate((device / name).read_bytes()) for name in FILES[1:]]


def public(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def pem_certificates(text):
    """All of them; cryptography's own reader of several is not in Debian 12's version."""
    texts = re.findall(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n", text)
    assert b"".join(texts) + b"\0" == text
    return [x509.load_pem_x509_certificate(t) for t in texts]


def check_pem(device, key, cert, ca):
    for text in (key, cert, ca):
        assert text.endswith(b"-----END PRIVATE KEY-----\n\0" if text is key else b"-----END CERTIFICATE-----\n\0")
        assert text.count(b"\0") == 1
    leaf, intermediate, root = certificates(device)
    assert pem_certificates(cert) == [leaf, intermediate]
    assert pem_certificates(ca) == [root]
    assert public(serialization.load_pem_private_key(key[:-1], None)) == public(leaf)


def check_der(device, key, *certs):
    assert [x509.load_der_x509_certificate(c) for c in certs] == certificates(device)
    assert public(serialization.load_der_private_key(key, None)) == public(certificates(device)[0])


@pytest.mark.parametrize("key_type", ("rsa:2048", "ec:p256"))
def test_nvs_pem(devices, mbedtls, tmp_path, key_type):
    device, out = devices[key_type], tmp_path / "nvs.bin"
    make(device, out, "--format", "nvs", "--size", "0x6000")
    image = out.read_bytes()
    assert len(image) == 0x6000 and stat.S_IMODE(out.stat().st_mode) == 0o600
    found = flash_reader.nvs(image)
    assert set(found) == {("signet", name) for name in ("client_key", "client_cert", "ca_cert")}
    assert {kind for kind, _ in found.values()} == {0x21}
    key, cert, ca = (found["signet", name][1] for name in ("client_key", "client_cert", "ca_cert"))
    check_pem(device, key, cert, ca)
    assert mbedtls(tmp_path, ca, key, cert).returncode == 0
    assert mbedtls(tmp_path, ca, key[:-1], cert).returncode == 1  # the NUL matters


def test_nvs_der_encrypted(devices, mbedtls, tmp_path):
    device, out, keys = devices["rsa:2048"], tmp_path / "nvs.bin", tmp_path / "keys.bin"
    names = ("--namespace", "a_namespace_123", "--key-name", "fifteen_letters", "--cert-name", "c", "--chain-name",
             "fourteen_chars", "--ca-name", "root")
    make(device, out, "--format", "nvs", "--size", "24K", "--encoding", "der", "--encrypt", "--keys-out", keys, *names)
    image, page = out.read_bytes(), keys.read_bytes()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    der = serialization.load_pem_private_key((device / "device.key").read_bytes(), None).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    assert der[:64] not in image
    found = flash_reader.nvs(image, flash_reader.nvs_keys(page))
    items = [found["a_namespace_123", name] for name in ("fifteen_letters", "c", "fourteen_chars0", "root")]
    assert len(found) == 4 and {kind for kind, _ in items} == {0x48}
    key, leaf, intermediate, ca = (data for _, data in items)
    check_der(device, key, leaf, intermediate, ca)
    assert key == der
    assert mbedtls(tmp_path, ca, key, leaf, intermediate).returncode == 0

    again = tmp_path / "again.bin"
    make(device, again, "--format", "nvs", "--size", "24576", "--encoding", "der", "--encrypt", "--keys", keys, *names)
    assert again.read_bytes() == image
    make(device, tmp_path / "third.bin", "--format", "nvs", "--size", "24K", "--encrypt", "--keys-out",
         tmp_path / "third.keys")
    assert (tmp_path / "third.keys").read_bytes() != page

    signet("--inspect", out, "--keys", keys)
    assert "its keys are not given" in signet("--inspect", out, code=6).stderr
    assert "other keys" in signet("--inspect", out, "--keys", tmp_path / "third.keys", code=6).stderr
    signet("--inspect", keys)


@pytest.mark.parametrize("key_type", ("rsa:2048", "ec:p256"))
def test_secure_cert(devices, mbedtls, tmp_path, key_type):
    device = devices[key_type]
    for encoding in ("pem", "der"):
        out = tmp_path / encoding
        make(device, out, "--format", "secure-cert", "--encoding", encoding)
        assert len(out.read_bytes()) == 0x2000 and stat.S_IMODE(out.stat().st_mode) == 0o600
        found = flash_reader.secure_cert(out.read_bytes())
        chain = [data for (kind, _), data in sorted(found.items()) if kind == 1]
        assert (9, 0) in found and len(found) == 3 + len(chain)
        if encoding == "pem":
            check_pem(device, found[2, 0], *chain, found[0, 0])
        else:
            check_der(device, found[2, 0], *chain, found[0, 0])
        assert mbedtls(tmp_path, found[0, 0], found[2, 0], *chain).returncode == 0


HEADER_PROGRAM = r"""
#include <stdio.h>
#include "credentials.h"
#define SAVE(name) do { FILE *f = fopen(#name ".out", "wb"); fwrite(name, 1, name##_len, f); fclose(f); } while (0)
int main(void)
{
    SAVE(client_key); SAVE(client_cert); SAVE(ca_cert);
#ifdef CHAIN
    SAVE(client_chain0);
#endif
}
"""


@pytest.mark.parametrize("encoding", ("pem", "der"))
def test_raw(devices, tmp_path, encoding):
    device, out = devices["rsa:2048"], tmp_path / "raw"
    make(device, out, "--format", "raw", "--encoding", encoding)
    names = ["client_key", "client_cert", "ca_cert"] + ["client_chain0"] * (encoding == "der")
    assert sorted(p.name for p in out.iterdir()) == sorted([f"{n}.{encoding}" for n in names] + ["credentials.h"])
    for secret in (out / f"client_key.{encoding}", out / "credentials.h"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    (tmp_path / "main.c").write_text(HEADER_PROGRAM)
    run("cc", "-Wall", "-Werror", "-Wno-unused", *["-DCHAIN"] * (encoding == "der"), "-I", out, "-o", tmp_path / "main",
        tmp_path / "main.c")
    run(tmp_path / "main", cwd=tmp_path)
    items = {name: (tmp_path / f"{name}.out").read_bytes() for name in names}
    for name, data in items.items():
        assert (out / f"{name}.{encoding}").read_bytes() + b"\0" * (encoding == "pem") == data
    if encoding == "pem":
        check_pem(device, items["client_key"], items["client_cert"], items["ca_cert"])
    else:
        check_der(device, items["client_key"], items["client_cert"], items["client_chain0"], items["ca_cert"])


def test_what_is_there_is_not_overwritten(devices, tmp_path):
    device, out, keys = devices["ec:p256"], tmp_path / "image", tmp_path / "keys"
    for there, args in ((out, ("nvs", "--size", "0x4000")), (out, ("secure-cert",)), (out, ("raw",)),
                        (keys, ("nvs", "--size", "0x4000", "--encrypt", "--keys-out", keys)),
                        (out, ("nvs", "--size", "0x4000", "--encrypt", "--keys-out", keys))):
        there.write_text("mine")
        assert "exists already" in make(device, out, "--format", *args, code=5).stderr
        assert there.read_text() == "mine" and list(tmp_path.iterdir()) == [there]
        there.unlink()
    out.mkdir()
    (out / "mine").touch()
    assert "exists already" in make(device, out, "--format", "raw", code=5).stderr
    assert [p.name for p in tmp_path.rglob("*")] == ["image", "mine"]


def copied(device, to):
    shutil.copytree(device, to)
    return to


def test_what_does_not_fit_is_said_before_anything_is_written(devices, tmp_path):
    """RSA-4096: the key's PEM has more than 3,200 bytes."""
    device, out = devices["rsa:4096"], tmp_path / "image"
    big = make(device, out, "--format", "secure-cert", "--size", "0x1000", code=5).stderr
    said = re.search(r"the device certificate \((\d+) bytes\) does not fit: the partition of 0x1000 bytes has room for "
                     r"(\d+) behind the items before it; all needs (\d+) bytes", big)
    assert said and int(said[1]) > int(said[2]) and int(said[3]) > 0x1000, big
    chained = copied(device, tmp_path / "chained")
    (chained / "chain.pem").write_bytes((device / "chain.pem").read_bytes() * 9)
    big = make(chained, out, "--format", "nvs", "--size", "0x3000", "--encrypt", "--keys-out", tmp_path / "keys",
               code=5).stderr
    assert "more than lead from" in big
    assert list(tmp_path.iterdir()) == [chained]
    make(device, out, "--format", "nvs", "--size", "0x3000")
    flash_reader.nvs(out.read_bytes())


@pytest.mark.parametrize("args, problem", (
    (("--format", "nvs"), "give --size"),
    (("--format", "nvs", "--size", "6000x"), "is no number of bytes"),
    (("--format", "nvs", "--size", "-1"), "is no number of bytes"),
    (("--format", "nvs", "--size", "5G"), "is no number of bytes"),
    (("--format", "nvs", "--size", "0x6001"), "not a multiple of 0x1000"),
    (("--format", "nvs", "--size", "0x2000"), "three pages"),
    (("--format", "nvs", "--size", "0x6000", "--key-name", "sixteen_letters_"), "has 16 characters"),
    (("--format", "nvs", "--size", "0x6000", "--encoding", "pkcs12"), "is not pem or der"),
    (("--format", "nvs", "--size", "0x6000", "--encrypt"), "wants --keys-out"),
    (("--format", "nvs", "--size", "0x6000", "--keys", "x"), "want --encrypt"),
    (("--format", "secure-cert", "--namespace", "x"), "only nvs"),
    (("--format", "secure-cert", "--encrypt", "--keys-out", "x"), "only nvs"),
    (("--format", "raw", "--size", "0x6000"), "raw takes"),
    (("--format", "spiffs",), "is not one of"),
    ((), "--format nvs, secure-cert or raw"),
    (("--inspect", "x"), "--inspect FILE takes"),
))
def test_usage(devices, tmp_path, args, problem):
    assert problem in make(devices["ec:p256"], tmp_path / "out", *args, code=2).stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_right_is_refused(devices, tmp_path):
    good, other = devices["ec:p256"], devices["rsa:2048"]
    wrong = copied(good, tmp_path / "key")
    shutil.copy(other / "device.key", wrong / "device.key")
    assert "for another key" in make(wrong, tmp_path / "out", "--format", "secure-cert", code=5).stderr
    wrong = copied(good, tmp_path / "chain")
    shutil.copy(good / "ca.pem", wrong / "chain.pem")
    assert "does not lead from" in make(wrong, tmp_path / "out", "--format", "secure-cert", code=5).stderr
    (wrong / "chain.pem").unlink()
    assert "chain.pem" in make(wrong, tmp_path / "out", "--format", "secure-cert", code=5).stderr
    wrong = copied(good, tmp_path / "flashed")
    (wrong / "device.key").unlink()
    (wrong / "board.json").write_text("{}")
    assert "the key is on its board alone" in make(wrong, tmp_path / "out", "--format", "secure-cert", code=5).stderr
    assert not (tmp_path / "out").exists()


# ---- --inspect ----

def inspect(path, *args, code=0):
    """(the description, the message of a failure)"""
    lines = signet("--inspect", path, "--json", *args, code=code).stdout.splitlines()
    error = json.loads(lines[-1])["error"] if code else {"code": "", "message": ""}
    return json.loads(lines[0]) if code in (0, 6) else None, error


def tlv(kind, data, subtype=0):
    body = struct.pack("<IB3xBBH", 0xBA5EBA11, 0, kind, subtype, len(data)) + data + b"\0" * (-len(data) % 16)
    return body + struct.pack("<I", flash_reader.crc(body))


def others_image(path, *entries, end=b"\xff\xff\0\0"):
    path.write_bytes(b"".join(tlv(*e) for e in entries) + end)
    return path


def test_inspect_tells_what_is_there(devices, tmp_path):
    out, device = tmp_path / "image", devices["ec:p256"]
    make(device, out, "--format", "nvs", "--size", "0x4000")
    found, _ = inspect(out)
    assert (found["format"], found["size"], found["key"], found["problems"]) == ("nvs", 0x4000, "matches", [])
    assert [i["name"] for i in found["items"]] == ["signet/client_key", "signet/client_cert", "signet/ca_cert"]
    assert found["items"][0]["holds"] == "private key ec:p256, PKCS#8 PEM"
    assert found["items"][1]["holds"] == f"certificates {DEVICES['ec:p256']}, Test Device CA, PEM"
    text = signet("--inspect", out).stdout
    assert "matches the certificate" in text and "Test Root" in text


def test_inspect_tells_what_others_did_wrong(devices, tmp_path):
    device, other = devices["ec:p256"], devices["rsa:2048"]
    key, leaf, chain, ca = (((device / name).read_bytes() + b"\0") for name in FILES)
    right = ((1, leaf[:-1] + chain), (0, ca), (2, key))
    assert inspect(others_image(tmp_path / "right", *right))[0]["key"] == "matches"
    _, error = inspect(others_image(tmp_path / "nul", (1, leaf[:-1]), (2, key)), code=6)
    assert error["code"] == "image_damaged" and "without its trailing NUL" in error["message"]
    _, error = inspect(others_image(tmp_path / "order", (1, chain[:-1] + leaf), (2, key)), code=6)
    assert "not in order" in error["message"]
    stranger = (other / "device.key").read_bytes() + b"\0"
    found, error = inspect(others_image(tmp_path / "pair", (1, leaf), (2, stranger)), code=6)
    assert found["key"] == "of another certificate" and "no pair" in error["message"]
    _, error = inspect(others_image(tmp_path / "rest", *right, end=b"\xff" * 100 + b"old"), code=6)
    assert "the rest of an older image" in error["message"]
    _, error = inspect(others_image(tmp_path / "end", *right, end=b""), code=6)
    assert "cut off" in error["message"]
    traditional = run("openssl", "ec", "-in", device / "device.key").stdout.encode() + b"\0"
    found, _ = inspect(others_image(tmp_path / "sec1", (1, leaf), (2, traditional)))
    assert found["key"] == "matches" and "traditional" in found["items"][1]["holds"]


def test_inspect_tells_what_is_damaged(devices, tmp_path):
    out = tmp_path / "image"
    make(devices["ec:p256"], out, "--format", "nvs", "--size", "0x3000")
    image = bytearray(out.read_bytes())
    for at, problem in ((4, "page 0: the CRC of its header"), (0x60 + 8, "page 0, entry 1: its CRC"),
                        (0x80, "page 0, entry 1: the CRC of client_key's data")):
        image[at] ^= 4
        out.write_bytes(image)
        found, error = inspect(out, code=6)
        assert problem in error["message"] and found["problems"]
        image[at] ^= 4
    out.write_bytes(image[:-1])
    assert "not a whole number of pages" in inspect(out, code=6)[1]["message"]
    for not_one in (b"", b"\xff" * 4096, b"hello" * 1000):
        out.write_bytes(not_one)
        assert inspect(out, code=5)[1]["code"] == "no_image"
    assert inspect(tmp_path / "missing", code=5)[1]["code"] == "local_file"


def test_inspect_prints_nothing_that_a_terminal_obeys(tmp_path):
    """A certificate and a key name from elsewhere."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "\x1b[2Jevil")])
    certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
                   .serial_number(1).not_valid_before(EPOCH).not_valid_after(EPOCH.replace(year=2040))
                   .sign(private, hashes.SHA256()))
    path = others_image(tmp_path / "evil", (1, certificate.public_bytes(serialization.Encoding.DER)))
    done = subprocess.run([BIN / "signet", "image", "--inspect", path], capture_output=True, env=tool_environment(),
                          timeout=60)
    assert done.returncode == 0 and b"\x1b" not in done.stdout + done.stderr and b"?[2Jevil" in done.stdout


def test_inspect_reads_a_partition_table(tmp_path):
    path = REPO / "tests/corpus/image/partition-table"
    found, _ = inspect(path)
    assert [p["name"] for p in found["partitions"]] == ["nvs", "nvs_keys", "esp_secure_cert"]
    assert found["partitions"][2]["offset"] == 0x10000 and found["md5"] is True
    damaged = tmp_path / "table"
    damaged.write_bytes(path.read_bytes().replace(b"\x00\x90", b"\x00\x80"))
    done = signet("--inspect", damaged, code=6)
    assert "MD5" in done.stderr
