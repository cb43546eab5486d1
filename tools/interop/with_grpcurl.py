"""What a person does with grpcurl, checked: reflection, health, votes, the ledger.

Every call shows its client certificate and checks the node's host name.
"""

import base64
import json
import subprocess
import threading

from cluster import Miss, check, run

SERVICE = "quorate.v1.VoteService"
TX_ID = "interop-grpcurl"
VALUE = "42"


class Grpcurl:
    """grpcurl with the certificates of one node's client."""

    def __init__(self, tools, node):
        self.binary = tools / "bin" / "grpcurl"
        self.node = node
        self.identity = ["-cacert", node.cacert, "-cert", node.cert, "-key", node.key]

    def command(self, *arguments, identity=None, data=None, options=()):
        """The whole command line; `arguments` come after the address."""
        sent = [] if data is None else ["-d", json.dumps(data)]
        return [
            self.binary,
            "-connect-timeout",
            "10",
            "-max-time",
            "30",
            *(self.identity if identity is None else identity),
            *options,
            *sent,
            self.node.endpoint,
            *arguments,
        ]

    def text(self, *arguments):
        """What it prints."""
        return run(self.command(*arguments), seconds=40).stdout

    def call(self, method, data=None, options=()):
        """The one answer of a call."""
        command = self.command(f"{SERVICE}/{method}", data=data or {}, options=options)
        return json.loads(run(command, seconds=40).stdout)

    def refused(self, method, data, options=(), identity=None):
        """What it prints when a call must not succeed."""
        command = self.command(
            f"{SERVICE}/{method}", data=data, options=options, identity=identity
        )
        done = run(command, seconds=40, expect=None)
        check(done.returncode != 0, f"this must not succeed: {' '.join(map(str, command))}")
        return done.stdout + done.stderr


