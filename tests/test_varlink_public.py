"""The control socket as other programs use it: the public Python package `varlink`, unchanged, against a live agent."""

from __future__ import annotations

import warnings

import pytest
from tests.live_agent import SOON, agent

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    varlink = pytest.importorskip("varlink")

MICE = "version: 1\nrules: [{name: mice, match: {kind: mouse}, attach: kiosk}]\n"
NONE = "version: 1\nrules: [{name: other, match: {device: 1234:5678}, attach: desk}]\n"


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with agent(tmp_path_factory.mktemp("v"), MICE) as running:
        yield running


@pytest.fixture
def client(live):
    with varlink.Client(f"unix:{live.socket}") as made:
        yield made


@pytest.fixture
def xenplug(client):
    with client.open("org.xenplug", namespaced=False) as connection:
        yield connection


def test_the_service_describes_itself(client):
    with client.open("org.varlink.service") as service:
        info = service.GetInfo()
    assert (info["vendor"], info["product"]) == ("xenplug", "xenplug")
    assert info["interfaces"] == ["org.varlink.service", "org.xenplug"]
    assert client.get_interface("org.xenplug").name == "org.xenplug"


def test_every_method_is_described(client):
    """The client parses the description itself."""
    found = client.get_interface("org.xenplug")
    methods = {name for name, member in found.members.items() if type(member).__name__ == "_Method"}
    assert {"Status", "Devices", "Explain", "Attach", "Detach", "Release", "Reload", "Monitor", "History"} <= methods
    assert {"Refused", "InternalError"} <= set(found.members)


def test_calls(xenplug):
    assert xenplug.Status()["status"]["policy"]["loaded"]
    assert {d["port"] for d in xenplug.Devices()["devices"]} >= {"1-1", "1-6"}
    assert xenplug.Explain("1-1")["explanation"]["decision"]["rule"] == "mice"
    assert "attached to kiosk" in xenplug.Attach("1-6", "kiosk")["message"]
    assert "stays with the host" in xenplug.Detach("1-6")["message"]
    assert xenplug.Release(device="1-6")["message"]
    assert xenplug.Reload() == {"message": "policy in force: 1 rule", "problems": []}


def test_a_refusal_is_an_error_with_its_parameters(xenplug):
    with pytest.raises(varlink.VarlinkError) as refused:
        xenplug.Attach("1-2", "kiosk")
    assert refused.value.error() == "org.xenplug.Refused"
    assert refused.value.parameters()["cause"] == "protected"
    with pytest.raises(varlink.VarlinkError) as wrong:
        xenplug.Attach("1-6", 5)
    assert wrong.value.error().endswith("InvalidParameter")


def test_monitor_streams_each_change(live, client, xenplug):
    statuses = iter(xenplug.Monitor(_more=True))
    seen = next(statuses)["status"]
    assert seen["policy"]["loaded"]
    live.policy.write_text(NONE)
    with client.open("org.xenplug") as other:
        other.Reload()
    for _ in range(int(SOON)):
        seen = next(statuses)["status"]
        if {g["name"] for g in seen["guests"]} == {"desk", "kiosk"}:
            break
    assert {g["name"] for g in seen["guests"]} == {"desk", "kiosk"}


def test_history_streams_what_happened(xenplug):
    """Without `follow` the stream ends by itself; for one device it has only that device's events."""
    replies = list(xenplug.History(device="1-1", follow=False, _more=True))
    events = [reply["event"] for reply in replies if reply.get("event")]
    assert events
    assert {event["port"] for event in events} == {"1-1"}
    assert any("attached to kiosk" in event["line"] for event in events)


def test_history_follows(live, client, xenplug):
    """With `follow` it continues: an order from another connection arrives as an event."""
    events = iter(xenplug.History(device="1-6", follow=True, _more=True))
    with client.open("org.xenplug") as other:
        other.Attach("1-6", "kiosk")
        seen = next(reply["event"] for reply in events if "attached to kiosk, controller" in reply["event"]["line"])
        assert (seen["port"], seen["state"], seen["guest"]) == ("1-6", "attached", "kiosk")
        other.Release("1-6")
