"""What strace saw of a process, as events in their order, and what must be durable before what."""

import os
import re
import subprocess
from collections import Counter, defaultdict
from typing import NamedTuple

from front_harness import MESSAGES

SYNCS, WRITES = ("fdatasync", "fsync"), ("write", "pwrite64")
NAMES = ("openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat")
CALLS = (*SYNCS, *WRITES, *NAMES, "sendmsg", "recvmsg", "sendto")


class Event(NamedTuple):
    pid: str
    call: str
    target: str = ""   # the path of the file, or the socket
    data: bytes = b""  # a message's record, or what was written
    names: tuple = ()  # of NAMES: the paths, absolute


def text_of(hexed):
    return bytes.fromhex(hexed.replace("\\x", "")).decode(errors="replace")


def read_call(pid, line, cwd):
    """One line without its pid; None when nothing came of that call."""
    name, rest = line.split("(", 1)
    done = re.search(r"\) += (-?\d+)", rest)
    if done and int(done.group(1)) < 0:
        return None
    first = re.match(r"\d+<([^>]*)>", rest)
    data = re.findall(r'"((?:\\x[0-9a-f]{2})*)"', rest)
    if name in NAMES:
        if name == "openat" and "O_CREAT" not in rest:
            return None
        folders = [text_of(f) if "\\x" in f else f for f in re.findall(r"(?:AT_FDCWD|\d+)<([^>]*)>, \"", rest)]
        names = [os.path.join(folders[i] if i < len(folders) else cwd, text_of(d)) for i, d in enumerate(data)]
        return Event(pid, name, names=tuple(names))
    target = text_of(first.group(1)) if first and "\\x" in first.group(1) else first.group(1) if first else ""
    return Event(pid, name, target, bytes.fromhex(data[0].replace("\\x", "")) if data else b"")


def events_of(file, cwd):
    """A send stands where it began, all else where it ended: nobody gains by the order of two processes."""
    found, begun = [], {}
    for line in file.read_text(errors="replace").splitlines():
        pid, text = re.match(r"(?:(\d+) +)?(.*)", line).groups()
        resumed = re.match(r"<\.\.\. (\w+) resumed>(.*)", text)
        if resumed:
            text = begun.pop(pid, "")
            text = text and text + resumed.group(2)
        elif text.endswith("<unfinished ...>"):
            text = text[:-len("<unfinished ...>")].rstrip()
            if not text.startswith("send"):
                begun[pid] = text
                continue
        event = read_call(pid, text, cwd) if re.match(r"\w+\(", text) else None
        if event:
            found.append(event)
    return found


def command(to, follow=False):
    return ["strace", "-I2", *(["-f"] if follow else []), "-y", "-xx", "-s", "8192", "-o", str(to), "-e",
            "trace=" + ",".join("?" + call for call in CALLS)]


