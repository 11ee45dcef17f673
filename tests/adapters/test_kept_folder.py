"""The agent's folders and files vanish while it runs, or others take their place."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from xenplug.adapters.control import ControlServer, SocketFile
from xenplug.adapters.files import Locked, lock
from xenplug.adapters.history import HistoryFile
from xenplug.adapters.kept_folder import KeptFolder
from xenplug.adapters.ledger import LedgerFile
from xenplug.adapters.root_hubs import RootHubs
from xenplug.core.ledger.ledger import Ledger
from xenplug.core.protocols import Guard
from xenplug.service.bootstrap import HostClock

STOP = "service xenplug stop"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away")


@pytest.fixture
def kept(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o750)
    folder.chmod(0o750)
    kept = KeptFolder(folder)
    kept.ensure()
    return kept, folder


def test_it_is_made_again_as_it_was(kept, caplog):
    keeper, folder = kept
    owner = folder.stat().st_uid, folder.stat().st_gid
    for _ in range(2):
        shutil.rmtree(folder)
        keeper.ensure()
        keeper.ensure()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        assert (folder.stat().st_uid, folder.stat().st_gid) == owner
    assert len(caplog.messages) == 2


@needs_root
def test_its_owner_and_group_too(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 4711)
    keeper = KeptFolder(folder)
    keeper.ensure()
    folder.rmdir()
    keeper.ensure()
    assert (folder.stat().st_uid, folder.stat().st_gid) == (65534, 4711)


def a_symlink(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(exist_ok=True)
    folder.symlink_to("elsewhere")


def a_dangling_symlink(folder: Path) -> None:
    folder.symlink_to("nowhere")


def a_file(folder: Path) -> None:
    folder.write_text("")


def a_folder_for_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def another_users_folder(folder: Path) -> None:
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    else:
        folder.chmod(0o775)


PLANTED = [a_symlink, a_dangling_symlink, a_file, a_folder_for_all, another_users_folder]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_takes_its_place_is_refused(kept, plant):
    keeper, folder = kept
    shutil.rmtree(folder)
    plant(folder)
    with pytest.raises(OSError, match=r"in place of the folder|in its place") as refused:
        keeper.ensure()
    assert "remove it, and the agent makes the folder again" in str(refused.value)
    folder.unlink() if folder.is_symlink() or folder.is_file() else folder.rmdir()
    keeper.ensure()
    assert folder.is_dir()


def write_ledger(folder, tmp_path):
    file = LedgerFile(folder / "ledger.json", HostClock())
    return lambda: file.restore(Ledger()), folder / "ledger.json"


def write_history(folder, tmp_path):
    file = HistoryFile(folder / "history.jsonl")
    return lambda: file.record({"port": "1-1"}), folder / "history.jsonl"


def write_guard(folder, tmp_path):
    hub = tmp_path / "sys/bus/usb/devices/usb1"
    hub.mkdir(parents=True)
    (hub / "authorized_default").write_text("1\n")
    (hub / "interface_authorized_default").write_text("1\n")
    hubs = RootHubs(tmp_path / "sys", folder / "guard.json")
    hubs.set(Guard(devices=True, interfaces=True))
    return hubs.restore_note, folder / "guard.json"


@pytest.mark.parametrize("writer", [write_ledger, write_history, write_guard])
@pytest.mark.parametrize("plant", [None, *PLANTED])
def test_a_file_is_written_again_and_never_elsewhere(tmp_path, caplog, writer, plant):
    folder = tmp_path / "run"
    folder.mkdir()
    write, file = writer(folder, tmp_path)
    write()
    assert file.exists()
    shutil.rmtree(folder)
    if plant:
        plant(folder)
        for _ in range(3):
            write()
        assert not os.path.lexists(tmp_path / "elsewhere" / file.name)
        assert not os.path.lexists(file)
        assert len(caplog.messages) == 1
        folder.unlink() if folder.is_symlink() or folder.is_file() else folder.rmdir()
    write()
    assert file.exists()


def test_the_lock_is_taken_again(tmp_path):
    place = tmp_path / "run/agent.lock"
    held = lock(place, STOP)
    assert held.restore()
    shutil.rmtree(place.parent)
    assert held.restore()
    with pytest.raises(Locked, match=f"another agent.*{STOP}"):
        lock(place, STOP)
    place.unlink()
    with lock(place, STOP):
        assert not held.restore()
    shutil.rmtree(place.parent)
    a_symlink(place.parent)
    assert not held.restore()
    assert not (tmp_path / "elsewhere/agent.lock").exists()
    held.release()


async def the_socket(place: Path, change, caplog) -> bool:
    """Whether the agent answers at its socket after the change."""

    async def status(_parameters):
        return {"status": {}}

    server = ControlServer({"Status": status}, SocketFile(place, 0o660))
    await server.start()
    before_reader, before = await asyncio.open_unix_connection(place)
    change(place.parent)
    for _ in range(3):
        await server.restore()
    before.write(b'{"method":"org.varlink.service.GetInfo"}\0')
    assert b"xenplug" in await before_reader.readuntil(b"\0")  # who is connected stays so
    before.close()
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(os.fspath(place))
        return True
    except OSError:
        return False
    finally:
        await server.stop()


def remove_socket(folder):
    (folder / "c.sock").unlink()


def replace_socket(folder):
    (folder / "c.sock").unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(folder / "c.sock"))


@pytest.mark.parametrize("change", [remove_socket, shutil.rmtree, replace_socket])
def test_the_socket_is_made_again(tmp_path, caplog, change):
    caplog.set_level(logging.WARNING)
    place = tmp_path / "run/c.sock"
    assert asyncio.run(the_socket(place, change, caplog))
    assert len([m for m in caplog.messages if "the control socket was removed" in m]) == 1


def move_file_there(folder):
    (folder / "c.sock").unlink()
    (folder / "c.sock").write_text("")


@pytest.mark.parametrize("plant", [*PLANTED, move_file_there])
def test_the_socket_is_not_made_where_others_are(tmp_path, caplog, plant):
    def change(folder):
        if plant is not move_file_there:
            shutil.rmtree(folder)
        plant(folder)

    place = tmp_path / "run/c.sock"
    assert not asyncio.run(the_socket(place, change, caplog))
    assert not os.path.lexists(tmp_path / "elsewhere/c.sock")
    assert len([m for m in caplog.messages if "cannot be made again" in m]) == 1
