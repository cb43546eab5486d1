"""Drives a dev cluster from outside, with tools that share no code with it.

    run.py BINARY TOOLS

BINARY is the built `quorate`, TOOLS the directory that tools/setup filled. Ends 0
only if every step was as told; on a miss it prints which, and the cluster's log.
"""

import pathlib
import signal
import sys
import tempfile
import time

import with_grpcurl
import with_stubs
from cluster import Cluster, Miss, check

ROOT = pathlib.Path(__file__).resolve().parents[2]


def drive(binary, tools, directory):
    """Starts a cluster, runs both parts on it, and ends it."""
    cluster = Cluster(binary, directory)
    try:
        try:
            cluster.start()
            for name, part in (("grpcurl", with_grpcurl), ("python", with_stubs)):
                started = time.monotonic()
                print(f"\n{name}:", flush=True)
                part.main(cluster, ROOT, tools)
                print(f"  passed in {time.monotonic() - started:.1f} s", flush=True)
        finally:
            ended_well = cluster.stop()
        check(ended_well, "`quorate dev` did not end with 0 in time after SIGTERM")
    except BaseException:
        print(f"\nthe end of the cluster's log:\n{cluster.log_tail()}\n", flush=True)
        raise


def main():
    binary, tools = map(pathlib.Path, sys.argv[1:])
    # So that a terminated run still ends the cluster that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="quorate-interop-") as directory:
        try:
            drive(binary, tools, directory)
        except Miss as miss:
            sys.exit(f"MISS: {miss}")
    print("\ninterop: all passed")


if __name__ == "__main__":
    main()
