"""The examples of docs/protocol.md and README.md, run as they stand."""

import re
import subprocess
from pathlib import Path

import pytest

from signet_site import BIN, REPO, Site, tool_environment

MARK = "@@ the output so far @@"


@pytest.fixture
def site(kit, tmp_path):
    with Site(kit, tmp_path / "site", ocsp=True) as s:
        yield s


@pytest.fixture
def shell(site, tmp_path):
    """bash, after what the quickstart leaves: demo/env.sh and an operator that is called demo."""
    site.start()
    op = site.operator("demo", "provisioner,revoker")
    folder = tmp_path / "shell"
    (folder / "demo").mkdir(parents=True)
    values = {"SIGNET_SERVER": f"https://127.0.0.1:{site.port}", "SIGNET_HTTP": f"http://127.0.0.1:{site.http_port}",
              "SIGNET_CA": site.root, "SIGNET_OPERATOR_CERT": op.cert, "SIGNET_OPERATOR_KEY": op.key,
              "SIGNET_BIN": BIN / "signet", "SIGNET_CONFIG": site.conf}
    (folder / "demo/env.sh").write_text("".join(f"export {k}='{v}'\n" for k, v in values.items()))

    def run(script):
        done = subprocess.run(["bash"], input=script, cwd=folder, env=tool_environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=300)
        assert done.returncode == 0, done.stdout
        return done.stdout
    return run


def fenced(path):
    """The ```sh blocks of a page, one after another."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", Path(path).read_text(), re.M | re.S)
    assert blocks, path
    return "".join(blocks)


def indented(path, word):
    """The indented block that has the word in it, as one would paste it."""
    lines = Path(path).read_text().splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("    ") and word in line]
    first = last = at
    while lines[first - 1].startswith("    "):
        first -= 1
    while lines[last + 1].startswith("    "):
        last += 1
    return "".join(line[4:] + "\n" for line in lines[first:last + 1])


def test_the_examples_of_the_protocol(shell):
    script = fenced(REPO / "docs/protocol.md")
    expected = re.findall(r"^# → (.+)$", script, re.M)
    marked = re.sub(r"^# → .+$", f"echo; echo '{MARK}'", script, flags=re.M)
    found = shell(". demo/env.sh\n" + marked).split(MARK)[:-1]
    assert len(found) == len(expected) > 10
    for output, text in zip(found, expected):
        assert text in output, (text, output)


def test_each_operation_has_an_example():
    source = (REPO / "src/server/request/operations.c").read_text()
    script = fenced(REPO / "docs/protocol.md")
    for operation in re.findall(r'= \{"(\w+)"', source):
        assert f'"{operation}' in script.replace('\\"', '"'), operation


def test_each_field_is_in_the_page():
    """In the section of its operation."""
    source = (REPO / "src/server/request/operations.c").read_text()
    page = (REPO / "docs/protocol.md").read_text()
    for operation, shape in re.findall(r'= \{"(\w+)",\s*\{OPERATION,?(.*?)\}\}', source, re.S):
        section = page.split(f"\n### {operation}\n")[1].split("\n### ")[0].split("\n## ")[0]
        for field in re.findall(r'\{"(\w+)", FIELD', shape):
            assert f"`{field}`" in section or f'"{field}"' in section.replace("\\", ""), (operation, field)


def test_the_request_of_the_readme(shell, site):
    output = shell(indented(REPO / "README.md", "curl --cacert"))
    assert "subject=CN = 24:0a:c4:00:aa:01" in output and "issuer=CN = Test Device CA" in output, output
    (serial,) = re.findall(r"^serial=([0-9A-F]+)$", output, re.M)
    assert site.query("SELECT name FROM certificate WHERE hex(serial) = ?", serial) == [("24:0a:c4:00:aa:01",)]


def test_signing_by_hand_as_the_page_says(shell):
    """The one line of "Signed requests", with files."""
    line = indented(REPO / "docs/protocol.md", "openssl cms -sign -binary -md sha256 -nocerts -signer op.pem")
    output = shell(". demo/env.sh; cp $SIGNET_OPERATOR_CERT op.pem; cp $SIGNET_OPERATOR_KEY op.key\n"
                   """printf %s '{"operation":"revoke_cert","issued_by":"demo","request_id":"by-hand"}' > body.json\n"""
                   "signature=$(" + line.strip() + ")\n"
                   "curl -sS --cacert $SIGNET_CA --cert op.pem --key op.key -H 'Content-Type: application/json' "
                   '-H "Signet-Signature: $signature" --data-binary @body.json $SIGNET_SERVER/v1\n')
    assert '"status":"OK"' in output and '"count":0' in output, output
