"""On what it was measured."""

import os
import platform
import re
import subprocess
from pathlib import Path

from signet_site import REPO


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except OSError:
        return None
    return ((done.stdout or done.stderr).splitlines() or [None])[0]


def package(name):
    return first_line("dpkg-query", "-W", "-f", "${Version}", name)


def describe(build):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu.group(1) if cpu else platform.machine(), "cores": os.cpu_count(),
        "memory_mb": int(memory.group(1)) // 1024, "kernel": platform.release(),
        "file_system": first_line("stat", "-f", "-c", "%T", str(build)),
        "load_at_start": os.getloadavg()[0],
        "commit": first_line("git", "-C", str(REPO), "rev-parse", "--short", "HEAD"),
        "openssl": first_line("openssl", "version"), "libp11": package("libengine-pkcs11-openssl"),
        "softhsm": package("libsofthsm2"), "sqlite": package("libsqlite3-0"),
        "libevent": package("libevent-core-2.1-7") or package("libevent-core-2.1-7t64"),
        "nginx": first_line("/usr/sbin/nginx", "-v"), "compiler": first_line("cc", "--version"),
    }
