"""What processes use: CPU time and memory, as the kernel counts them."""

import contextlib
import os
import re
import signal
import threading
import time
from pathlib import Path

from signet_site import children_of, role_of

TICK = os.sysconf("SC_CLK_TCK")


def interrupt(*_):
    raise KeyboardInterrupt


def heed_signals():
    """SIGTERM and SIGINT, also in the background, end a program as Ctrl-C does: its servers too."""
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def tree_of(pid):
    """It and all that descends from it."""
    found = [pid]
    for parent in found:
        found += children_of(parent)
    return found


def cpu_of(pid):
    """Seconds of a process, and of its children that have ended; 0 when it has ended itself, since its parent then has
    them. By schedstat, in nanoseconds: the ticks of stat are 10 ms."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        run = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own, ended = (sum(int(f) for f in fields[i:i + 2]) / TICK for i in (11, 13))
    return (run or own) + ended


def cpu_by_role(pid):
    """{"authority": seconds, …}; a child without a role of its own counts for its parent."""
    used = {}

    def add(one, role):
        role = role_of(one) or role
        used[role] = used.get(role, 0.0) + cpu_of(one)
        for child in children_of(one):
            add(child, role)
    add(pid, "supervisor")
    return used


def settled_cpu(pid, patience=15):
    """cpu_by_role() once what was put off until after the answers (files, syncs) is done too."""
    end, last = time.monotonic() + patience, cpu_by_role(pid)
    while time.monotonic() < end:
        time.sleep(1.2)  # longer than the second within which files and journal are synced
        now = cpu_by_role(pid)
        if sum(now.values()) - sum(last.values()) < 0.005:
            return now
        last = now
    return last


def pss_kb(pids):
    """Proportional set size: shared pages are divided among those who share them. One that has ended has none."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total


class Peak:
    """The highest VmHWM, in MiB, of any of the processes that find() gives, while this is open."""

    def __init__(self, find):
        self.find, self.kib, self.over = find, 0, False
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over:
            for pid in self.find():
                with contextlib.suppress(OSError):
                    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                    self.kib = max(self.kib, int(found.group(1)) if found else 0)
            time.sleep(0.003)

    @property
    def mib(self):
        return self.kib / 1024

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.thread.join()
