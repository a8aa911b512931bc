"""The programs of tests/bench, each with a time limit."""

import contextlib
import json
import subprocess
import tempfile
import threading

from signet_site import BUILD, run

TOOLS = BUILD / "tests"


class Load:
    """bench-load while it runs: ready() when its connections are open, go() starts its clock, stopped() when that
    has stopped, result() ends it."""

    def __init__(self, mode, *options, limit=180):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(a) for a in (TOOLS / "bench-load", mode, *options)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        self.timer = threading.Timer(limit, self.process.kill)
        self.timer.start()

    def expect(self, word):
        line = self.process.stdout.readline()
        assert line == word + "\n", f"bench-load: {line!r} for {word}: {self.said()}"
        return self

    def ready(self):
        return self.expect("ready")

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self

    def stopped(self):
        return self.expect("stopped")

    def result(self):
        out = self.process.stdout.read()
        assert self.process.wait() == 0, f"bench-load: {self.process.returncode}: {self.said()}"
        found = json.loads(out)
        assert found.get("errors", 0) == 0, f"bench-load: {found['errors']} errors: {self.said()}"
        return found

    def said(self):
        self.process.wait()
        self.errors.seek(0)
        return self.errors.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.communicate()
        self.errors.close()


def load(mode, *options, **kwargs):
    """From its start to its result."""
    with Load(mode, *options, **kwargs) as program:
        return program.ready().go().stopped().result()


def make_pool(path, count):
    run(TOOLS / "bench-load", "pool", "--pool", path, "--count", count, timeout=600)
    return path


def raw(conf, count, *options):
    return json.loads(run(TOOLS / "bench-raw", "--config", conf, "--count", count, *options, timeout=300).stdout)


def bare(conf, pool, count):
    return json.loads(run(TOOLS / "bench-bare", "--config", conf, "--pool", pool, "--count", count, timeout=300).stdout)
