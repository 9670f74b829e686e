"""Races against the tools in use today: same weights, same filters, same size, in one process.

    python -m bench.race steps
    python -m bench.race filters --weights squeezenet1_0.safetensors

`steps` gives milliseconds per picture and step at equal steps, interleaved. `filters` gives seconds per
finished filter: until the robust score equals the one that lucent reaches with its 512 steps, and for the
default preset's whole run; computing robust scores is not timed. Rows are appended to results/race.jsonl as
they are measured; charts go to docs/. Tools that are not installed are left out and a note says so; the
modules in bench/peers say how to install them.

A tool runs "as used", on the whole network without freezing, as its own examples do, and "cut, frozen", on a
frozen channels-last copy that ends with the target's block: more than the tool offers.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cnnvis_fast as cv
from bench.peers import original, upto, whole
from bench.step import stepper
from bench.support.cases import opened
from bench.support.charts import bars
from bench.support.measure import Work, append, environment, interleaved, quantiles
from cnnvis_fast.ascent.allocator import kept_buffers
from cnnvis_fast.ascent.devices import resolve_config
from cnnvis_fast.ascent.plan import make_plan
from cnnvis_fast.config import configure
from cnnvis_fast.images.sheets import contact_sheet, to_image
from cnnvis_fast.jobs.batches import produce
from cnnvis_fast.jobs.identity import job_identity
from cnnvis_fast.jobs.job import Job
from cnnvis_fast.networks.preprocessing import Source, describe
from cnnvis_fast.results.scores import Scorer

CASES = (
    "vgg16/features.2",
    "vgg16/features.14",
    "vgg16/features.28",
    "squeezenet1_0/features.12.expand3x3",
)
BATCHES = (1, 8)  # batch sizes for lucent
OURS, ORIGINAL, LUCENT = "cnnvis_fast", "the original's loop", "lucent"
NOWHERE = Source("", "", (0.0,), (1.0,), 224)  # preprocessing that determines nothing
DOCS = Path(__file__).parents[1] / "docs"
STEPS = (16, 24, 32, 48, 64, 96, 128)  # steps tried for `strong`, fewest first


def installed(name: str) -> Any:
    """Returns a tool's module in bench/peers; prints a note and returns None if it is not installed."""
    try:
        return importlib.import_module(f"bench.peers.{name}")
    except ImportError as error:
        print(f"{name}: left out, {error}")
        return None


def contenders(
    network: nn.Module, layer: str, device: str = "cpu", batches: Sequence[int] = BATCHES, **options: Any
) -> dict[str, tuple[int, Work]]:
    """Returns, by name, the pictures per call and a function for one step; options go to our `configure`.

    Horama's step is one of its one picture of 1280 pixels, which the network sees as six crops.
    """
    size, found = options.get("size", original.SIZE), {}

    def copies() -> dict[str, nn.Module]:
        return {"as used": whole(network).to(device), "cut, frozen": upto(network, layer).to(device)}

    found[ORIGINAL] = 1, original.stepper(upto(network, layer).to(device), layer, [0], size)
    if lucent := installed("lucent"):
        for batch in batches:
            for how, copy in copies().items():
                step = lucent.stepper(copy, layer, range(batch), size)
                found[f"lucent, {how}, batch {batch}"] = batch, step
    if horama := installed("horama"):
        found["Horama, as used, 6 crops"] = 1, horama.stepper(copies()["as used"], layer, [0])
    plan = make_plan(network, layer, configure(device=device, **options))
    found[f"{OURS}, batch {plan.batch}"] = plan.batch, stepper(plan, use_compile=bool(plan.config.compile))
    return found