class Trace:
    """Of processes that run; with follow, of the children that they make from now on too."""

    def __init__(self, where, *pids, follow=False):
        self.file, self.where = where / "strace", str(where)
        pids = [word for pid in pids for word in ("-p", str(pid))]
        self.process = subprocess.Popen([*command(self.file, follow), *pids], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in pids[::2]:
            line = self.process.stderr.readline()
            assert "attached" in line, line

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stderr.close()
        return events_of(self.file, self.where)


# ---- the authority: commits, signatures, answers ----

LINE = re.compile(rb" (intent|issued|revoked|held|unheld) serial=([0-9a-f]+)|(tbs=[0-9a-f]{64})|( crl number=\d+)")
ASKING = ("issue", "renew", "revoke", "signed_request", "admin_operator_issue", "admin_operator_revoke",
          "admin_clock_accept", "admin_import")
CHANGES = {6: "held", 8: "unheld"}


class Log:
    """The store's write-ahead log: what was first written when, and when it was synced."""

    def __init__(self, events):
        self.first, self.writes, self.syncs = {}, [], []
        for at, e in enumerate(events):
            if not e.target.endswith("/signet.db-wal"):
                continue
            if e.call in SYNCS:
                self.syncs.append(at)
            elif e.call in WRITES:
                self.writes.append(at)
                for kind, serial, tbs, crl in LINE.findall(e.data):
                    self.first.setdefault((tbs or crl or kind + b" " + serial).decode(), at)

    def is_durable(self, written, before):
        return written is not None and any(written < sync < before for sync in self.syncs)

    def nothing_open(self, at):
        """No write before `at` that was not synced before it."""
        last = max((w for w in self.writes if w < at), default=-1)
        return last < 0 or any(last < sync < at for sync in self.syncs)


def record_of(event):
    """(message, id, fields) of a message that is whole, or None."""
    name = MESSAGES.name.get(event.data[1]) if len(event.data) >= 16 else None
    try:
        return MESSAGES.decode(event.data) if name else None
    except (AssertionError, IndexError):  # longer than what strace shows
        return None


def line_of(answer, fields):
    """What of the journal an answer tells; None: it names nothing."""
    if answer == "sign":
        return "tbs=" + fields["digest"].hex()
    if answer == "answer_certificate":
        return "issued " + fields["serial"].hex()
    if answer == "answer_revoked" and fields["serial"]:
        return f"{CHANGES.get(fields['reason'], 'revoked')} {fields['serial'].hex()}"
    return None


def check_authority(events):
    """Each signature's own intent, and each answer's own event, is written and synced before it leaves; and nothing at
    all is open at that moment. (How many of each class, {class: what was not so}, the log)"""
    log, asked, crl_digests = Log(events), {}, set()
    counts, wrong = Counter(), defaultdict(list)
    for at, e in enumerate(events):
        if e.call not in ("sendmsg", "recvmsg") or not (message := record_of(e)):
            continue
        name, ident, fields = message
        if e.call == "recvmsg":
            if name == "crl_digest":
                crl_digests.add(fields["digest"])
            elif name in ASKING:
                asked[e.target, ident] = name, at
            continue
        if name == "sign" and fields["digest"] not in crl_digests:
            kind, since = "sign", 0
        elif name in ("answer_certificate", "answer_revoked", "answer_end") and (e.target, ident) in asked:
            kind, since = asked.pop((e.target, ident))
        else:
            continue
        counts[kind] += 1
        line = line_of(name, fields)
        written = log.first.get(line) if line else min((w for w in log.writes if w > since), default=None)
        if not log.is_durable(written, at):
            wrong[kind].append((name, ident, line, written, at))
        elif not log.nothing_open(at):
            wrong[kind].append((name, ident, "something else is not synced", at))
    return counts, wrong, log


# ---- files and folders ----

class Disk:
    """What a loss of power would take under one folder: contents and names since the last sync of each."""

    def __init__(self, root):
        self.root, self.files, self.folders = str(root), set(), set()

    def inside(self, path):
        return path == self.root or path.startswith(self.root + "/")

    def take(self, e):
        """The event's effect; what is wrong already, as text."""
        wrong = None
        if e.call in SYNCS:
            self.files.discard(e.target)
            self.folders.discard(e.target)
        elif e.call in WRITES and self.inside(e.target):
            self.files.add(e.target)
        elif e.call in NAMES and self.inside(e.names[-1]):
            self.folders.add(os.path.dirname(e.names[-1]))  # an old name that comes back does no harm
            if e.call.startswith("rename"):
                old, new = e.names
                if old in self.files:
                    wrong = f"{old} has its name before its contents are synced"
                for known in (self.files, self.folders):
                    for path in [p for p in known if p == old or p.startswith(old + "/")]:
                        known.discard(path)
                        known.add(new + path[len(old):])
        return wrong

    def open(self):
        return sorted(self.files | self.folders)


def check_folder(events, root, moments):
    """moments: {class: whether an event is one}. At each, nothing under root is open: (counts, {class: what is})."""
    disk, counts, wrong = Disk(root), Counter(), defaultdict(list)
    for e in events:
        for kind, is_moment in moments.items():
            if is_moment(e):
                counts[kind] += 1
                if disk.open():
                    wrong[kind].append(disk.open())
        problem = disk.take(e)
        if problem:
            wrong["name"].append(problem)
    return counts, wrong
