"""A signet-front that hands a test's own questions to the authority, beside one that serves clients.

As a program it stands where one of two fronts does: whichever is started while there is none. It reads and writes no field of a message but its id."""

import contextlib
import os
import shutil
import socket
import struct
import sys
import threading

SUPERVISOR, AUTHORITY = 3, 5
SIZE = 200000


def address_of(name):
    return "\0signet-test-" + name


def with_id(record, ident):
    return record[:8] + struct.pack(">Q", ident) + record[16:]


def relay(name):
    from front_harness import MESSAGES
    supervisor, authority = (socket.socket(fileno=fd) for fd in (SUPERVISOR, AUTHORITY))
    asking, lock = {}, threading.Lock()
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(address_of(name))
    door.listen(256)

    def serve(client):
        with contextlib.suppress(OSError):
            while record := client.recv(SIZE):
                with lock:
                    ident = len(asking) + 1
                    asking[ident] = (client, struct.unpack(">Q", record[8:16])[0])
                authority.send(with_id(record, ident))

    def admit():
        while True:
            threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()

    threading.Thread(target=admit, daemon=True).start()
    while True:
        record, fds, _, _ = socket.recv_fds(authority, SIZE, 4)
        for fd in fds:
            os.close(fd)
        if not record:
            os._exit(0)
        ident = struct.unpack(">Q", record[8:16])[0]
        if ident in asking:
            client, own = asking[ident]
            with contextlib.suppress(OSError):
                client.send(with_id(record, own))
        elif MESSAGES.decode(record)[0] == "chain":
            supervisor.send(MESSAGES.encode("ready", 0, detail=""))


def place(site):
    """A folder of programs for this site in which one of its fronts is the relay."""
    from signet_site import BIN
    folder, name = site.dir / "bin", os.urandom(8).hex()
    folder.mkdir()
    shutil.copy2(BIN / "signetd", folder)
    for program in BIN.glob("signet-*"):
        (folder / program.name).symlink_to(program)
    front = folder / "signet-front"
    front.unlink()
    front.write_text(f'#!/bin/sh\nexec 9>"{folder}/relay"\nif flock -n 9; then\n    exec /usr/bin/python3 -B '
                     f'{os.path.abspath(__file__)} {name}\nfi\nexec 9>&-\nexec {BIN / "signet-front"} "$@"\n')
    front.chmod(0o755)
    site.bin, site.relay = folder, name


class Relay:
    """A connection to it; one question at a time."""

    def __init__(self, site, patience=60):
        from signet_site import wait_for
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(patience)

        def connected():
            with contextlib.suppress(ConnectionRefusedError):
                self.socket.connect(address_of(site.relay))
                return True
        wait_for(connected, "the relay is there")

    def process(self):
        return struct.unpack("iII", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, question, /, **values):
        """(name, fields) of the answer."""
        from front_harness import MESSAGES
        self.socket.send(MESSAGES.encode(question, 1, **values))
        record = self.socket.recv(SIZE)
        if not record:
            raise ConnectionResetError("the authority, or the front, is gone")
        name, _, fields = MESSAGES.decode(record)
        return name, fields


if __name__ == "__main__":
    relay(sys.argv[1])
