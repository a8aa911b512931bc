"""What a round measures: each step is a server of its own with a fresh state folder, and what it is compared with
beside it. A step gives numbers by name."""

from argparse import Namespace

import batch
from bench_site import BenchSite
from kept_answer import KeptAnswer
from nginx import Nginx, is_there
from processes import cpu_by_role, settled_cpu
from programs import Load, bare, load, raw
from signet_site import Site
from turns import swapped

KEYS = {"rsa": "rsa:2048", "p256": "ec:p256"}
COMMIT_BYTES = 32768  # of the write-ahead log: what one issuance alone writes before each of its two syncs, on average


class Bench:
    """What the steps share. sizes: how much of everything; kits: the tokens and CAs by key type."""

    def __init__(self, work, sizes, kits, pool, shims):
        self.work, self.sizes, self.kits, self.pool, self.shims = work, sizes, kits, pool, shims
        self.sites, self.stored = 0, {}

    def seeded(self, key, name, count):
        """A site with so many certificates, one in a hundred revoked; made once, and stopped between the rounds."""
        if name not in self.stored:
            self.stored[name] = self.site(key, name).seed(self.pool, count, count // 100)
        return self.stored[name]

    def close(self):
        for site in self.stored.values():
            site.close()

    def site(self, key, name, **settings):
        """Its folder stays until all is done: deleting would burden what is measured next."""
        self.sites += 1
        return BenchSite(self.kits[key], self.work / f"{self.sites:03d}-{name}", **settings)


def issuing(b, key, number):
    """The rate, CPU and latency of a server, and its ceilings: the token alone, one process without a server."""
    z = b.sizes
    count = z.issue[key]
    with b.site(key, f"issue-{key}") as site:
        one = raw(site.conf, z.raw[key])
        two = raw(site.conf, z.raw[key], "--processes", 2)
        alone = bare(site.conf, b.pool, z.bare)
        synced = raw(site.conf, z.single, "--sync", site.dir / "sync", "--bytes", COMMIT_BYTES)
        site.begin()
        if z.folders:
            site.make_folders()
        many = site.issue(b.pool, z.warm, count, 32, z.warm)
        single = site.issue(b.pool, z.warm + count + 20, z.single, 1, 20)
        return {"raw_rate": one["rate"], "raw_cpu_us": one["cpu_us"], "raw2_rate": two["rate"],
                "raw2_cpu_us": two["cpu_us"], "bare_rate": alone["rate"], "bare_cpu_us": alone["cpu_us"],
                "synced_p50_us": synced["p50_us"], "synced_p99_us": synced["p99_us"],
                "rate": many["rate"], "cpu_us": many["cpu_us"], "p50_us": many["p50_us"], "p99_us": many["p99_us"],
                "load_cpu_us": many["load_cpu_us"], "single_rate": single["rate"], "single_cpu_us": single["cpu_us"],
                "single_p50_us": single["p50_us"], "single_p99_us": single["p99_us"],
                **{f"cpu_us_{role}": used for role, used in many["cpu_us_by_role"].items()}}


def slow_sync(b, key, number):
    """Each sync 5 ms slower, 64 connections, against the disk as it is."""
    def rate(name, slow):
        with b.site(key, f"{name}-{key}", slow_sync=slow, server_credits=128) as site:
            return site.begin().issue(b.pool, b.sizes.warm, b.sizes.sync, 64, b.sizes.warm, cpu=False)["rate"]
    normal, slow = swapped(number, lambda: rate("sync", None), lambda: rate("slow-sync", (b.shims["sync"], 5000)))
    return {"normal_rate": normal, "slow_rate": slow}


def slow_token(b, number):
    """10 ms a signature: 16 signers against 16 processes that do nothing but sign."""
    with b.site("p256", "slow-token", slow_token=(b.shims["token"], 10), token_signers=16, server_credits=128) as site:
        ceiling = raw(site.conf, b.sizes.slow // 16, "--processes", 16)
        found = site.begin().issue(b.pool, b.sizes.warm, b.sizes.slow, 64, b.sizes.warm, cpu=False)
    return {"raw_rate": ceiling["rate"], "rate": found["rate"], "p50_us": found["p50_us"], "p99_us": found["p99_us"]}


def rate_and_cpu(b, server, mode, *options):
    """What 8 connections get of it, and the microseconds of CPU that each takes all its processes."""
    before = sum(cpu_by_role(server.process.pid).values())
    done = load(mode, "--connections", 8, "--seconds", b.sizes.seconds, *options)
    used = sum(cpu_by_role(server.process.pid).values()) - before
    return done["rate"], used / done["count"] * 1e6


def handshakes(b, number):
    """One front against nginx with one worker, with the same certificate and key; small answers too."""
    with b.site("p256", "tls", server_fronts=1).begin() as site, Nginx(site, site.dir / "nginx") as nginx:
        def shake(server):
            return rate_and_cpu(b, server, "handshakes", *server.tls())

        def fetch(server):
            return rate_and_cpu(b, server, "get", *server.plain(), "--path", "/crl")
        ours, theirs = swapped(number, lambda: shake(site), lambda: shake(nginx))
        crl, static = swapped(number, lambda: fetch(site), lambda: fetch(nginx))
    return {"rate": ours[0], "nginx_rate": theirs[0], "cpu_us": ours[1], "nginx_cpu_us": theirs[1],
            "crl_rate": crl[0], "nginx_crl_rate": static[0], "crl_cpu_us": crl[1], "nginx_crl_cpu_us": static[1]}


def ocsp(b, number):
    """An OCSP answer that one front keeps, without a nonce, by GET and by POST; against nginx with one worker and a
    file of the same bytes."""
    with b.site("p256", "ocsp", ocsp=True, server_fronts=1).begin() as site, Nginx(site, site.dir / "nginx") as nginx:
        kept = KeptAnswer(site)
        nginx.add("ocsp", kept.der)

        def get():
            return rate_and_cpu(b, site, "get", *site.plain(), "--path", kept.path)

        def post():
            return rate_and_cpu(b, site, "get", *site.plain(), "--path", "/ocsp", "--body", kept.request, "--type",
                                "application/ocsp-request")

        def static():
            return rate_and_cpu(b, nginx, "get", *nginx.plain(), "--path", "/ocsp")
        got, got_static = swapped(number, get, static)
        posted, posted_static = swapped(number, post, static)
        assert kept.ask() == kept.der, "it was kept all the time"
    return {"bytes": len(kept.der), "get_rate": got[0], "get_cpu_us": got[1], "get_nginx_rate": got_static[0],
            "get_nginx_cpu_us": got_static[1], "post_rate": posted[0], "post_cpu_us": posted[1],
            "post_nginx_rate": posted_static[0], "post_nginx_cpu_us": posted_static[1]}


def idle(b, number):
    """Memory of all processes for each connection that has asked once and is kept."""
    with b.site("p256", "idle").begin() as site:
        load("idle", *site.tls(), "--connections", 8, "--path", "/livez")  # what the first ones make is not each one's
        before = site.pss()
        with Load("idle", *site.tls(), "--connections", b.sizes.idle, "--path", "/livez") as held:
            held.ready()
            after = site.pss()
            held.go().stopped().result()
    return {"empty_pss_mb": before / 1024, "kb": (after - before) / b.sizes.idle}


def batches(b, number):
    o = Namespace(keys=b.sizes.batch, jobs=2, rounds=1, key_type="rsa:2048")
    with Site(b.kits["p256"], b.work / f"batch-{number}") as site:
        site.start()
        site.client()
        (wall, cpu), (keys_wall, keys_cpu) = batch.one_round(o, site, number)
    return {"keys_rate": o.keys / keys_wall, "rate": o.keys / wall, "cpu_ratio": cpu / keys_cpu}


def million(b, number):
    """The same with many certificates in the store, and with a thousand."""
    z = b.sizes
    first = 1 + number * (z.warm + z.million)

    def measure(name, count):
        site = b.seeded("p256", name, count).begin()
        settled_cpu(site.process.pid)  # what the start sets off: a CRL
        pss = site.pss()
        found = site.issue(b.pool, first, z.million, 32, z.warm, seconds=z.seconds * 3)
        site.stop()
        return found["rate"], pss / 1024, found["cpu_us"]
    few, many = swapped(number, lambda: measure("thousand", 1000), lambda: measure("million", z.seed))
    return {"thousand_rate": few[0], "million_rate": many[0], "thousand_pss_mb": few[1], "pss_mb": many[1],
            "thousand_cpu_us": few[2], "million_cpu_us": many[2]}


def all_steps():
    """{name: step(bench, number of the round)}"""
    steps = {}
    for key in KEYS:
        steps[f"issue_{key}"] = lambda b, n, key=key: issuing(b, key, n)
        steps[f"sync_{key}"] = lambda b, n, key=key: slow_sync(b, key, n)
    steps.update(token=slow_token, idle=idle, batch=batches, million=million)
    if is_there():
        steps.update(tls=handshakes, ocsp=ocsp)
    return steps
