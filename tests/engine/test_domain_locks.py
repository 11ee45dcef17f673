"""One xl call at a time per domain, and no lock is kept for domains that are gone."""

from __future__ import annotations

import asyncio

from xenplug.engine.context import DomainLocks


def test_calls_for_one_domain_take_turns_and_those_for_another_do_not_wait() -> None:
    said: list[str] = []

    async def call(locks: DomainLocks, domid: int, name: str) -> None:
        async with locks[domid]:
            said.append(f"{name} begins")
            await asyncio.sleep(0)
            said.append(f"{name} ends")

    async def body() -> int:
        locks = DomainLocks()
        await asyncio.gather(call(locks, 5, "a"), call(locks, 5, "b"), call(locks, 6, "c"))
        return len(locks)

    left = asyncio.run(body())
    assert said == ["a begins", "c begins", "a ends", "c ends", "b begins", "b ends"]
    assert left == 0