def race_steps(
    cases: Sequence[str], device: str = "cpu", seconds: float = 4.0, **options: Any
) -> dict[str, dict[str, float]]:
    """Returns median milliseconds per picture and step, by case and contender; appends rows case by case."""
    table = {}
    for case in cases:
        entered = contenders(*opened(case), device, **options)
        with torch.no_grad(), kept_buffers():
            times = interleaved({who: work for who, (_, work) in entered.items()}, device, seconds)
        table[case] = {}
        for who, found in times.items():
            p20, p50, p80 = (round(value / entered[who][0], 4) for value in quantiles(found))
            row = {
                "table": "steps",
                "case": case,
                "contender": who,
                "batch": entered[who][0],
                "device": device,
            }
            row |= {"ms_per_image_p20": p20, "ms_per_image_p50": p50, "ms_per_image_p80": p80}
            append("race", {**row, "rounds": len(found), "size": options.get("size", original.SIZE)})
            table[case][who] = p50
        print(case, *ratios(table[case]), sep="\n  ")
    return table


def ratios(row: Mapping[str, float]) -> Iterator[str]:
    """Yields a line per contender: its value, and the multiple of ours."""
    (own,) = (value for who, value in row.items() if who.startswith(OURS))
    for who, value in row.items():
        yield f"{who:<34} {value:10.3f}  {value / own:7.2f} x"


class Entry:
    """One contender of the `filters` table: how it makes pictures of some filters, and its results."""

    def __init__(self, make: Callable[[Sequence[int]], Tensor]) -> None:
        self.make = make
        self.seconds = 0.0
        self.pixels: list[Tensor] = []
        self.scores: list[float] = []

    def run(self, chunk: Sequence[int], scorer: Scorer) -> dict[str, object]:
        """Makes the pictures, timed, and scores them, untimed; returns the row's entries."""
        began = time.perf_counter()
        made = self.make(chunk)
        spent = time.perf_counter() - began
        scores = scorer.robust_scores(made, chunk).tolist()
        self.seconds += spent
        self.pixels.append(made)
        self.scores += scores
        return {"filters": list(chunk), "seconds": round(spent, 4), "robust": [round(s, 4) for s in scores]}

    @property
    def score(self) -> float:
        return statistics.mean(self.scores)

    @property
    def seconds_per_filter(self) -> float:
        return self.seconds / len(self.scores)


def race_filters(
    network: nn.Module,
    layer: str,
    filters: Sequence[int],
    steps: Sequence[int] = STEPS,
    peer_steps: int = 512,
    horama: str | None = None,
    **options: Any,
) -> dict[str, Entry]:
    """Lets all contenders make the same few filters in turn, until all are made; appends rows as it measures.

    Loading and planning are not timed, and each of our plans has run before. Our timed runs include computing
    the plain scores of a tile's record.

    Args:
        network: the network, unchanged after loading.
        layer: name of a layer in `features`.
        filters: numbers of the channels.
        steps: numbers of steps to try for `strong`.
        peer_steps: lucent's number of steps.
        horama: one of Horama's names in bench/peers; None leaves it out.
        **options: options of our `configure`; `size` applies to all contenders.

    Returns:
        The contenders with their results, by name.
    """
    source, entries = describe(network), {}
    for preset, count in [("natural", None), *(("strong", count) for count in steps)]:
        for pass_steps in (1, count):  # the first pass warms up
            plan = make_plan(network, layer, configure(preset, steps=pass_steps, **options), source)
            run = produce(plan, job_identity(Job(network, source, plan.config), plan.config), filters)
            if pass_steps == 1:
                next(run)
        entries[f"{OURS} {preset}, {plan.config.steps} steps"] = Entry(lambda _, run=run: next(run).pixels)
    size = int(plan.config.size or original.SIZE)
    if lucent := installed("lucent"):
        entries[LUCENT] = Entry(
            lambda chunk: torch.stack(
                [lucent.finished(whole(network), layer, channel, size, peer_steps) for channel in chunk]
            )
        )
    if horama and (tool := installed("horama")):
        entries[horama] = Entry(
            lambda chunk: torch.stack([tool.picture(horama, network, layer, channel) for channel in chunk])
        )
    scorer = Scorer(plan)
    for first in range(0, len(filters), plan.batch):
        chunk = filters[first : first + plan.batch]
        for who, entry in entries.items():
            row = {"table": "filters", "layer": layer, "contender": who, "size": size, "batch": plan.batch}
            append("race", {**row, "peer_steps": peer_steps, **entry.run(chunk, scorer)})
    return entries


