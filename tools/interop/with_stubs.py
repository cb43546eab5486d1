"""A client in another language: stubs by grpcio-tools, signatures by `cryptography`.

It knows the API from the proto files and docs/protocol.md alone.
"""

import pathlib
import subprocess
import sys
import time

import blake3
import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cluster import check, run

SECONDS = 30
# What a watch waits for at most: a ballot's deadline is among it.
WATCH_SECONDS = 120
BY_NODE = "interop-python-by-node"
BY_CLIENT = "interop-python-by-client"
TIMED_OUT = "interop-python-timed-out"
PACKAGE = "quorate/v1"


class Api:
    """The generated modules."""

    def __init__(self, root, directory):
        out = directory / "stubs"
        out.mkdir()
        protos = sorted((root / "proto" / PACKAGE).glob("*.proto"))
        include = f"--proto_path={root / 'proto'}"
        outputs = [f"--python_out={out}", f"--grpc_python_out={out}"]
        run([sys.executable, "-m", "grpc_tools.protoc", include, *outputs, *protos], seconds=60)
        sys.path.insert(0, str(out))
        from quorate.v1 import (
            board_pb2,
            proof_pb2,
            rules_pb2,
            statement_pb2,
            vote_service_pb2,
            vote_service_pb2_grpc,
        )

        self.board = board_pb2
        self.proof = proof_pb2
        self.rules = rules_pb2
        self.statement = statement_pb2
        self.service = vote_service_pb2
        self.stubs = vote_service_pb2_grpc


class Trustee:
    """One trustee's client: a channel to its node, and its vote key."""

    def __init__(self, api, node):
        self.api = api
        self.node_id = node.node_id
        # Host names are checked: nothing here says otherwise.
        credentials = grpc.ssl_channel_credentials(
            root_certificates=read(node.cacert),
            private_key=read(node.key),
            certificate_chain=read(node.cert),
        )
        self.channel = grpc.secure_channel(node.endpoint, credentials)
        self.stub = api.stubs.VoteServiceStub(self.channel)
        self.vote_key = load_pem_private_key(read(node.vote_key), password=None)
        check(isinstance(self.vote_key, Ed25519PrivateKey), f"{node.vote_key} is no Ed25519 key")
        rules = self.stub.GetRules(api.service.GetRulesRequest(), timeout=SECONDS)
        self.cluster_id = rules.cluster_id
        self.rules_digest = rules.rules_digest
        self.rules = rules
        self.clock_ms = rules.server_time_ms - int(time.time() * 1000)

    def submit(self, tx_id, wait="WAIT_FOR_RECORDED", **vote):
        """Hands a vote to the node."""
        request = self.api.service.SubmitRequest(tx_id=tx_id, wait=wait, **vote)
        return self.stub.Submit(request, timeout=SECONDS)

    def statement(self, tx_id, **choice):
        """A vote signed here: the node never sees the key."""
        statement = self.api.statement.VoteStatement(
            cluster_id=self.cluster_id,
            rules_digest=self.rules_digest,
            tx_id=tx_id,
            node_id=self.node_id,
            choice=self.api.statement.Choice(**choice),
            time_ms=int(time.time() * 1000) + self.clock_ms,
        ).SerializeToString(deterministic=True)
        signature = self.vote_key.sign(b"quorate.vote.v1\0" + statement)
        return self.api.statement.SignedStatement(statement=statement, signature=signature)


def read(path):
    return pathlib.Path(path).read_bytes()


def main(cluster, root, _tools):
    """Raises `Miss` at the first step that is not as it must be."""
    api = Api(root, cluster.directory)
    print("  stubs made by grpcio-tools")
    trustees = [Trustee(api, node) for node in cluster.nodes]
    try:
        rules(api, trustees, cluster)
        # So many start a ballot's deadline, and are too few to decide it.
        for trustee in trustees[:2]:
            trustee.submit(TIMED_OUT, number=1)
        signed_by_nodes(api, trustees)
        signed_by_clients(api, trustees)
        errors(api, trustees)
        proof_is_verified_offline(api, trustees[0], cluster)
    finally:
        for trustee in trustees:
            trustee.channel.close()


