"""Drives decisions on real nodes and reads their traces from a real Jaeger.

    run.py BINARY JAEGER [--write FILE]

BINARY is the built `quorate`, JAEGER the all-in-one that tools/setup built. Checks
four traces: a decision, a Byzantine abort, a silent timeout, and a recovery after the
submitter was killed. Prints their ids, span counts and services. With --write the
aborted ballot's story goes into FILE as a table. Ends 0 only if every trace is whole
and tells what happened.
"""

import argparse
import collections
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE = 120

STAGES = {
    "vote.receive", "vote.validate", "vote.store", "vote.count", "vote.aggregate",
    "byzantine.check", "threshold.check",
    "submission.lock", "submission.submit", "submission.persist",
}
VOTING = {stage for stage in STAGES if not stage.startswith("submission")}


class Miss(Exception):
    """Something was not as told."""


def check(holds, what):
    if not holds:
        raise Miss(what)


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def tail(path):
    return "\n".join(path.read_text(errors="replace").splitlines()[-10:])


def until(what, look):
    """Waits until `look` gives something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise Miss(f"waited {PATIENCE} s in vain: {what}")


class Jaeger:
    """A Jaeger of this run's own, which keeps its spans in memory."""

    def __init__(self, binary, directory):
        names = (
            "collector.otlp.grpc", "query.http-server", "query.grpc-server", "admin.http",
            "collector.otlp.http", "collector.grpc-server", "collector.http-server",
        )
        ports = dict(zip(names, free_ports(len(names))))
        self.endpoint = f"http://127.0.0.1:{ports['collector.otlp.grpc']}"
        self.url = f"http://127.0.0.1:{ports['query.http-server']}"
        self.log = directory / "jaeger.log"
        flags = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in ports.items()]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [binary, *flags],
                # Or it would trace itself.
                env=os.environ | {"OTEL_TRACES_SAMPLER": "always_off"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def get(self, path):
        """An answer of its API, empty when it knows nothing; None while it is not up."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return json.load(answer)["data"] or []
        except urllib.error.HTTPError:
            # What it answers to the id of a trace that it does not have.
            return []
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def wait(self):
        def up():
            check(self.process.poll() is None, f"Jaeger ended: see {self.log}")
            return self.get("/api/services") is not None
        until("Jaeger to answer", up)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Trace:
    """One trace as Jaeger's API gives it."""

    def __init__(self, data):
        self.id = data["traceID"]
        self.services = {key: p["serviceName"] for key, p in data["processes"].items()}
        self.spans = sorted(data["spans"], key=lambda span: (span["startTime"], span["spanID"]))
        warnings = [w for thing in [data, *self.spans] for w in thing["warnings"] or []]
        # The root is short, and what hangs under it in other services is not: Jaeger
        # takes that for clocks that differ, and says that it does nothing about it.
        ignored = "clock skew adjustment disabled"
        self.warnings = [w for w in warnings if not w.startswith(ignored)]

    def named(self, name):
        return [span for span in self.spans if span["operationName"] == name]

    def names(self):
        return {span["operationName"] for span in self.spans}

    def service(self, span):
        return self.services[span["processID"]]

    def all_services(self):
        return sorted({self.service(span) for span in self.spans})


def tags(thing):
    fields = thing["tags"] if "tags" in thing else thing["fields"]
    return {tag["key"]: tag["value"] for tag in fields}


def parent(span):
    refs = [r["spanID"] for r in span["references"] if r["refType"] == "CHILD_OF"]
    return refs[0] if refs else None


def assert_whole(trace, tx_id):
    """One root, no orphan, no warning of Jaeger's, one transaction."""
    ids = collections.Counter(span["spanID"] for span in trace.spans)
    twice = [span for span, count in ids.items() if count > 1]
    check(not twice, f"{tx_id}: spans that are there twice: {twice}")
    roots = [span for span in trace.spans if parent(span) is None]
    names = [span["operationName"] for span in roots]
    check(names == ["decision"], f"{tx_id}: the roots are {names}")
    orphans = [
        span["operationName"]
        for span in trace.spans
        if parent(span) is not None and parent(span) not in ids
    ]
    check(not orphans, f"{tx_id}: orphans: {orphans}")
    check(not trace.warnings, f"{tx_id}: Jaeger warns: {trace.warnings}")
    others = {tags(s)["quorate.tx_id"] for s in trace.spans} - {tx_id}
    check(not others, f"{tx_id}: spans of {others}")


def end_of(trace):
    return tags(trace.named("decision.closed")[0])["quorate.state"]


def only(trace, name):
    found = trace.named(name)
    check(len(found) == 1, f"{trace.id}: {len(found)} spans {name}")
    return tags(found[0])


class Run:
    def __init__(self, binary, jaeger, directory):
        self.binary, self.jaeger, self.directory = binary, jaeger, directory
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("QUORATE_", "POSTGRES_", "ETCD_")) and name != "RUST_LOG"
        }
        self.env |= {
            "HOME": str(directory),
            "QUORATE_CONFIG": str(directory / "contexts.toml"),
            "QUORATE_DEV_DIR": str(directory / "cluster"),
            "QUORATE_JAEGER_URL": jaeger.url,
            "QUORATE_TELEMETRY_OTLP_ENDPOINT": jaeger.endpoint,
        }

    def quorate(self, *args):
        run = subprocess.run(
            [self.binary, *args], env=self.env, capture_output=True, text=True, timeout=180
        )
        check(run.returncode == 0, f"quorate {' '.join(args)}:\n{run.stdout}{run.stderr}")
        return run.stdout

    def trace_of(self, trace_id, enough):
        """A trace, once it holds what it should."""
        last = []

        def look():
            data = self.jaeger.get(f"/api/traces/{trace_id}")
            last[:] = [Trace(data[0])] if data else []
            return last[0] if last and enough(last[0]) else None

        try:
            return until(f"the trace {trace_id}", look)
        except Miss as miss:
            seen = collections.Counter(
                (span["operationName"], last[0].service(span)) for span in last[0].spans
            ) if last else "nothing"
            raise Miss(f"{miss}\n  it has {seen}") from None

    def told(self, tx_id, enough):
        """The same by what `quorate trace` says."""
        story = json.loads(self.quorate("trace", tx_id, "--json"))
        check(story["jaeger"] == f"{self.jaeger.url}/trace/{story['trace_id']}", story["jaeger"])
        return self.trace_of(story["trace_id"], enough), story


