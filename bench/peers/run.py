"""Compares Purser with the two peers: run.py PURSER SANDBOX NODE DOCS.

Each onboards the same rows with the same strict partner, faults and rate, is killed when half of the rows are
onboarded, and is started again until it exits 0, at most three times. What came of it is read from the partner, not
from the programs. Prints a Markdown table and writes the plot DOCS/peers.svg. Fails if Purser loses a row or makes a
customer twice.
"""

import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

from eth_account import Account

ROWS = int(os.environ.get("ROWS", "1000"))
RATE = int(os.environ.get("RATE", "200"))
RESTARTS = 3
DEADLINE = 180  # seconds for one program
FAULTS = os.environ.get(
    "FAULTS",
    "drop-before=0.03,drop-after=0.03,html-error=0.02,unstored-5xx=0.02,stored-5xx=0.02,stored-5xx-after=0.02,"
    "in-flight-409=0.02,truncated=0.01,expired-token=0.01,refuse-signature=0.01,sign-2xx=0.01,sign-2xx-undone=0.01,"
    "limit=2",
)
HERE = Path(__file__).resolve().parent
CHAIN = "eip155:300"


def write_export(folder):
    """Writes export and keys, the same in each run; purser takes them as insecure-file:."""
    export, keys = folder / "export.csv", folder / "keys.csv"
    with open(export, "w") as e, open(keys, "w", opener=lambda p, f: os.open(p, f, 0o600)) as k:
        e.write("address,externalId,chainId\n")
        k.write("address,privateKey\n")
        for n in range(ROWS):
            private = f"{n + 1:064x}"
            address = Account.from_key(private).address
            e.write(f"{address},{uuid.uuid5(uuid.NAMESPACE_OID, str(n))},{CHAIN}\n")
            k.write(f"{address},{private}\n")
    return export, keys


class Sandbox:
    def __init__(self, program, folder):
        self.process = subprocess.Popen(
            [program, "serve", "--dir", folder, "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0",
             "--seed", "7", "--latency", "50ms", "--rate", str(RATE), "--declared-rate", str(RATE),
             "--faults", FAULTS, "--log-level", "error"],
            stdout=subprocess.PIPE, stderr=open(folder / "log", "w"), text=True, cwd=folder,
        )  # fmt: skip
        said = [self.process.stdout.readline() for _ in range(3)]
        if not said[2]:
            sys.exit(f"{program} serve: exited before it listened; see {folder / 'log'}")
        self.control = said[1].split()[1]
        self.env = {}
        for line in (folder / "sandbox.env").read_text().splitlines():
            name, value = line.removeprefix("export ").split("=", 1)
            self.env[name] = value.strip("'")

    def ask(self, path):
        with urllib.request.urlopen(self.control + path) as response:
            return response.read()

    def customers(self):
        return [json.loads(line) for line in self.ask("/customers").splitlines()]

    def stop(self):
        self.process.terminate()
        self.process.wait()


def onboarded(customer):
    return customer["status"] != "initiating"


def supervise(sandbox, command, env, log):
    """Runs the program with its kill and its restarts; returns the exit code of the last."""
    started, killed = time.monotonic(), False
    with open(log, "w") as out:
        for _ in range(1 + RESTARTS):
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
            while process.poll() is None:
                if not killed and sum(map(onboarded, sandbox.customers())) >= ROWS // 2:
                    os.killpg(process.pid, signal.SIGKILL)
                    killed = True
                if time.monotonic() - started > DEADLINE:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    return "deadline"
                time.sleep(0.1)
            if process.returncode == 0:
                break
    if not killed:
        sys.exit(f"{command[0]}: ended before it was killed; see {log}")
    return process.returncode


def measure(sandbox, export, code):
    entries = json.loads(sandbox.ask("/history?limit=1000000"))["entries"]
    judged = json.loads(sandbox.ask("/judge"))
    arrivals = sorted(e["elapsed"] / 1e9 for e in entries)
    busiest, first = 0, 0
    for last, at in enumerate(arrivals):
        while arrivals[first] <= at - 1:
            first += 1
        busiest = max(busiest, last - first + 1)
    by_id = {c["externalId"]: c for c in sandbox.customers()}
    with open(export, newline="") as f:
        rows = [by_id.get(row["externalId"]) for row in csv.DictReader(f)]
    # A row is onboarded by the first submission that was executed, whatever answer then reached the client.
    settled = {}
    for e in entries:
        executed = e.get("outcome") == 204 or "stored-5xx-after" in e.get("faults", ())
        if e.get("operation") == "sign" and executed and not e.get("replayed"):
            settled.setdefault(e["customerId"], e["elapsed"] / 1e9)
    curve = sorted(at - arrivals[0] for at in settled.values())
    if len(curve) != sum(c is not None and onboarded(c) for c in rows):
        sys.exit(f"the history has {len(curve)} rows onboarded, the list of customers has another number")
    # Until the last row: what comes later are attempts for rows that are then lost.
    until = sum(at - arrivals[0] <= curve[-1] for at in arrivals)
    return {
        "rate": 100 * until / (RATE * curve[-1]),
        "busiest": busiest,
        "throttled": sum(e.get("status") == 429 for e in entries),
        "requests": len(entries),
        "last": curve[-1],
        "lost": sum(c is None or not onboarded(c) for c in rows),
        "half": sum(c is not None and not onboarded(c) for c in rows),
        "twice": sum(n > 1 for n in Counter(e["account"] for e in entries if e.get("created")).values()),
        "broken": ", ".join(sorted({v["rule"] for v in judged["violations"]})) or "none",
        "exit": code,
        "curve": curve,
    }


