"""What it is all for: a provisioned device publishes to a real broker; revoked, it is refused."""

import shutil
import socket
import subprocess

import pytest

from signet_site import free_port, run, wait_for

MAC, OTHER = "24:0a:c4:12:34:56", "24:0a:c4:12:34:57"


def program(name):
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{name} is not installed (Debian: mosquitto, mosquitto-clients)"
    return found


class Broker:
    """Its own certificate is of another CA: who trusts whom are two questions."""

    def __init__(self, site):
        self.site, self.dir, self.port = site, site.dir / "broker", free_port()
        self.dir.mkdir()
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            "key.pem", "-out", "cert.pem", "-subj", "/CN=Broker", "-addext", "subjectAltName=IP:127.0.0.1",
            "-days", "30", cwd=self.dir)
        shutil.copy(site.state / "ca-chain.pem", self.dir / "devices.pem")
        (self.dir / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\ncertfile {self.dir}/cert.pem\nkeyfile {self.dir}/key.pem\n"
            f"cafile {self.dir}/devices.pem\ncrlfile {self.dir}/crls.pem\nrequire_certificate true\n"
            f"use_identity_as_username true\nallow_anonymous false\nuser root\npersistence false\n"
            f"acl_file {self.dir}/acl\nlog_dest stderr\nlog_type all\n")
        (self.dir / "acl").write_text("pattern readwrite devices/%u/#\n")
        (self.dir / "acl").chmod(0o600)
        self.process = None

    def start(self):
        self.fetch_crls()
        self.log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen([program("mosquitto"), "-c", self.dir / "mosquitto.conf"], stdout=self.log,
                                        stderr=self.log, stdin=subprocess.DEVNULL)
        wait_for(self.listens, lambda: "mosquitto runs: " + (self.dir / "log").read_text())

    def listens(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def fetch_crls(self):
        """As an operator of a broker would: by the client, verified; and the root's."""
        self.site.signet("crl", "--out", self.dir / "crl.pem")
        (self.dir / "root-crl.der").write_bytes(self.site.get("/root-crl")[1])
        root = run("openssl", "crl", "-inform", "DER", "-in", self.dir / "root-crl.der").stdout
        (self.dir / "crls.pem").write_text((self.dir / "crl.pem").read_text() + root)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
            self.log.close()

    def publish(self, mac, topic, text, code=0):
        device = next((self.site.dir / "devices").glob(f"{mac.replace(':', '*')}"))
        return run(program("mosquitto_pub"), "-h", "127.0.0.1", "-p", self.port, "--cafile", self.dir / "cert.pem",
                   "--cert", device / "device.crt", "--key", device / "device.key", "-t", topic, "-m", text, "-q", "1",
                   "-V", "mqttv5", code=code, timeout=30)

    def listen(self, mac, topic):
        device = next((self.site.dir / "devices").glob(f"{mac.replace(':', '*')}"))
        return subprocess.Popen(
            [program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(self.port), "--cafile", self.dir / "cert.pem",
             "--cert", device / "device.crt", "--key", device / "device.key", "-t", topic, "-C", "1", "-W", "30"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)


@pytest.fixture
def broker(site):
    site.start()
    site.client()
    b = Broker(site)
    yield b
    b.stop()


def test_device_publishes_until_it_is_revoked(site, broker):
    for mac, kind in ((MAC, "rsa:2048"), (OTHER, "ec:p256")):
        site.signet("provision", "--mac", mac, "--key-type", kind, "--out", site.dir / "devices")
    site.crl()
    broker.start()
    listener = broker.listen(MAC, f"devices/{MAC}/temperature")
    try:
        wait_for(lambda: b"SUBSCRIBE" in (broker.dir / "log").read_bytes(), "the subscription")
        broker.publish(MAC, f"devices/{MAC}/temperature", "21.5")
        assert listener.communicate(timeout=30)[0] == b"21.5\n"
    finally:
        listener.kill()
        listener.wait()
    assert f"u'{MAC}'" in (broker.dir / "log").read_text()  # its name is the MAC
    broker.publish(OTHER, f"devices/{OTHER}/x", "1")

    (certificate,) = site.dir.glob(f"devices/{MAC.replace(':', '*')}/device.crt")
    site.signet("revoke", "--certificate", certificate, "--reason", "keyCompromise")
    site.crl()
    broker.stop()
    broker.start()
    refused = broker.publish(MAC, f"devices/{MAC}/temperature", "22", code=None)
    assert refused.returncode != 0
    # and that is why: the broker's TLS alert (RFC 8446 section 6.2)
    seen = run("openssl", "s_client", "-connect", f"127.0.0.1:{broker.port}", "-cert", certificate, "-key",
               certificate.with_name("device.key"), "-CAfile", broker.dir / "cert.pem", "-quiet", code=None)
    assert "alert certificate revoked" in seen.stderr, seen.stderr
    broker.publish(OTHER, f"devices/{OTHER}/x", "2")  # the others go on


def test_without_a_certificate_of_ours(site, broker):
    """The broker's own self-signed certificate as a client's: refused. So the above is worth something."""
    site.crl()
    broker.start()
    done = run(program("mosquitto_pub"), "-h", "127.0.0.1", "-p", broker.port, "--cafile", broker.dir / "cert.pem",
               "--cert", broker.dir / "cert.pem", "--key", broker.dir / "key.pem", "-t", "devices/x", "-m", "1", "-q",
               "1", code=None, timeout=30)
    assert done.returncode != 0