def has(trace, names, each=(), nodes=5):
    """Whether the names are there, and those of `each` from so many nodes."""
    per_node = all(
        len({trace.service(span) for span in trace.named(name)}) >= nodes for name in each
    )
    return set(names) <= trace.names() and per_node


def decision(run):
    run.quorate(
        "vote", "--tx-id", "decided", "--value", "42",
        "--node", "node1,node2,node3,node4", "--wait", "confirmed",
    )
    projected = lambda t: any(
        tags(span)["quorate.step"] == "projected" for span in t.named("submission.persist")
    )
    # All 4 votes on all 5 nodes.
    trace, story = run.told(
        "decided",
        lambda t: has(t, STAGES | {"decision", "decision.closed"})
        and len(t.named("vote.receive")) == 20 and projected(t),
    )
    check(end_of(trace) == "CONFIRMED", end_of(trace))
    check(story["missing"] == ["node5"], story["missing"])
    return trace


def timeout(run):
    # With N - t + 1 votes it has started; then nobody says anything more.
    run.quorate("vote", "--tx-id", "silent", "--value", "7", "--node", "node1,node2")
    stuck, _ = run.told("silent", lambda t: has(t, ["decision", "ballot.waiting"], nodes=1))
    check("decision.closed" not in stuck.names(), "it ended before it was seen to be stuck")
    waits = tags(stuck.named("ballot.waiting")[0])
    check(waits["quorate.missing"] == '["node3","node4","node5"]', waits)
    trace, _ = run.told("silent", lambda t: has(t, VOTING | {"decision.closed"}))
    check(end_of(trace) == "ABORTED_TIMEOUT", end_of(trace))
    return trace


def byzantine(run):
    run.quorate("test-byzantine", "--test-type", "double-vote", "--tx-id", "lied")
    # The liar's own node runs and believes the same log.
    trace, _ = run.told(
        "lied",
        lambda t: has(t, VOTING | {"decision.closed", "member.banned", "stream.closed"})
        and len(t.named("violation")) == 1,
    )
    check(end_of(trace) == "ABORTED_BYZANTINE", end_of(trace))
    violation = only(trace, "violation")
    check(violation["quorate.accused"] == "node5", violation)
    values = {violation["quorate.first_value"], violation["quorate.second_value"]}
    check(len(values) == 2, violation)
    reported = [
        trace.service(span)
        for span in trace.named("vote.receive")
        if tags(span).get("error") and tags(span).get("quorate.reported")
    ]
    check(len(reported) == 1, f"reported by {reported}")
    return trace


def recovery(run):
    told = json.loads(run.quorate("demo", "--scenario", "6", "--json"))
    check(told["holds"], told)

    def found():
        for service in run.jaeger.get("/api/services") or []:
            query = urllib.parse.urlencode(
                {"service": service, "tags": '{"quorate.tx_id":"demo-6"}', "limit": 10}
            )
            for data in run.jaeger.get(f"/api/traces?{query}") or []:
                return data["traceID"]
        return None

    trace_id = until("the trace of demo-6", found)
    # Its last moments died with it: it is not said that it ever sent anything. But the
    # board knows who had the lease, and another node brought the end onto the board.
    trace = run.trace_of(trace_id, lambda t: has(t, VOTING | {"decision.closed", "board.conclude"}))
    closed = trace.named("decision.closed")[0]
    leases = [log for log in closed["logs"] if tags(log)["event"] == "lease taken"]
    check(leases, closed)
    dead = f"quorate-{tags(leases[0])['quorate.submitter']}"
    check(dead not in map(trace.service, trace.named("submission.submit")), f"{dead} lives")
    concluded = [
        trace.service(span) for span in trace.named("board.conclude")
        if tags(span)["quorate.outcome"] == "applied"
    ]
    check(concluded and dead not in concluded, f"{dead} died, {concluded} concluded")
    check(end_of(trace) == "CONFIRMED", end_of(trace))
    return trace


