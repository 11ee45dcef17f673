"""SECURITY.md, row by row: what an attacker tries is played, or the test that plays it is named.

A row of the tables "it tries | what holds" and "it chooses | it gains" must be in PLAYED. A scenario is played here, on
the simulated host. The other tests are named, must exist, and run where they are. No row without either.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from xenplug.cli.scenarios import read
from xenplug.scenario.simulated_floor import play

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "SECURITY.md"
TABLES = ("| it tries | what holds |", "| it chooses | it gains | what holds |")

PLAYED: Mapping[str, tuple[str, ...]] = {
    # a device
    "to pass for another device": (
        "policies/tests/kiosk-refuses.yaml",
        "policies/tests/kiosk-liars.yaml",
    ),
    "to hide an interface in malformed descriptors": (
        "core/usb/test_descriptors_kernel.py::test_wrong_descriptors_hide_no_interface",
        "core/usb/test_descriptors_kernel.py::test_random_bytes_hide_no_interface",
        "core/usb/test_device.py::test_unreadable_descriptors_are_an_interface_without_class",
    ),
    "to be let in as a hub": (
        "tests/scenarios/partly-hub-blocked.yaml",
        "tests/scenarios/partly-hub-never-alone.yaml",
        "core/usb/test_device.py::test_a_hub_has_no_other_function",
    ),
    "to be let in as a device that `protect` names": (
        "tests/scenarios/protect-by-words.yaml",
        "core/planning/test_precedence.py::test_what_may_be_in_a_protected_place_goes_nowhere",
    ),
    "to fall to dom0": (
        "tests/scenarios/kept-from-dom0-idle-block.yaml",
        "tests/scenarios/kept-from-dom0-no-room.yaml",
        "tests/scenarios/kept-from-dom0-default-block.yaml",
        "engine/test_hostile_devices.py::Liars",
    ),
    "to become dom0's last keyboard": (
        "tests/scenarios/last-keyboard-liar.yaml",
        "tests/scenarios/last-keyboard-default-block.yaml",
    ),
    "to inherit a rule through `follow`": ("tests/scenarios/follow-no-chain.yaml",),
    "to be picked by a rule that means another device": ("tests/scenarios/ambiguous-other-tags.yaml",),
    "to reach a dom0 driver before it is judged": (
        "tests/scenarios/driverless.yaml",
        "engine/test_driver_isolation.py::test_closed_by_default_admits_what_the_policy_names",
    ),
    "to put escape sequences": ("core/usb/test_sanitize.py::test_output_is_one_short_printable_line",),
    "to get into a command line": (
        "core/test_hostile_names.py::test_accepted_names_are_safe_everywhere",
        "core/test_hostile_names.py::test_a_malformed_path_is_not_a_port",
    ),
    "to stall the matcher": (
        "core/policy/test_regex.py::test_no_text_makes_it_slow",
        "core/policy/test_effort.py::test_allowed_patterns_decide_fast",
        "core/usb/test_device.py::test_the_limit_of_interfaces_is_kept",
    ),
    "to keep the agent busy": ("tests/scenarios/reenumeration-burst.yaml",),
    "to hang the kernel": (
        "adapters/test_stuck_devices.py::test_devices_that_cannot_be_read",
        "bench/test_stuck.py::test_devices_that_hang",
    ),
    # a guest
    "to pretend that it has a device": ("core/test_guests.py::test_libxls_own_copy_of_a_qusb_port_is_ignored",),
    "to name itself or its nodes": (
        "core/test_hostile_names.py::test_refused",
        "core/test_hostile_names.py::test_another_spelling_of_a_number_is_another_node",
    ),
    "to delay others by being slow": (
        "tests/scenarios/two-guests.yaml",
        "engine/test_domain_locks.py::test_calls_for_one_domain_take_turns_and_those_for_another_do_not_wait",
    ),
    "to write its xenstore nodes without rest": (
        "adapters/test_mirror_noise.py::test_a_writer_that_never_stops_does_not_delay_others",
        "bench/test_noise.py::test_a_writer_that_never_rests",
    ),
    # a local user
    "to replace a policy, settings with a hook": (
        "adapters/test_path_permissions.py::test_unsafe_permissions_are_reported",
        "adapters/test_path_permissions.py::test_the_file_read_is_the_file_whose_permissions_were_checked",
    ),
    "to replace a program that root runs": (
        "adapters/test_path_permissions.py::test_the_agent_runs_no_program_of_others",
    ),
    "symlinks, FIFOs, devices or huge files": (
        "adapters/test_history.py::test_a_file_that_is_not_its_own_is_not_read",
        "cli/test_planted_files.py::test_a_planted_file_is_refused_with_a_reason",
    ),
    "to remove or replace the folder": (
        "adapters/test_kept_folder.py::test_a_file_is_written_again_and_never_elsewhere",
        "adapters/test_kept_folder.py::test_the_socket_is_not_made_where_others_are",
    ),
    "to leave a `json.py`": ("cli/test_completion.py::test_tab_runs_nothing_of_the_current_folder",),
    "malformed, oversized, slow": (
        "adapters/test_control.py::test_any_bytes",
        "adapters/test_control.py::test_a_flood_of_requests_leaves_the_agent_time",
    ),
    "many connections": (
        "adapters/test_control_slots.py::test_the_user_with_most_connections_loses_the_idlest_one",
        "adapters/test_control_slots.py::test_peers_that_may_act_always_get_a_slot",
    ),
    "to learn from the history who gave an order": (
        "service/test_order_log.py::test_readers_do_not_see_who_it_was",
        "service/test_order_log.py::test_a_user_who_may_only_read_sees_the_orders_but_not_who",
    ),
    "to mount or unmount at the right moment": (
        "engine/test_last_moment.py::test_used_while_the_attach_waits_for_its_turn",
        "adapters/test_unreadable.py::test_a_mounts_source_that_leads_elsewhere",
    ),
    # what a device gains by what it says
    "tag, text, class": ("policies/tests/kiosk-liars.yaml",),
    "the same in `action: host`": (
        "tests/scenarios/protect-by-words.yaml",
        "core/matching/test_lint.py::test_entries_that_admit_devices_by_their_own_claims",
    ),
    "kind, for `move`": ("policies/tests/gaming-lists.yaml",),
    "to be plugged in where a followed device left": (
        "tests/scenarios/follow.yaml",
        "tests/scenarios/follow-no-chain.yaml",
    ),
    "to be a second device of a rule": ("tests/scenarios/ambiguous-refuse.yaml",),
    "to be a hub with a certain tag": ("core/matching/test_match.py::test_not_any_below_and_regular_expressions",),
    "to be a hub that says its ports are fixed": (
        "core/matching/test_match.py::test_a_replaceable_hub_cannot_report_fixed_ports",
    ),
    "to re-enumerate until it has a certain `address`": ("core/matching/test_lint.py::test_an_address_pins_nothing",),
    "to be used by dom0": ("tests/scenarios/protected-rule.yaml",),
    "names and texts in messages": ("cli/test_hostile.py::test_only_printable_lines",),
}
"""By the beginning of a row: scenarios (`….yaml`) and tests (below tests/)."""


def rows() -> Iterator[str]:
    """The first cells of the tables' rows."""
    inside = False
    for line in PAGE.read_text("utf-8").splitlines():
        inside = line in TABLES or (inside and line.startswith("|"))
        if inside and line not in TABLES and not line.startswith("|---"):
            yield line.strip("| ").split(" | ")[0]


@cache
def names(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    return frozenset(
        found | {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    )


PROOFS = sorted({proof for proofs in PLAYED.values() for proof in proofs})


def test_every_row_is_played():
    found = list(rows())
    assert len(found) > 30
    assert [row for row in found if sum(row.startswith(start) for start in PLAYED) != 1] == []
    assert [start for start in PLAYED if not any(row.startswith(start) for row in found)] == []


@pytest.mark.parametrize("scenario", [proof for proof in PROOFS if proof.endswith(".yaml")])
def test_the_scenario_holds(scenario):
    [loaded] = read([ROOT / scenario])
    assert play(loaded, lambda at, line: None).failures == []


@pytest.mark.parametrize("proof", [proof for proof in PROOFS if not proof.endswith(".yaml")])
def test_the_named_test_exists(proof):
    path, _, name = proof.partition("::")
    found = names(ROOT / "tests" / path)
    assert name in found
