"""One xl call at a time per domain, and nothing kept of domains that are gone."""

from __future__ import annotations

import asyncio

from xenplug.engine.context import Turns


def test_calls_for_one_domain_take_turns_and_those_for_another_do_not_wait() -> None:
    said: list[str] = []

    async def call(turns: Turns, domid: int, name: str) -> None:
        async with turns[domid]:
            said.append(f"{name} begins")
            await asyncio.sleep(0)
            said.append(f"{name} ends")

    async def body() -> int:
        turns = Turns()
        await asyncio.gather(call(turns, 5, "a"), call(turns, 5, "b"), call(turns, 6, "c"))
        return len(turns._locks)

    left = asyncio.run(body())
    assert said == ["a begins", "c begins", "a ends", "c ends", "b begins", "b ends"]
    assert left == 0
