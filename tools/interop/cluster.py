"""A dev cluster in a process of its own, for the programs beside this file."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time


class Miss(Exception):
    """Something was not as it must be."""


def check(condition, message):
    """Ends the run with this message unless the condition holds."""
    if not condition:
        raise Miss(message)


@dataclasses.dataclass(frozen=True)
class Node:
    """One node of the ready file."""

    node_id: str
    endpoint: str
    health: str
    cacert: str
    cert: str
    key: str
    vote_key: str


class Cluster:
    """`quorate dev`, from its start to its end.

    Everything it writes lies under `directory`, its contexts file too: the run must
    not touch the one of whoever runs it.
    """

    START_SECONDS = 180
    STOP_SECONDS = 40

    def __init__(self, binary, directory):
        self.binary = pathlib.Path(binary).resolve()
        self.directory = pathlib.Path(directory)
        self.log_path = self.directory / "dev.log"
        self.ready_path = self.directory / "ready.json"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("QUORATE_")
        }
        self.environment["QUORATE_CONFIG"] = str(self.directory / "contexts.toml")
        self.process = None
        self.nodes = []
        self.cluster_id = ""

    def start(self, *more):
        """Starts it, with more arguments if there are any, and waits for its ready file."""
        command = [
            self.binary,
            "dev",
            "--nodes",
            "5",
            "--threshold",
            "4",
            "--data-dir",
            self.directory / "data",
            "--base-port",
            "0",
            # Short, to see a ballot closed for good; long enough for the votes of all
            # others on a slow machine.
            "--vote-timeout",
            "30",
            "--ready-file",
            self.ready_path,
            *more,
        ]
        print("starting:", " ".join(map(str, command)), flush=True)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )
        ready = self._wait_for_ready_file()
        self.cluster_id = ready["cluster_id"]
        fields = [field.name for field in dataclasses.fields(Node)]
        self.nodes = [Node(**{name: node[name] for name in fields}) for node in ready["nodes"]]
        check(len(self.nodes) == 5, f"the ready file names {len(self.nodes)} nodes, not 5")

    def _wait_for_ready_file(self):
        give_up = time.monotonic() + self.START_SECONDS
        while time.monotonic() < give_up:
            status = self.process.poll()
            check(status is None, f"`quorate dev` ended by itself with {status}")
            try:
                return json.loads(self.ready_path.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.05)
        raise Miss(f"`quorate dev` wrote no ready file within {self.START_SECONDS} s")

    def quorate(self, *arguments, seconds=60):
        """Runs the binary once and gives what it printed."""
        return run([self.binary, *arguments], seconds=seconds, env=self.environment)

    def stop(self):
        """Ends it with SIGTERM; true if it ended well and in time."""
        if self.process is None:
            return True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=self.STOP_SECONDS) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False

    def log_tail(self, lines=80):
        """The end of what it printed."""
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


def run(command, seconds=30, env=None, expect=0):
    """Runs a command to its end and gives its output (both streams on a miss)."""
    shown = " ".join(map(str, command))
    try:
        done = subprocess.run(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=env,
        )
    except subprocess.TimeoutExpired as late:
        raise Miss(f"took longer than {seconds} s: {shown}") from late
    if expect is not None and done.returncode != expect:
        raise Miss(
            f"ended with {done.returncode}, not {expect}: {shown}\n{done.stdout}{done.stderr}"
        )
    return done
