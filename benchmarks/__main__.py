"""Run the benchmarks."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.bare import measure_bare
from benchmarks.clicks import measure_clicks
from benchmarks.ends import measure_ends, measure_lone_ends
from benchmarks.figures import Figure, percentile, shown
from benchmarks.grants import give_back, make_usable
from benchmarks.world import running_world


async def main() -> int:
    figures: list[Figure] = []
    async with running_world() as world:
        bare = await asyncio.to_thread(measure_bare, world.server, world.folder)
        await world.start_bot()
        await world.until_idle()
        await give_back(world, await make_usable(world, 1))
        figures += await measure_clicks(world, bare, 1)
        (template,) = await make_usable(world, 1)
        figures += await measure_lone_ends(world, template, bare)
        figures += await measure_ends(world, template, bare, 100)
    for f in figures:
        u = f.unit
        print(
            f"{f.name:70} n={len(f.values):4} median {shown(f.median, u):>8} p95 {shown(percentile(f.values, 95), u):>8} most {shown(max(f.values), u):>8} bare {shown(f.bare, u):>8} ratio {f.ratio and round(f.ratio, 1)} {f.goal.text(u) if f.goal else ''} {f.is_reached}"
        )
    return 0


sys.exit(asyncio.run(main()))