class Watch:
    """A Watch in the background that keeps every event it sees."""

    def __init__(self, grpcurl, tx_id, until):
        self.until = until
        self.states = []
        self.votes = []
        self.seen = threading.Event()
        self.process = subprocess.Popen(
            list(map(str, grpcurl.command(f"{SERVICE}/Watch", data={"tx_id": tx_id}))),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        decoder = json.JSONDecoder()
        pending = ""
        for line in self.process.stdout:
            pending += line
            try:
                answer, end = decoder.raw_decode(pending.lstrip())
            except json.JSONDecodeError:
                continue
            pending = pending.lstrip()[end:]
            event = answer["event"]
            if "stateChanged" in event:
                self.states.append(event["stateChanged"]["to"])
            if "voteRecorded" in event:
                self.votes.append(event["voteRecorded"]["nodeId"])
            if self.states and self.states[-1] == self.until:
                self.seen.set()

    def finish(self, seconds):
        """Waits for the last state, then ends the call."""
        seen = self.seen.wait(seconds)
        self.process.kill()
        self.process.wait()
        self.reader.join(5)
        check(seen, f"Watch saw {self.states} and not {self.until} within {seconds} s")


def main(cluster, root, tools):
    """Raises `Miss` at the first step that is not as it must be."""
    clients = [Grpcurl(tools, node) for node in cluster.nodes]
    first = clients[0]
    reflection_and_health(first)
    threshold = rules(first, cluster)
    strangers_are_refused(first, clients[1])
    to_confirmed(clients, threshold)
    ledger(clients[1], threshold)
    by_descriptor_set(clients[2], root, tools, cluster.directory)
    errors(first)


def reflection_and_health(grpcurl):
    services = grpcurl.text("list").split()
    for name in (SERVICE, "grpc.health.v1.Health"):
        check(name in services, f"list does not show {name}: {services}")
    described = grpcurl.text("describe", SERVICE)
    for method in ("Exchange", "Submit", "Status", "Watch", "List", "GetCertificate", "GetRules"):
        check(f"rpc {method} " in described, f"describe does not show {method}:\n{described}")
    check(
        "TrusteeStanding trustees" in grpcurl.text("describe", "quorate.v1.Ballot"),
        "describe does not show the ballot's trustees",
    )
    print("  list and describe: reflection answers")
    health = json.loads(grpcurl.text("grpc.health.v1.Health/Check"))
    check(health.get("status") == "SERVING", f"health is {health}")
    print("  health: SERVING")


def rules(grpcurl, cluster):
    answer = grpcurl.call("GetRules")
    cluster_id = base64.b64decode(answer["clusterId"]).hex()
    check(
        cluster_id == cluster.cluster_id.lower(),
        f"GetRules says cluster {cluster_id}, the ready file {cluster.cluster_id}",
    )
    check(answer["nodeId"] == grpcurl.node.node_id, f"another node answers: {answer['nodeId']}")
    print(f"  GetRules: cluster {cluster_id[:16]}…, t = {answer['summary']['threshold']}")
    return answer["summary"]["threshold"]


def strangers_are_refused(grpcurl, other):
    vote = {"tx_id": TX_ID, "number": VALUE}
    without = grpcurl.refused("Submit", vote, identity=["-cacert", grpcurl.node.cacert])
    check("TLS" in without or "tls" in without or "certificate" in without, without)
    wrong_name = grpcurl.refused("Submit", vote, options=["-authority", "stranger.example"])
    check("certificate is valid for" in wrong_name, f"the host name was not checked: {wrong_name}")
    grpcurl.refused("Submit", vote, identity=other.identity)
    print("  refused: no certificate, another host name, the client of another node")


def to_confirmed(clients, threshold):
    watch = Watch(clients[0], TX_ID, "BALLOT_STATE_CONFIRMED")
    vote = {"tx_id": TX_ID, "number": VALUE, "wait": "WAIT_FOR_RECORDED"}
    try:
        for client in clients[: threshold - 1]:
            ballot = client.call("Submit", vote)["ballot"]
            check(ballot["state"] == "BALLOT_STATE_COLLECTING", f"too early: {ballot}")
        vote["wait"] = "WAIT_FOR_CONFIRMED"
        ballot = clients[threshold - 1].call("Submit", vote)["ballot"]
        check(ballot["state"] == "BALLOT_STATE_CONFIRMED", f"not confirmed: {ballot}")
    except Miss:
        watch.process.kill()
        raise
    watch.finish(30)
    voters = {client.node.node_id for client in clients[:threshold]}
    check(set(watch.votes) == voters, f"Watch saw the votes of {watch.votes}, not of {voters}")
    print(f"  Submit on {threshold} nodes: CONFIRMED")
    passed = " → ".join(state.removeprefix("BALLOT_STATE_") for state in watch.states)
    print(f"  Watch: {len(watch.votes)} votes, {passed}")
    again = clients[0].call("Submit", vote)
    check(again.get("repeated") is True, f"a repeated vote is not shown as such: {again}")
    print("  Submit again: the same answer, no effect")


def ledger(grpcurl, threshold):
    # It hears of the end in its own time.
    Watch(grpcurl, TX_ID, "BALLOT_STATE_CONFIRMED").finish(30)
    ballot = grpcurl.call("Status", {"tx_id": TX_ID})["ballot"]
    check(ballot["state"] == "BALLOT_STATE_CONFIRMED", f"Status: {ballot['state']}")
    check(ballot["tally"] == [{"value": {"number": VALUE}, "count": threshold}], ballot["tally"])
    check(ballot["submission"]["txHash"], "Status shows no transaction hash")
    check(ballot["submission"]["certified"] is True, "the certificate is not on the board")
    standings = {trustee["nodeId"]: trustee["standing"] for trustee in ballot["trustees"]}
    agreed = [name for name, standing in standings.items() if standing == "STANDING_AGREED"]
    check(len(standings) == 5 and len(agreed) == threshold, f"standings: {standings}")
    answer = grpcurl.call("GetCertificate", {"tx_id": TX_ID})
    check("certificate" in answer["proof"], f"no certificate: {answer}")
    listed = grpcurl.call("List", {"states": ["BALLOT_STATE_CONFIRMED"]})["ballots"]
    check(TX_ID in [ballot["txId"] for ballot in listed], f"List does not show it: {listed}")
    print("  Status, List, GetCertificate: another node tells the same")


def by_descriptor_set(grpcurl, root, tools, directory):
    descriptors = directory / "quorate.binpb"
    run([tools / "bin" / "buf", "build", root, "-o", descriptors], seconds=60)
    ballot = grpcurl.call("Status", {"tx_id": TX_ID}, options=["-protoset", descriptors])["ballot"]
    check(ballot["txId"] == TX_ID, f"by descriptor set: {ballot}")
    print("  by descriptor set instead of reflection: the same")


def errors(grpcurl):
    other = grpcurl.refused("Submit", {"tx_id": TX_ID, "number": "43"})
    check("FailedPrecondition" in other and "google.rpc.ErrorInfo" in other, other)
    unknown = grpcurl.refused("Status", {"tx_id": "no-such-transaction"})
    check("NotFound" in unknown and "google.rpc.ErrorInfo" in unknown, unknown)
    print("  errors: FailedPrecondition for a second value, NotFound, both with details")
