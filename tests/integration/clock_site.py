"""A Site whose clock a test sets: that of all its processes, and of no other."""

import os
import re
import struct
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from signet_site import BIN, REPO, Site, run


@lru_cache(maxsize=None)
def build_clock():
    """The preload that shifts the time of day, as LD_PRELOAD wants it; AddressSanitizer's runtime comes first."""
    shim = Path(tempfile.mkdtemp(prefix="signet-clock-")) / "clock_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O1", "-o", shim,
                    REPO / "tests/integration/clock_shim.c", "-ldl"], check=True, timeout=60)
    runtime = re.findall(r"=> (\S*lib(?:clang_rt\.)?asan\S*)", run("ldd", BIN / "signetd").stdout)
    return ":".join([*runtime, str(shim)])


class ClockSite(Site):
    """Its signetd believes the clock to be off by what offset() says."""

    def __init__(self, kit, where, **settings):
        super().__init__(kit, where, **settings)
        self.clock = self.dir / "clock"
        self.clock.touch()
        self.offset(0)
        self.env.update(LD_PRELOAD=build_clock(), SIGNET_TEST_CLOCK=str(self.clock))

    def offset(self, seconds):
        """In place, and at once: it is mapped."""
        with open(self.clock, "r+b", buffering=0) as f:
            os.pwrite(f.fileno(), struct.pack("=q", seconds), 0)

    def accept(self):
        self.ctl("clock", "accept")
