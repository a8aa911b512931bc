"""Kills a process before its n-th call of one kind, by strace, and says whether it came to that.

strace counts each kind of call by itself and each process by itself; a killed call is not done any more. So "before the
n-th" for every n, of every kind of call that leaves something behind, is between every two of them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

from signet_site import BIN, is_alive, tool_environment, wait_for

# What leaves something behind, on a disk or with somebody else. A name that this machine does not have is passed over.
WRITING = ("pwrite64", "write", "copy_file_range", "ftruncate")
SYNCING = ("fdatasync", "fsync", "syncfs")
NAMING = ("openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat",
          "rmdir")
TELLING = ("sendmsg", "sendto")
CALLS = (*WRITING, *SYNCING, *NAMING, *TELLING)
KILLED = "+++ killed by SIGKILL +++"
CALL = re.compile(r"^(?:(\d+) +)?(\w+)\(")


def strace(to, call=None, n=0, path=None, follow=True):
    """The command that traces into the file `to`, and kills at that point when there is one."""
    command = ["strace", "-q", "-I2", *(["-f"] if follow else []), "-y", "-s", "64", "-o", to,
               "-e", "trace=" + ",".join("?" + name for name in CALLS)]
    if path:
        command += ["-P", path]
    if call:
        command += ["-e", f"inject=?{call}:signal=SIGKILL:when={n}"]
    return [str(word) for word in command]


def was_hit(trace):
    return trace.exists() and KILLED in trace.read_text(errors="replace")


def points_of(trace, only=None):
    """[(call, n)] of the process that was traced first, all of them; of openat only what makes a file."""
    first, counts, found = None, Counter(), []
    for line in trace.read_text(errors="replace").splitlines():
        call = CALL.match(line)
        if not call:
            continue
        pid, name = call.groups()
        first = first or pid
        if pid != first:
            continue
        counts[name] += 1
        if (name != "openat" or "O_CREAT" in line) and (not only or name in only):
            found.append((name, counts[name]))
    return found


@contextlib.contextmanager
def attached(pid, command):
    """strace at a process that runs."""
    tracer = subprocess.Popen([word for word in command if word != "-q"] + ["-p", str(pid)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        first = tracer.stderr.readline()
        assert "attached" in first, first
        yield tracer
    finally:
        if tracer.poll() is None:
            tracer.terminate()
        tracer.wait(30)
        tracer.stderr.close()


def bin_with(site, role):
    """A folder of programs in which this role is started under strace, once, with the options in the file `inject`."""
    folder, real = site.dir / "bin", BIN / f"signet-{role}"
    folder.mkdir(exist_ok=True)
    shutil.copy2(BIN / "signetd", folder)
    for program in BIN.glob("signet-*"):
        (folder / program.name).unlink(missing_ok=True)
        (folder / program.name).symlink_to(program)
    wrapper = folder / f"signet-{role}"
    wrapper.unlink()
    # -D: what was started stays the supervisor's child, and strace is nobody's
    wrapper.write_text(f'#!/bin/sh\nif mv "{site.dir}/inject" "{site.dir}/injected" 2>/dev/null; then\n'
                       f'    exec $(cat "{site.dir}/injected") {real} "$@"\nfi\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    site.bin = folder


def arm(site, command):
    """The next one that is started of bin_with()'s role."""
    new = site.dir / "inject.new"
    new.write_text(" ".join([command[0], "-D", *command[1:]]))
    new.rename(site.dir / "inject")


def let_go(pid):
    """By whatever strace is at that process."""
    tracer = int(re.search(r"TracerPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))
    if tracer:
        os.kill(tracer, signal.SIGTERM)
        wait_for(lambda: not is_alive(tracer), "strace ends")


def run_traced(command, trace, *point, cwd=None):
    """A program to its end, or to its death: (exit code, stdout)."""
    env = tool_environment()
    if "ASAN_OPTIONS" in env:  # leaks cannot be looked for under strace
        env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"]
    trace.unlink(missing_ok=True)
    done = subprocess.run([*strace(trace, *point), *map(str, command)], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL) if was_hit(trace) else done.returncode >= 0, done
    return done.returncode, done.stdout + done.stderr
