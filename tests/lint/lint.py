#!/usr/bin/env python3
"""Checks src/ by cppcheck or clang-tidy: as every file is compiled in a build. There is to be nothing to say.

    tests/lint/lint.py cppcheck|clang-tidy BUILD
"""
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
AT_ONCE = 2

# Each version has checks of its own; what these ones say was looked at (Debian 12). With others: skipped.
LOOKED_AT = {"cppcheck": r"Cppcheck 2\.10", "clang-tidy": r"version 14\."}
SKIPPED = 77

# A role is one process with one thread: what is not reentrant is fine.
ONE_THREAD = ("readdirCalled", "getpwuidCalled", "getpwnamCalled", "getgrnamCalled", "getgrgidCalled")


def compiled(build):
    """The commands that compile src/, each file once: tests compile some of them too."""
    commands = json.loads((build / "compile_commands.json").read_text())
    ours = {c["file"]: c for c in reversed(commands) if Path(c["file"]).is_relative_to(REPO / "src")}
    assert ours, f"{build} compiles nothing of src/"
    return list(ours.values())


def cppcheck(folder, _files):
    libraries = "posix,gnu,openssl,sqlite3," + str(REPO / "tests/lint/cppcheck.cfg")
    return subprocess.run(["cppcheck", f"--project={folder}/compile_commands.json", f"--library={libraries}",
                           "--enable=warning,portability,performance", "--error-exitcode=1", "--quiet", "--inline-suppr",
                           f"-j{AT_ONCE}", *(f"--suppress={s}" for s in ONE_THREAD)], check=False).returncode


def clang_tidy(folder, files):
    # the build may be gcc's, whose flags clang does not all know
    command = ["clang-tidy", "-p", folder, "--quiet", "--extra-arg=-Wno-unknown-warning-option"]

    def check(some):
        done = subprocess.run([*command, *some], capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, flush=True)
        return done.returncode

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return max(pool.map(check, (files[i:i + 8] for i in range(0, len(files), 8))))


def is_looked_at(linter):
    said = subprocess.run([linter, "--version"], capture_output=True, text=True, check=True).stdout
    if not re.search(LOOKED_AT[linter], said):
        print(f"{linter} is not the version whose checks were looked at: {said}")
        return False
    return True


def main():
    if not is_looked_at(sys.argv[1]):
        return SKIPPED
    linter, build = {"cppcheck": cppcheck, "clang-tidy": clang_tidy}[sys.argv[1]], Path(sys.argv[2])
    commands = compiled(build)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "compile_commands.json").write_text(json.dumps(commands))
        return 1 if linter(folder, sorted(c["file"] for c in commands)) else 0


if __name__ == "__main__":
    sys.exit(main())
