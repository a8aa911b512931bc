"""docs/configuration.md and the tables of the code say the same: every key, default and limit."""
import re
import sys

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([smhd]?)", text).groups()
    return int(number) * UNITS[unit]


def product(text):
    value = 1
    for factor in text.split("*"):
        value *= int(factor)
    return value


def keys_of_code(source):
    """{(section, key): (default or None, kind, least, most)}"""
    row = re.compile(
        r'\{"(\w+)",\s*"(\w+)",\s*(\w+),\s*AT\(\w+\),\s*(NULL|"[^"]*"),\s*([\d* ]+),\s*([\d* ]+)\}')
    return {(s, k): (None if d == "NULL" else d[1:-1], kind, product(least), product(most))
            for s, k, kind, d, least, most in row.findall(source)}


def rows_of_document(text):
    """{(section, key): (default, allowed)}"""
    rows, section = {}, None
    for line in text.splitlines():
        if line.startswith("## "):
            heading = re.fullmatch(r"## \[(\w+).*\]", line)
            section = heading and heading.group(1)
        cells = re.fullmatch(r"\| `([\w.]+)` \| (.*?) \| (.*?) \| .* \|", line) if section else None
        if section == "profile":
            cells = re.fullmatch(r"\| `(\w+)` \| (.*?) \|() .* \|", line)
        if cells:
            rows[section, cells.group(1)] = (cells.group(2).strip("`"), cells.group(3))
    return rows


def check_key(name, code, document):
    default, kind, least, most = code
    told, allowed = document
    if default is None:
        good = told in ("none", "required") or told.startswith("STATE/")
    else:
        good = told == default
    if not good:
        yield f"{name}: the default is {default}, the document says {told}"
    if kind in ("NUMBER", "SECONDS", "MILLISECONDS"):
        limits = [seconds(t) for t in allowed.split(" to ")]
        if limits != [least, most]:
            yield f"{name}: {least} to {most} is allowed, the document says {allowed}"


def check(config_c, profile_keys_c, document):
    keys, rows = keys_of_code(config_c), rows_of_document(document)
    profile = dict(re.findall(r'\{"(\w+)", set_\w+, ([01])\}', profile_keys_c))
    if len(keys) < 15 or len(profile) < 5:
        yield "the tables of the code are not found"
    expected = set(keys) | {("token", "env.NAME")} | {("profile", k) for k in profile}
    for name in sorted(expected - set(rows)):
        yield f"{name}: not in the document"
    for name in sorted(set(rows) - expected):
        yield f"{name}: not in the code"
    for name in sorted(set(keys) & set(rows)):
        yield from check_key(name, keys[name], rows[name])
    for key, required in profile.items():
        told = rows.get(("profile", key), ("",))[0] == "required"
        if told != (required == "1"):
            yield f"profile {key}: required is {required}"


def main():
    faults = list(check(*(open(path, encoding="utf-8").read() for path in sys.argv[1:])))
    print("\n".join(faults) or "docs/configuration.md agrees with the code")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
