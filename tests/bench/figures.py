"""The table: what each figure is, what it is compared with, and what it must reach."""

from dataclasses import dataclass
from statistics import median
from typing import Callable


@dataclass
class Figure:
    """Of one step's numbers: value and ceiling, whose ratio must be at most or at least the target (better: what would
    please). Without a ceiling the value itself must."""
    name: str
    text: str
    step: str
    value: Callable
    ceiling: Callable
    unit: str
    at_most: bool
    target: float
    better: float = None

    def of(self, rounds):
        """The medians over the rounds; each ratio is made within its own round."""
        seen = [r[self.step] for r in rounds if self.step in r]
        if not seen:
            return None
        values = [self.value(s) for s in seen]
        ceilings = [self.ceiling(s) for s in seen] if self.ceiling else None
        ratios = [v / c for v, c in zip(values, ceilings)] if ceilings else values
        ratio = median(ratios)
        met = ratio <= self.target if self.at_most else ratio >= self.target
        return {"name": self.name, "text": self.text, "unit": self.unit, "value": median(values),
                "ceiling": median(ceilings) if ceilings else None, "ratio": ratio, "lowest": min(ratios),
                "highest": max(ratios), "rounds": len(ratios), "target": self.target, "better": self.better,
                "at_most": self.at_most, "met": met}


def n(name):
    return lambda s: s[name]


FIGURES = (
    Figure("rsa_cpu", "RSA-2048 CA, 32 connections: server CPU a certificate ÷ CPU of a raw signature", "issue_rsa",
           n("cpu_us"), n("raw2_cpu_us"), "us", True, 1.6, 1.5),
    Figure("p256_cpu", "P-256 CA, 32 connections: server CPU a certificate beyond the token's ÷ CPU of a raw signature",
           "issue_p256", lambda s: s["cpu_us"] - s["raw2_cpu_us"], n("raw2_cpu_us"), "us", True, 6, 5),
    Figure("slow_token", "token with 10 ms a signature, 16 signers: rate ÷ raw rate of 16 processes", "token",
           n("rate"), n("raw_rate"), "/s", False, 0.95),
    Figure("million_rate", "rate with 1,000,000 certificates stored ÷ with 1,000", "million",
           n("million_rate"), n("thousand_rate"), "/s", False, 0.95),
    Figure("million_pss", "PSS of all server processes, 1,000,000 certificates stored, no connections", "million",
           n("pss_mb"), None, "MB", True, 64),
    Figure("idle_connection", "memory for each idle mutual-TLS connection", "idle", n("kb"), None, "KB", True, 36),
    Figure("p99_p256", "P-256: p99 of one issuance, 1 connection ÷ p99 of a signature with two syncs, bare",
           "issue_p256", n("single_p99_us"), n("synced_p99_us"), "us", True, 3),
    Figure("p99_rsa", "RSA-2048: p99 of one issuance, 1 connection ÷ p99 of a signature with two syncs, bare",
           "issue_rsa", n("single_p99_us"), n("synced_p99_us"), "us", True, 3),
    Figure("handshakes", "mutual-TLS handshakes, 8 clients, one front ÷ nginx with one worker", "tls",
           n("rate"), n("nginx_rate"), "/s", False, 0.9),
    Figure("handshake_cpu", "… CPU of a front a handshake ÷ nginx's (the load program takes longer than either)", "tls",
           n("cpu_us"), n("nginx_cpu_us"), "us", True, 1 / 0.9),
    Figure("ocsp_get", "OCSP by GET, an answer that one front keeps ÷ nginx with one worker and a file of that size", "ocsp",
           n("get_rate"), n("get_nginx_rate"), "/s", False, 0.5),
    Figure("ocsp_get_cpu", "… CPU of a front an answer ÷ nginx's", "ocsp",
           n("get_cpu_us"), n("get_nginx_cpu_us"), "us", True, 2),
    Figure("ocsp_post", "OCSP by POST, as above", "ocsp",
           n("post_rate"), n("post_nginx_rate"), "/s", False, 0.5),
    Figure("ocsp_post_cpu", "… CPU of a front an answer ÷ nginx's", "ocsp",
           n("post_cpu_us"), n("post_nginx_cpu_us"), "us", True, 2),
    Figure("sync_rsa", "RSA-2048, every sync 5 ms slower, 64 connections: rate ÷ rate with the normal disk", "sync_rsa",
           n("slow_rate"), n("normal_rate"), "/s", False, 0.85),
    Figure("sync_p256", "P-256, every sync 5 ms slower, 64 connections: rate ÷ rate with the normal disk", "sync_p256",
           n("slow_rate"), n("normal_rate"), "/s", False, 0.6),
    Figure("batch", "signet batch, RSA-2048 keys: keys and certificates ÷ keys made alone", "batch",
           n("rate"), n("keys_rate"), "/s", False, 0.87),
)


def details(rounds):
    """{step: {number: median}} of everything that was measured."""
    found = {}
    for step in {name for r in rounds for name in r}:
        seen = [r[step] for r in rounds if step in r]
        found[step] = {key: median(s.get(key, 0.0) for s in seen) for key in seen[0]}
    return found


def line(f):
    shown = {"us": "{:,.1f}", "MB": "{:,.1f}", "KB": "{:,.1f}", "/s": "{:,.0f}"}[f["unit"]]
    ceiling = shown.format(f["ceiling"]) if f["ceiling"] is not None else "-"
    sign = "≤" if f["at_most"] else "≥"
    target = f"{sign} {f['target']:.3g}" + (f" ({f['better']:g})" if f["better"] else "")
    spread = f"{f['lowest']:.2f}…{f['highest']:.2f}" if f["ceiling"] is not None else ""
    ratio = f"{f['ratio']:.2f}" if f["ceiling"] is not None else f"{f['ratio']:.1f}"
    return (f"{f['text']:<96} {shown.format(f['value']) + ' ' + f['unit']:>13} {ceiling:>10} {ratio:>7} "
            f"{spread:>14} {target:>10}  {'met' if f['met'] else 'NOT MET'}")


HEAD = f"{'figure':<96} {'value':>13} {'ceiling':>10} {'ratio':>7} {'over rounds':>14} {'target':>10}"