def final_table(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Returns the final table: `natural`, `strong` with the fewest steps that match lucent, and the others.

    `strong` matches lucent if its mean score is at least lucent's. If no number of steps does, the best one
    is kept, and its score shows that. Without lucent, all are kept.
    """
    if LUCENT not in entries:
        return dict(entries)
    strong = {who: entry for who, entry in entries.items() if who.startswith(f"{OURS} strong")}
    reaching = [who for who, entry in strong.items() if entry.score >= entries[LUCENT].score]
    chosen = reaching[0] if reaching else max(strong, key=lambda who: strong[who].score)
    return {who: entry for who, entry in entries.items() if who not in strong or who == chosen}


def summary_lines(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yields a line per contender: seconds per filter, multiple of lucent's speed, mean robust score."""
    base = entries.get(LUCENT)
    for who, entry in entries.items():
        line = f"{who:<34} {entry.seconds_per_filter:8.3f} s per filter"
        if base:
            line += f", {base.seconds_per_filter / entry.seconds_per_filter:6.2f} times lucent's speed"
            line += f", {entry.score / base.score:6.3f} of its robust score"
        yield f"{line} ({entry.score:.3f})"


def machine(device: str) -> str:
    """Returns processor, threads and versions, for charts."""
    facts, dtype = environment(device), resolve_config(configure(device=device), NOWHERE).dtype
    level = f", {torch.backends.cpu.get_cpu_capability()}" if device == "cpu" else ""
    return f"{facts['machine']}, {facts['threads']} threads, {dtype}{level}, torch {facts['torch']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", choices=("steps", "filters"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="for steps")
    parser.add_argument(
        "--cases", default=",".join(CASES), help="for steps: MODEL/LAYER, separated by commas"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="for steps: minimum time per case")
    parser.add_argument("--weights", type=Path, help="for filters: squeezenet1_0 (safetensors)")
    parser.add_argument("--layer", default="features.12.expand3x3", help="for filters")
    parser.add_argument("--filters", type=int, default=16, help="for filters: how many, evenly spaced")
    parser.add_argument("--horama", help="for filters: adds horama-maco, horama-fourier or horama-maco-full")
    asked = parser.parse_args()
    if asked.table == "steps":
        table = race_steps(asked.cases.split(","), asked.device, asked.seconds)
        title = "Milliseconds per picture and step"
        bars(DOCS / "race-steps.png", title, "ms", table, OURS, machine(asked.device))
        return
    if asked.weights is None:
        parser.error("filters needs --weights: with random weights a score says nothing about a picture")
    network = cv.load_model("squeezenet1_0", asked.weights)
    channels = network.get_submodule(asked.layer).out_channels
    filters = [k * channels // asked.filters for k in range(asked.filters)]
    entries = race_filters(network, asked.layer, filters, horama=asked.horama)
    print(
        "all:",
        *summary_lines(entries),
        "final table:",
        *summary_lines(table := final_table(entries)),
        sep="\n  ",
    )
    values = {who: entry.seconds_per_filter for who, entry in table.items()}
    scores = {who: entry.score for who, entry in table.items()}
    title = f"SqueezeNet {asked.layer}, {len(filters)} filters: seconds per finished filter"
    groups = {"seconds per filter": values, "mean robust score": scores}
    bars(DOCS / "race-filters.png", title, "", groups, OURS, machine("cpu"))
    for name, beginning in (("natural", f"{OURS} natural"), ("strong", f"{OURS} strong"), ("lucent", LUCENT)):
        for who, entry in table.items():
            if who.startswith(beginning):
                tiles = [to_image(picture.numpy()) for picture in torch.cat(entry.pixels)]
                contact_sheet(tiles, [str(c) for c in filters]).save(DOCS / f"race-{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
