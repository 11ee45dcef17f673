"""The agent's control socket in dom0 as a socket here, forwarded over the existing ssh connection: reading the status
takes 30 ms, while `xenplug status` in dom0 needs a second or two to start Python.
"""

import subprocess
from collections.abc import Mapping
from typing import Any

from labkit.config import RUN, LabError
from labkit.lab import Lab
from labkit.ssh import ssh_words
from labkit.waiting import wait_until
from xenplug.adapters.client import Client, ClientError

LOCAL, THERE = RUN / "control.sock", "/run/xenplug/control.sock"


def forward(lab: Lab) -> Client:
    """Forwards again (a restored machine has lost it); returns a client of the agent that runs there, now or later."""
    _ssh(lab, "cancel")
    LOCAL.unlink(missing_ok=True)
    done = _ssh(lab, "forward")
    if done.returncode:
        raise LabError(f"forwarding the agent's socket: {done.stderr.strip()}")
    return Client(LOCAL, 20)


def start(lab: Lab, policy: str) -> Client:
    """Installs xenplug in dom0 and starts the agent with this policy; returns when it answers."""
    lab.install()
    lab.policy(policy)
    lab.must("systemctl restart xenplug", 90)
    client = forward(lab)
    wait_until(lambda: answers(client), 60, "the agent's answer")
    return client


def answers(client: Client) -> bool:
    """Whether an agent runs and answers."""
    try:
        return bool(client.call("Status"))
    except ClientError:
        return False


def devices(client: Client) -> list[Mapping[str, Any]]:
    """The devices of the agent's status; none while it does not answer."""
    try:
        found: list[Mapping[str, Any]] = client.call("Status")["status"]["devices"]
    except ClientError:
        return []
    return found


def _ssh(lab: Lab, what: str) -> subprocess.CompletedProcess[str]:
    words = ssh_words(lab.machine, "-O", what, "-L", f"{LOCAL}:{THERE}")
    return subprocess.run(words, capture_output=True, text=True)
