"""Virtual time: it jumps, it keeps the order, and endless waits raise."""

from __future__ import annotations

import asyncio
import time

import pytest

from xenplug.simulator.loop import Deadlock, LoopClock, VirtualLoop, run


def test_an_hour_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run(main()) == pytest.approx(3600)
    assert time.monotonic() - began < 5


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main() -> list[str]:
        said: list[str] = []
        loop = asyncio.get_running_loop()
        for delay in (3.0, 1.0, 2.0):
            loop.call_later(delay, said.append, f"{delay}")
        await asyncio.sleep(5)
        return said

    assert run(main()) == ["1.0", "2.0", "3.0"]


def test_waiting_for_what_never_comes_is_a_deadlock() -> None:
    with pytest.raises(Deadlock, match=r"nothing is scheduled at 2\.000 s"):
        run(_for_ever(first=2))


def test_waiting_among_endless_timers_ends_too() -> None:
    async def main() -> None:
        async def tick() -> None:
            while True:
                await asyncio.sleep(86400)

        ticking = asyncio.create_task(tick())
        await asyncio.Event().wait()
        ticking.cancel()

    with pytest.raises(Deadlock, match="virtual days"):
        run(main())


def test_a_timeout_is_virtual_too() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_for_ever(first=0), 500)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(500)


def test_work_for_threads_is_done_in_place() -> None:
    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, int, "7")

    assert run(main()) == 7


def test_a_thread_s_failure_is_its_caller_s() -> None:
    async def main() -> int:
        return await asyncio.to_thread(int, "seven")

    with pytest.raises(ValueError, match="seven"):
        run(main())


def test_suspend_moves_people_s_time_only() -> None:
    async def main() -> tuple[float, float]:
        clock = LoopClock(wall_at_zero=100)
        await asyncio.sleep(5)
        clock.suspend(3600)
        return clock.now(), clock.wall()

    assert run(main()) == (pytest.approx(5), pytest.approx(3705))


def test_two_runs_are_independent() -> None:
    async def main() -> float:
        await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    assert run(main()) == run(main())
    loop = VirtualLoop()
    assert loop.time() == 0
    loop.close()


async def _for_ever(first: float) -> None:
    await asyncio.sleep(first)
    await asyncio.Event().wait()
