"""A SoftHSM of one's own, the ceremony tool and scripts on it, and a shim that breaks the module."""

import os
import subprocess
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SIGNET_BUILD", REPO / "build"))
CEREMONY = BUILD / "bin" / "signet-ceremony"
SIGNER = BUILD / "bin" / "signet-signer"
SCRIPTS = REPO / "hsm-setup"


def find_softhsm():
    for pattern in ("lib/softhsm", "lib/*/softhsm", "lib64/softhsm"):
        for found in Path("/usr").glob(pattern + "/libsofthsm2.so"):
            return str(found)
    raise RuntimeError("SoftHSM is not installed")


SOFTHSM = find_softhsm()


def build_shim(where):
    shim = Path(where) / "pkcs11_shim.so"
    include = subprocess.run(["pkg-config", "--cflags", "p11-kit-1"], check=True, capture_output=True, text=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O1", *include.stdout.split(), "-o", shim,
                    REPO / "tests/integration/pkcs11_shim.c", "-ldl"], check=True, timeout=60)
    return shim


class Shim:
    """The shim before SoftHSM, as a running module; what it says of itself, and what it is told to break."""

    def __init__(self, where, library=None):
        self.library = library or build_shim(where)
        self.control, self.log, self.account = (Path(where) / f"shim-{name}" for name in
                                                ("control", "log", "signatures"))
        self.env = {"SHIM_MODULE": SOFTHSM, "SHIM_CONTROL": str(self.control), "SHIM_LOG": str(self.log),
                    "SHIM_SIGNATURES": str(self.account)}
        self.order()

    def order(self, *lines):
        """From now on this is broken, and nothing else."""
        new = self.control.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in lines))
        Path(f"{self.control}.calls").unlink(missing_ok=True)
        new.replace(self.control)

    def calls(self, function):
        """Results of the calls of a function that the shim has seen."""
        return [line.split()[2] for line in lines_of(self.log) if line.split()[1] == function]

    def signatures(self):
        """[(pid, result told or "never", data)] of all signatures made so far, in their order."""
        fields = [line.split() for line in lines_of(self.account)]
        return [(int(pid), told, bytes.fromhex(data)) for pid, told, data in fields]


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def use_shim(site):
    """The site's signers go through a shim from their next start."""
    shim = Shim(site.dir)
    site.set("token_module", shim.library)
    for name, value in shim.env.items():
        site.set(f"token_env.{name}", value)
    return shim


class Hsm:
    """One folder: SoftHSM's tokens, PIN files, and whatever a ceremony writes."""

    PIN, SO_PIN = "canary-pin-4711", "canary-so-pin-4712"

    def __init__(self, where):
        self.dir = Path(where)
        (self.dir / "softhsm" / "tokens").mkdir(parents=True)
        self.conf = self.dir / "softhsm" / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {self.dir}/softhsm/tokens\nobjectstore.backend = file\n"
                             "log.level = ERROR\nlibrary.reset_on_fork = true\n")
        self.pin, self.so_pin = self.secret("pin", self.PIN), self.secret("so-pin", self.SO_PIN)
        self.module = SOFTHSM
        self.env = {"PATH": os.environ["PATH"], "SIGNET_BUILD": str(BUILD), "SOFTHSM2_CONF": str(self.conf),
                    "LC_ALL": "C.UTF-8"}

    def secret(self, name, value, mode=0o600):
        path = self.dir / name
        path.write_text(value + "\n")
        path.chmod(mode)
        return path

    def run(self, *command, code=0, **kwargs):
        done = subprocess.run([str(c) for c in command], cwd=self.dir, env=self.env, text=True, timeout=120,
                              stdin=subprocess.DEVNULL, capture_output=True, **kwargs)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def tool(self, command, token="T", *more, code=0, pin=None):
        """signet-ceremony, with the PIN where the command wants one."""
        return self.run(CEREMONY, command, "--module", self.module, "--token", token, "--pin-file", pin or self.pin,
                        *more, code=code)

    def init_token(self, token="T"):
        self.tool("init-token", token, "--so-pin-file", self.so_pin)

    def key(self, token="T", label="k", kind="ec:p256", *more):
        self.tool("generate-key", token, "--key-label", label, "--key-type", kind, *more)

    def pkcs11_tool(self, *args, token="T"):
        return self.run("pkcs11-tool", "--module", SOFTHSM, "--token-label", token, "--login", "--pin", self.PIN,
                        *args).stdout

    def script(self, name, *args, code=0):
        return self.run(SCRIPTS / name, "--module", self.module, "--pin-file", self.pin, "--so-pin-file", self.so_pin,
                        *args, code=code)

    def use_shim(self, library):
        self.shim = Shim(self.dir, library)
        self.module, self.control, self.calls = str(library), self.shim.control, self.shim.calls
        self.env.update(self.shim.env)


def make_ca(hsm, token="T", label="k", out="ca.pem"):
    """A CA certificate for a key in the token."""
    hsm.tool("root-certificate", token, "--key-label", label, "--subject", "CN=Test CA", "--out", out)
    return hsm.dir / out


def sha256_of_spki(hsm, certificate):
    spki = hsm.run("openssl", "x509", "-in", certificate, "-noout", "-pubkey").stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=spki.encode(), check=True,
                         capture_output=True).stdout
    import hashlib
    return hashlib.sha256(der).hexdigest()
