"""Lets a real Prometheus scrape a dev cluster, and asks it what the dashboards and the
alerts ask.

    run.py BINARY TOOLS

BINARY is the built `quorate`, TOOLS the directory that tools/setup filled. On the
cluster a transaction is decided, one is aborted by a liar, and a second choice is
refused. Ends 0 only if every query is understood and gives series, but for those that
ask for what has not happened (EMPTY).
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/interop"))

from cluster import Cluster, Miss, check  # noqa: E402

SECONDS = 120

# Panels that show what does not happen here, or only compares greater than nothing.
EMPTY = {
    "Calls that failed",
    "Operations that failed",
    "Handshakes refused",
    "Streams that came up again",
    "Why not",
}


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Prometheus:
    """A server of its own, with the rules of this repository."""

    def __init__(self, binary, directory, nodes):
        self.port = free_port()
        self.log_path = directory / "prometheus.log"
        targets = directory / "targets.json"
        targets.write_text(json.dumps([{"targets": [node.health for node in nodes]}]))
        config = (ROOT / "docker/prometheus/prometheus.yml").read_text()
        for old, new in (
            ("alerts.yml", str(ROOT / "docker/prometheus/alerts.yml")),
            ("targets/*.yml", str(targets)),
            ("scrape_interval: 5s", "scrape_interval: 1s"),
            ("evaluation_interval: 5s", "evaluation_interval: 1s"),
        ):
            check(config.count(old) >= 1, f"prometheus.yml has no {old}")
            # The comment at the top names the targets, too.
            head, rest = config.split("global:", 1)
            config = head + "global:" + rest.replace(old, new)
        path = directory / "prometheus.yml"
        path.write_text(config)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={path}",
                    f"--storage.tsdb.path={directory / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path, **parameters):
        """The data of an answer; none while it does not answer."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                # It listens before it is ready.
                return None
            raise Miss(f"{parameters}: {error.read().decode()}") from error
        except (urllib.error.URLError, ConnectionError):
            return None

    def series(self, query):
        """How many series a query gives now."""
        data = self.ask("query", query=query)
        check(data is not None, "prometheus does not answer any more")
        return len(data["result"])

    def stop(self):
        """Ends it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def until(what, true):
    """Asks again and again, and gives up in the end."""
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        if true():
            return
        time.sleep(0.2)
    raise Miss(f"waited in vain: {what}")


def panels(dashboard):
    """Title and queries of every panel."""
    for panel in dashboard["panels"]:
        queries = [target["expr"] for target in panel.get("targets", [])]
        if queries:
            yield panel["title"], queries


def rules():
    """Name and expression of every alert."""
    text = (ROOT / "docker/prometheus/alerts.yml").read_text()
    return re.findall(r"- alert: (\w+)", text)


def drive(cluster, prometheus):
    """Lets things happen, and looks at them through Prometheus."""
    until("prometheus", lambda: prometheus.ask("query", query="up") is not None)
    nodes = len(cluster.nodes)
    until("all nodes scraped", lambda: prometheus.series("quorate_ready == 1") == nodes)
    names = ",".join(node.node_id for node in cluster.nodes)
    for tx_id in ("first", "second"):
        cluster.quorate(
            "vote", "--tx-id", tx_id, "--value", "42", "--node", names, "--wait", "confirmed"
        )
        # Prometheus sees an increase between two scrapes only.
        seen = f'min(quorate_ballots{{state="CONFIRMED"}}) >= {1 if tx_id == "first" else 2}'
        until(f"{tx_id} is scraped", lambda: prometheus.series(seen) == 1)
    other = [cluster.binary, "vote", "--tx-id", "first", "--value", "43", "--node", "node1"]
    refused = subprocess.run(other, env=cluster.environment, capture_output=True, check=False)
    check(refused.returncode != 0, "a second choice was not refused")
    data = str(cluster.directory / "data")
    cluster.quorate("test-byzantine", "--test-type", "minority", "--data-dir", data, seconds=90)
    aborted = "min(quorate_transactions_aborted_byzantine_total) >= 1"
    until("the abort is scraped", lambda: prometheus.series(aborted) == 1)
    firing = 'ALERTS{alertname="QuorateTransactionAborted",alertstate="firing"}'
    until("the alert of the abort", lambda: prometheus.series(firing) == 1)
    until("the rows are counted", lambda: prometheus.series("quorate_postgres_archived_submissions") > 0)

    asked = 0
    for path in sorted((ROOT / "docker/grafana/dashboards").glob("*.json")):
        total = 0
        for title, queries in panels(json.loads(path.read_text())):
            queries = [
                query.replace("$instance", ".*").replace("$__rate_interval", "1m")
                for query in queries
            ]
            seen = lambda: sum(map(prometheus.series, queries))
            asked += len(queries)
            if title not in EMPTY:
                # A rate needs two scrapes, which may be to come.
                until(f"something to see in {path.name}: {title}", seen)
            total += seen()
        print(f"  {path.name}: {total} series", flush=True)

    groups = prometheus.ask("rules")["groups"]
    loaded = {rule["name"]: rule for group in groups for rule in group["rules"]}
    check(sorted(loaded) == sorted(rules()), "not all alerts were loaded")
    bad = [name for name, rule in loaded.items() if rule["health"] == "err"]
    check(not bad, f"rules that fail: {bad}")
    firing = sorted(name for name, rule in loaded.items() if rule["state"] == "firing")
    print(f"  {asked} queries understood, {len(loaded)} alerts loaded; firing: {', '.join(firing)}")


def main():
    binary, tools = map(pathlib.Path, sys.argv[1:])
    server = tools.resolve() / "bin/prometheus"
    server = server if server.exists() else "prometheus"
    # dev finds etcd there.
    os.environ["PATH"] = f"{tools.resolve() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # So that a terminated run still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="quorate-scrape-") as directory:
        cluster = Cluster(binary, directory)
        prometheus = None
        try:
            cluster.start("--etcd")
            prometheus = Prometheus(server, pathlib.Path(directory), cluster.nodes)
            drive(cluster, prometheus)
        except Miss as miss:
            print(f"\nthe end of the cluster's log:\n{cluster.log_tail()}\n", flush=True)
            if prometheus is not None:
                print(prometheus.log_path.read_text(errors="replace")[-4000:], flush=True)
            sys.exit(f"MISS: {miss}")
        finally:
            if prometheus is not None:
                prometheus.stop()
            cluster.stop()
    print("scrape: all passed")


if __name__ == "__main__":
    main()