def plot(results, path):
    """Draws how many rows were onboarded over time."""
    width, height, left, bottom, top = 760, 360, 60, 50, 20
    longest = max(r["curve"][-1] for r in results.values()) * 1.05
    x = lambda t: left + t / longest * (width - left - 20)
    y = lambda n: height - bottom - n / ROWS * (height - bottom - top)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="13">',
        "<title>Rows onboarded over time, with a kill when half of them are onboarded</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for part in range(5):
        n = ROWS * part // 4
        out.append(f'<path d="M{left} {y(n):.1f}H{width - 20}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y(n) + 4:.1f}" text-anchor="end">{n}</text>')
        out.append(f'<text x="{x(longest * part / 4):.1f}" y="{height - 28}" text-anchor="middle">'
                   f"{longest * part / 4:.0f} s</text>")  # fmt: skip
    colours = ("#0b6", "#36c", "#d60")
    for n, ((name, r), colour) in enumerate(zip(results.items(), colours)):
        steps = [(0, 0)] + [(t, i + 1) for i, t in enumerate(r["curve"])]
        shown = steps[:: max(1, ROWS // 100)] + [steps[-1]]
        points = "\n".join(f"{x(t):.1f},{y(i):.1f}" for t, i in shown)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        out.append(f'<circle cx="{x(steps[-1][0]):.1f}" cy="{y(steps[-1][1]):.1f}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{width - 240}" y="{height - 130 + 20 * n}" fill="{colour}">'
                   f'{name}: {len(r["curve"])} rows, {r["last"]:.1f} s</text>')  # fmt: skip
    out.append(f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">time since the first request; '
               f"rows onboarded, of {ROWS}</text></svg>")  # fmt: skip
    path.write_text("\n".join(out) + "\n")


def table(results):
    columns = [
        ("rate used", lambda r: f'{r["rate"]:.0f} %'),
        ("busiest second", lambda r: f'{r["busiest"]}'),
        ("429s", lambda r: r["throttled"]),
        ("requests", lambda r: r["requests"]),
        ("last row", lambda r: f'{r["last"]:.1f} s'),
        ("rows lost", lambda r: r["lost"]),
        ("of these half made", lambda r: r["half"]),
        ("made twice", lambda r: r["twice"]),
        ("last exit code", lambda r: r["exit"]),
        ("broken, says the judge", lambda r: r["broken"]),
    ]
    print("| | " + " | ".join(results) + " |\n|" + "---|" * (1 + len(results)))
    for name, value in columns:
        print(f"| {name} | " + " | ".join(str(value(r)) for r in results.values()) + " |")


def main(purser, sandbox_program, node, docs):
    work = Path(tempfile.mkdtemp(prefix="peers-"))
    export, keys = write_export(work)
    version = lambda *command: subprocess.check_output(command, text=True).strip()
    print(f"{ROWS} rows, {RATE} requests/s, Python {platform.python_version()}, Node.js {version(node, '--version')}\n"
          f"faults: {FAULTS}\n", flush=True)  # fmt: skip
    results = {}
    for name in ("purser", "python", "node"):
        folder = work / name
        (folder / "sandbox").mkdir(parents=True)
        sandbox = Sandbox(Path(sandbox_program).resolve(), folder / "sandbox")
        try:
            env = os.environ | sandbox.env | {"PURSER_RATE": str(RATE)}
            if name == "purser":
                env |= {"PURSER_SIGNER": f"insecure-file:{keys}", "PURSER_DATA_DIR": str(folder / "data")}
                command = [Path(purser).resolve(), "night", export]
            else:
                script = [sys.executable, HERE / "peer.py"] if name == "python" else [node, HERE / "peer.mjs"]
                command = [*script, export, keys, folder / "journal"]
            code = supervise(sandbox, command, env, folder / "log")
            results[name] = measure(sandbox, export, code)
        finally:
            sandbox.stop()
    table(results)
    plot(results, Path(docs) / "peers.svg")
    ours = results["purser"]
    if ours["lost"] or ours["twice"] or ours["exit"] != 0:
        sys.exit(f"purser: got {ours['lost']} rows lost, {ours['twice']} made twice, exit code {ours['exit']}, want 0; "
                 f"see {work}")  # fmt: skip
    if os.environ.get("KEEP"):
        print(f"\nlogs: {work}")
    else:
        shutil.rmtree(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
