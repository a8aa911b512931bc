"""What the compiler and the linker were told to leave out of an attacker's reach, read from the programs; and that the
same source makes the same programs."""

import platform
import re
import shutil
import subprocess

import pytest

from signet_site import BIN, BUILD, REPO, run

PROGRAMS = sorted(path for path in BIN.iterdir() if path.name.startswith("signet"))
SWITCHES = ["-fstack-protector-strong", "-fstack-clash-protection"]
if platform.machine() == "x86_64":
    SWITCHES.append("-fcf-protection=full")


def cache():
    text = (BUILD / "CMakeCache.txt").read_text()
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.M))


def test_they_are_all_there():
    assert {path.name for path in PROGRAMS} == {"signet", "signetd", "signetctl", "signet-front", "signet-authority",
                                                "signet-signer", "signet-publisher", "signet-ceremony"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_hardened(program):
    said = run("readelf", "-hldW", "--dyn-syms", program).stdout
    assert re.search(r"Type:\s+DYN", said) and re.search(r"FLAGS_1.*\bPIE\b", said), "at an address of its own each time"
    assert re.search(r"GNU_RELRO", said) and re.search(r"FLAGS\).*BIND_NOW", said), "no table of functions is writable"
    assert re.search(r"GNU_STACK.* RW +0x", said), "the stack does not run"
    assert not re.search(r"LOAD.* RWE ", said), "nothing is writable and runs"
    assert not re.search(r"\((RPATH|RUNPATH|TEXTREL)\)", said)
    assert "__stack_chk_fail@" in said, "stack protector"
    assert re.search(r"__(read|snprintf|memcpy|fprintf|vsnprintf|printf)_chk@", said), "FORTIFY_SOURCE"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_every_file_was_compiled_so(program):
    """By what gcc writes into the debugging information of each file."""
    said = run("readelf", "--debug-dump=info", "--dwarf-depth=1", program).stdout
    producers = re.findall(r"DW_AT_producer\s*:.*?(GNU C\d.*)", said)
    if "gcc" not in cache()["CMAKE_C_COMPILER"] and not producers:
        assert "clang" in cache()["CMAKE_C_COMPILER"]  # which does not write it
        return
    assert producers
    for producer in producers:
        assert all(switch in producer for switch in SWITCHES), producer
        assert re.search(r"-O[123s]\b", producer), producer  # without which FORTIFY_SOURCE is nothing
    assert str(REPO) not in said and str(BUILD) not in said, "where it was built is nobody's business"


def test_the_same_source_makes_the_same_programs(tmp_path):
    """Built once more, from a copy in another folder."""
    source, build, known = tmp_path / "elsewhere", tmp_path / "made", cache()
    source.mkdir()
    for part in ("CMakeLists.txt", "src", "hsm-setup", "docs"):
        here = REPO / part
        (shutil.copytree if here.is_dir() else shutil.copy)(here, source / part)
    kept = ("CMAKE_C_COMPILER", "CMAKE_BUILD_TYPE", "CMAKE_INSTALL_PREFIX", "CMAKE_C_FLAGS")
    run("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DBUILD_TESTING=OFF",
        *(f"-D{name}={known[name]}" for name in kept))
    run("ninja", "-C", build, timeout=600)
    differ = [path.name for path in PROGRAMS
              if subprocess.run(["cmp", path, build / "bin" / path.name]).returncode]
    assert differ == []