def rules(api, trustees, cluster):
    first = trustees[0]
    document = first.rules.rules.links[0].document
    digest = blake3.blake3(b"quorate.rules.v1\0" + document).digest()
    check(digest == first.cluster_id, "the genesis digest is not the cluster id")
    check(digest.hex() == cluster.cluster_id.lower(), "GetRules speaks of another cluster")
    genesis = api.rules.RulesDocument.FromString(document)
    records = [api.rules.MemberRecord.FromString(m.record) for m in genesis.members]
    keys = {record.node_id: record.vote_key for record in records}
    for trustee in trustees:
        public = trustee.vote_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        check(keys[trustee.node_id] == public, f"{trustee.node_id} has another vote key")
        check(trustee.rules.peer_id == blake3.blake3(public).digest(), "another peer_id")
    print("  GetRules: the cluster id is the digest of the genesis, the vote keys are in it")


def signed_by_nodes(api, trustees):
    threshold = trustees[0].rules.summary.threshold
    for number, trustee in enumerate(trustees[:threshold], start=1):
        wait = "WAIT_FOR_RECORDED" if number < threshold else "WAIT_FOR_CONFIRMED"
        ballot = trustee.submit(BY_NODE, wait, number=2**64 - 1).ballot
    check(ballot.state == api.board.BALLOT_STATE_CONFIRMED, f"not confirmed: {ballot}")
    check(ballot.value.number == 2**64 - 1, f"another value: {ballot.value}")
    check(len(ballot.trustees) == len(trustees), f"missing trustees: {ballot.trustees}")
    print(f"  Submit on the first {threshold} nodes, signed by them: CONFIRMED")
    answer = trustees[-1].submit(BY_NODE, "WAIT_FOR_CONFIRMED", number=2**64 - 1)
    check(answer.ballot.state == api.board.BALLOT_STATE_CONFIRMED, f"not confirmed: {answer}")
    standing = answer.ballot.trustees[-1].standing
    check(standing == api.service.STANDING_LATE, f"the last vote is not late: {answer}")
    print("  Submit on the last node after the end: recorded as late")
    states = watch(api, trustees[-1], BY_NODE, end="CONFIRMED")
    expected = ["COLLECTING", "THRESHOLD_REACHED", "SUBMITTED", "CONFIRMED"]
    check(states == expected, f"Watch saw {states}")
    print(f"  Watch: {' → '.join(states)}")


def watch(api, trustee, tx_id, end):
    """The states that a ballot went through, up to the last one."""
    states = []
    stream = trustee.stub.Watch(api.service.WatchRequest(tx_id=tx_id), timeout=WATCH_SECONDS)
    for answer in stream:
        check(answer.event.tx_id == tx_id, f"Watch shows another transaction: {answer}")
        if answer.event.WhichOneof("event") == "state_changed":
            state = api.board.BallotState.Name(answer.event.state_changed.to)
            states.append(state.removeprefix("BALLOT_STATE_"))
            if states[-1] == end:
                stream.cancel()
                break
    return states


def signed_by_clients(api, trustees):
    threshold = trustees[0].rules.summary.threshold
    value = {"data": b"\x00release 1.0\xff"}
    # The last ones: together with the ballot before, every node takes a vote.
    for number, trustee in enumerate(trustees[-threshold:], start=1):
        vote = trustee.statement(BY_CLIENT, **value)
        wait = "WAIT_FOR_RECORDED" if number < threshold else "WAIT_FOR_CONFIRMED"
        answer = trustee.submit("", wait, statement=vote)
        check(answer.vote == vote, f"{trustee.node_id} recorded another vote than it was given")
    check(answer.ballot.state == api.board.BALLOT_STATE_CONFIRMED, f"not confirmed: {answer}")
    check(answer.ballot.value.data == value["data"], f"another value: {answer.ballot.value}")
    print(f"  Submit on the last {threshold} nodes, signed here: CONFIRMED")


