"""A program in the place of a front, or of the publisher, whose sockets a test has: what somebody has who took that
process over.

It hands its descriptors over and lives on until it is ended, or the supervisor is gone."""

import contextlib
import hashlib
import os
import select
import shutil
import signal
import socket
import struct
import sys

SUPERVISOR, AUTHORITY = 3, 5
SIZE = 200000


def hand_over(where, number):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect("\0" + where)
        socket.send_fds(s, [f"{os.getpid()} {number}".encode()], [SUPERVISOR, AUTHORITY])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for fd in (4, AUTHORITY, 6, 7):  # what the test has, it can close
        with contextlib.suppress(OSError):
            os.close(fd)
    poll = select.poll()
    poll.register(SUPERVISOR, 0)  # tells of its end alone
    poll.poll()


class Taken:
    """A process that was taken over."""

    def __init__(self, pid, number, supervisor, authority):
        self.pid, self.number = pid, number
        self.supervisor, self.authority = (socket.socket(fileno=fd) for fd in (supervisor, authority))
        self.authority.settimeout(60)

    def close(self):
        self.supervisor.close()
        self.authority.close()

    def send(self, record, fds=()):
        """Raw; what the other end has closed already is none of ours."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.authority, [record], list(fds))

    def say(self, name, ident=1, /, **values):
        from front_harness import MESSAGES
        self.send(MESSAGES.encode(name, ident, **values))

    def hear(self, *ignored):
        """(name, id, fields) of what comes next; None: it was ended."""
        from front_harness import MESSAGES
        while True:
            try:
                record, fds, _, _ = socket.recv_fds(self.authority, SIZE, 4)
            except ConnectionResetError:
                continue
            for fd in fds:
                os.close(fd)
            if not record:
                return None
            name, ident, values = MESSAGES.decode(record)
            if name.startswith("answer_") or name in ignored:
                return name, ident, values

    def ask(self, question, /, **values):
        """(name, fields) of the answer; of an error its code's name."""
        from front_harness import ERRORS
        self.say(question, 1, **values)
        name, _, fields = self.hear()
        return ("error", ERRORS[fields["code"]]) if name == "answer_error" else (name, fields)

    def is_cut_off(self):
        """The authority hangs up; nothing that it says first is an answer with what it must not give."""
        while self.hear() is not None:
            pass
        return True


class Hijack:
    """In this site all of these programs are the test's, but the front that is started first."""

    def __init__(self, site, role="front"):
        from signet_site import BIN
        name = os.urandom(8).hex()
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.door.bind("\0" + name)
        self.door.listen(64)
        self.door.settimeout(60)
        self.taken = []
        folder = site.dir / "bin"
        folder.mkdir()
        shutil.copy2(BIN / "signetd", folder)
        for program in BIN.glob("signet-*"):
            (folder / program.name).symlink_to(program)
        place = folder / f"signet-{role}"
        place.unlink()
        place.write_text(f'#!/bin/sh\n[ "$2" != 1 ] || exec {BIN / place.name} "$@"\n'
                         f'exec /usr/bin/python3 -BES {os.path.abspath(__file__)} {name} "$2"\n')
        place.chmod(0o755)
        site.bin = folder

    def next(self):
        """One that is still there."""
        from signet_site import is_alive
        while True:
            with self.door.accept()[0] as s:
                text, fds, _, _ = socket.recv_fds(s, 100, 2)
            pid, number = map(int, text.split() if b" " in text.strip() else [*text.split(), b"1"])
            taken = Taken(pid, number, *fds)
            if is_alive(pid):
                self.taken.append(taken)
                return taken
            taken.close()

    def close(self):
        for taken in self.taken:
            taken.close()
        self.door.close()


def seen(der):
    """What the authority is told of a caller, by who has seen the certificate."""
    from cryptography import x509
    cert = x509.load_der_x509_certificate(der)
    return {"caller_issuer": hashlib.sha256(cert.issuer.public_bytes()).digest(),
            "caller_serial": cert.serial_number.to_bytes(16, "big"),
            "caller_digest": hashlib.sha256(der).digest(), "caller_address": "192.0.2.7"}


def text(value):
    return struct.pack(">I", len(value) + 1) + value + b"\0"


if __name__ == "__main__":
    hand_over(sys.argv[1], (sys.argv[2:] or ["1"])[0])