def table(headings, rows):
    widths = [max(len(str(row[i])) for row in [headings, *rows]) for i in range(len(headings))]
    line = lambda row: "  ".join(str(c).ljust(w) for c, w in zip(row, widths)).rstrip()
    return "\n".join([line(headings), line(["-" * w for w in widths]), *map(line, rows)])


def story(trace):
    """An aborted ballot's trace as a table in Markdown: what is in it of each vote on
    each node would be long, so the node's own checks are left out where they found
    nothing."""
    began = min(span["startTime"] for span in trace.named("vote.receive"))
    shown = {
        "decision": [], "ballot.waiting": ["quorate.missing"],
        "vote.receive": ["quorate.voter", "quorate.way", "quorate.from", "quorate.reported"],
        "violation": ["quorate.accused", "quorate.kind", "quorate.first_value",
                      "quorate.second_value", "quorate.revision"],
        "member.banned": ["quorate.accused", "quorate.kind"],
        "stream.closed": ["quorate.peer", "quorate.reason"],
        "board.advance": ["quorate.step", "quorate.outcome"],
        "board.prove_abort": ["quorate.outcome"],
        "decision.closed": ["quorate.state", "quorate.votes", "quorate.voters"],
    }
    lines = ["| after | took | service | span | |", "|---:|---:|---|---|---|"]
    for span in trace.spans:
        name, said = span["operationName"], tags(span)
        if name not in shown:
            continue
        words = [
            f"{key.removeprefix('quorate.')} {said[key]}" for key in shown[name] if key in said
        ]
        if said.get("error"):
            words.append(f"**{said.get('otel.status_description', 'error')}**")
        after = (span["startTime"] - began) / 1000
        took = span["duration"] / 1000
        lines.append(
            f"| {after:.1f} ms | {took:.1f} ms | {trace.service(span)} | `{name}` "
            f"| {', '.join(words)} |"
        )
    return "\n".join(lines) + "\n"


def drive(run):
    """Drives the four, in an order in which none spoils the next."""
    log = run.directory / "dev.log"
    ready = run.directory / "ready.json"
    with open(log, "wb") as out:
        dev = subprocess.Popen(
            [run.binary, "dev", "--processes", "--base-port", "0", "--vote-timeout", "20",
             "--ready-file", ready],
            env=run.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )
    try:
        def up():
            check(dev.poll() is None, f"quorate dev ended: {log.read_text()}")
            return ready.exists()
        until("the cluster to come up", up)
        traces = {name.__name__: name(run) for name in (decision, timeout, byzantine)}
    finally:
        dev.terminate()
        try:
            ended = dev.wait(60)
        except subprocess.TimeoutExpired:
            dev.kill()
            ended = dev.wait()
    check(ended == 0, f"quorate dev ended with {ended}")
    traces["recovery"] = recovery(run)
    # Read once more: by now every node has said all it had to say.
    return {name: run.trace_of(t.id, lambda _: True) for name, t in traces.items()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("binary", type=pathlib.Path)
    arguments.add_argument("jaeger", type=pathlib.Path)
    arguments.add_argument("--write", type=pathlib.Path)
    given = arguments.parse_args()
    # So that a terminated run still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    transactions = {"decision": "decided", "timeout": "silent", "byzantine": "lied",
                    "recovery": "demo-6"}
    with tempfile.TemporaryDirectory(prefix="quorate-trace-") as directory:
        directory = pathlib.Path(directory)
        jaeger = Jaeger(given.jaeger.resolve(), directory)
        try:
            jaeger.wait()
            traces = drive(Run(given.binary.resolve(), jaeger, directory))
            for name, trace in traces.items():
                assert_whole(trace, transactions[name])
        except Miss as miss:
            logs = [jaeger.log, *sorted(directory.glob("cluster/*/node.log"))]
            ends = "".join(f"\n\n{log.name} of {log.parent.name} ends:\n{tail(log)}" for log in logs)
            sys.exit(f"MISS: {miss}{ends}")
        finally:
            jaeger.stop()
    rows = [
        (name, transactions[name], end_of(trace), trace.id, len(trace.spans),
         " ".join(trace.all_services()))
        for name, trace in traces.items()
    ]
    print(table(("what", "transaction", "ended as", "trace id", "spans", "services"), rows))
    if given.write:
        given.write.write_text(story(traces["byzantine"]))
        print(f"\nthe aborted ballot's story: {given.write}")
    print("\ntrace: all four traces are whole and tell what happened")


if __name__ == "__main__":
    main()