def errors(api, trustees):
    first, second = trustees[:2]
    code, details = refusal(lambda: first.submit("not a tx id!", number=1))
    check(code == grpc.StatusCode.INVALID_ARGUMENT, f"a bad tx_id: {code}")
    fields = [violation.field for violation in details[error_details_pb2.BadRequest].field_violations]
    check(fields == ["tx_id"], f"BadRequest names {fields}")
    print(f"  error: {reason(details)} with BadRequest for {fields[0]}")

    code, details = refusal(lambda: first.submit(BY_NODE, number=7))
    check(code == grpc.StatusCode.FAILED_PRECONDITION, f"a second value: {code}")
    check(reason(details) == "SECOND_CHOICE", f"a second value: {details}")
    print(f"  error: {reason(details)} for a second value")

    states = watch(api, trustees[-1], TIMED_OUT, end="ABORTED_TIMEOUT")
    check(states == ["COLLECTING", "ABORTED_TIMEOUT"], f"Watch saw {states}")
    code, details = refusal(lambda: trustees[-1].submit(TIMED_OUT, number=1))
    check(code == grpc.StatusCode.FAILED_PRECONDITION, f"a finished ballot: {code}")
    check(reason(details) == "BALLOT_CLOSED", f"a finished ballot: {details}")
    print(f"  error: {reason(details)} for a first vote after the deadline")

    forged = first.statement("interop-python-forged", number=1)
    forged.signature = bytes(64)
    code, details = refusal(lambda: first.submit("", statement=forged))
    check(code == grpc.StatusCode.INVALID_ARGUMENT, f"a forged signature: {code}")
    check(reason(details) == "BAD_SIGNATURE", f"a forged signature: {details}")
    print(f"  error: {reason(details)} for a forged signature")

    foreign = second.statement("interop-python-foreign", number=1)
    code, details = refusal(lambda: first.submit("", statement=foreign))
    check(reason(details) == "OTHER_TRUSTEE", f"another trustee's vote: {details}")
    print(f"  error: {reason(details)} for another trustee's vote")

    request = api.service.StatusRequest(tx_id="interop-python-forged")
    code, _ = refusal(lambda: first.stub.Status(request, timeout=SECONDS))
    check(code == grpc.StatusCode.NOT_FOUND, f"a refused vote left a ballot: {code}")


def refusal(call):
    """The code and the details, by type, of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        check(status is not None, f"no details: {error}")
        details = {}
        for packed in status.details:
            for kind in (
                error_details_pb2.ErrorInfo,
                error_details_pb2.BadRequest,
                error_details_pb2.RetryInfo,
            ):
                if packed.Is(kind.DESCRIPTOR):
                    details[kind] = kind.FromString(packed.value)
        check(error_details_pb2.ErrorInfo in details, f"no ErrorInfo: {status}")
        return error.code(), details
    check(False, f"this must be refused: {answer}")


def reason(details):
    info = details[error_details_pb2.ErrorInfo]
    check(info.domain == "quorate.dev", f"ErrorInfo of domain {info.domain}")
    return info.reason


def proof_is_verified_offline(api, trustee, cluster):
    # Another node told of its end.
    watch(api, trustee, BY_CLIENT, end="CONFIRMED")
    request = api.service.GetCertificateRequest(tx_id=BY_CLIENT)
    proof = trustee.stub.GetCertificate(request, timeout=SECONDS).proof
    check(proof.WhichOneof("kind") == "certificate", f"no certificate: {proof}")
    path = cluster.directory / "proof.bin"
    path.write_bytes(proof.SerializeToString(deterministic=True))
    cluster.quorate("verify", path, "--cluster-id", cluster.cluster_id)
    broken = bytearray(path.read_bytes())
    broken[len(broken) // 2] ^= 1
    path.write_bytes(broken)
    done = subprocess.run(
        [cluster.binary, "verify", path, "--cluster-id", cluster.cluster_id],
        capture_output=True,
        timeout=SECONDS,
        env=cluster.environment,
    )
    check(done.returncode != 0, "quorate verify took a broken proof")
    print("  GetCertificate: `quorate verify` takes the proof, and not with one bit changed")
