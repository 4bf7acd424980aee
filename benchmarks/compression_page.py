"""The page of ``benchmarks.compression``: what was chosen, what it saves and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.compression import Line

HEAD = """# Compression: bytes and scores

One override lets updates, and the model on its way back, travel in fewer bytes:

```bash
python -m fedpdm.simulate transforms=topk transforms.topk.share=0.015
python -m fedpdm.simulate transforms=powersgd transforms.powersgd.direction=up
python -m fedpdm.simulate 'transforms=[quantise,powersgd]' \
transforms.quantise.direction=down transforms.powersgd.direction=up
```

| method | bytes of D values of 4 bytes | error feedback | paper |
|---|---|---|---|
| `topk` | 5 to 6 · share · D | yes | Stich et al. 2018, Lin et al. 2018 |
| `randomk` | 4 · share · D + 8 | on request; else unbiased | Konečný et al. 2016 |
| `quantise` | D or D/2 (8, 4 bits), 4 a bucket | on request; else unbiased | Alistarh et al. 2017 |
| `sign` | D/8, and 4 for each tensor | yes | Karimireddy et al. 2019 |
| `powersgd` | 4 · rank · (n + m) a matrix; vectors as they are | yes | Vogels et al. 2019 |

To each message Flower's format adds about 180 bytes an array, so small models gain less. The
weights and the records of a strategy (SCAFFOLD's controls) are compressed; buffers, metrics and, on
the way down, what a strategy sends beside the model are not. `direction` is `up`, `down` or `both`
(the default). How it works and what was given up: [decision 048](decisions/048-compression.md).

## What it saves and costs

Bytes are those of the whole run, both ways, as really serialised: models for training and for
evaluation, updates, metrics, scalers. Asked were 8 times fewer bytes at a loss of at most 2 % of
the score, and 30 times at most 5 %. Methods were chosen on validation data with seed 100, which is
shown nowhere below; the tables show other seeds. Beside them stands the simplest way to save as
many bytes: fewer rounds without compression. *A later round* is the last one: without the first
model, which every site must be sent whole.
"""

FOOT = """
Made by `python -m benchmarks.compression`; stored in `benchmarks/results/compression.json`.
"""

TRIED = """What was compared on validation data, with one seed; its scores are shown nowhere. On
FD001 top-k of 8 % and of 1.5 %, sign, PowerSGD of rank 1, and top-k of 3 % up with sign down were
tried before that, with a version that sent what changed twice; all were far worse than those below
with 4 bits or rank 4. A likely reason: a round of this recipe is one step of Adam, of a hundred,
and what comes some rounds late comes too late.
"""

METRICS = {"rmse": ("RMSE", 2), "average_precision": ("average precision", 3)}


def page(
    stored: Mapping[str, Any],
    lines: Sequence[Line],
    chosen: Mapping[str, Mapping[int, tuple[str, str]]],
) -> str:
    """Return the page.

    Args:
        stored: all results.
        lines: what is reported.
        chosen: for each data set and target the method, and of which bytes it saves as many.
    """
    text = [HEAD]
    for part in dict.fromkeys(line.part for line in lines):
        own = [line for line in lines if line.part == part]
        text += [*_table(part, own, stored), *_verdicts(own, stored, chosen[part])]
    if not lines:
        text.append("Nothing was measured yet.\n")
    text += _compared(stored)
    return "\n".join(text) + FOOT


def _table(part: str, lines: Sequence[Line], stored: Mapping[str, Any]) -> Iterator[str]:
    from benchmarks.compression import NONE, PARTS, factor

    settings = PARTS[part]
    name, digits = METRICS[settings.metric]
    better = "higher" if settings.higher_is_better else "lower"
    command = " ".join(("python -m fedpdm.simulate", *settings.overrides))
    yield f"### {part}: `{command}`\n"
    yield f"| method | {name} on test data, {better} is better | lost | up | down | whole run | a later round | seeds |"  # noqa: E501
    yield "|---|---|---|---|---|---|---|---|"
    full = next(line for line in lines if line.name == NONE).entry(stored)
    for line in lines:
        found = line.entry(stored)
        if not found:
            yield f"| {line.name} | not measured | | | | | | 0 |"
            continue
        scores = [kept["score"] for kept in found.values()]
        spread = f" ± {stdev(scores):.{digits}f}" if len(scores) > 1 else ""
        lost = ""
        if full and line.name != NONE and found.keys() & full.keys():
            lost = f"{_lost(line, found, full):+.1%}"
        times = [f"{factor(found, full, what):.1f} ×" if full else ""
                 for what in ("up", "down", "total", "round")]  # fmt: skip
        if line.name == NONE:
            sizes = [
                fmean(kept[w] for kept in found.values()) for w in ("up", "down", "total", "round")
            ]
            times = [f"{size / 1e6:.1f} MB" for size in sizes]
        yield (
            f"| {line.name} | {fmean(scores):.{digits}f}{spread} | {lost} | {' | '.join(times)} "
            f"| {len(found)} |"
        )
    yield ""


def _lost(line: Line, found: Mapping[str, Any], full: Mapping[str, Any]) -> float:
    from benchmarks.compression import PARTS

    seeds = found.keys() & full.keys()
    return fmean(PARTS[line.part].lost(found[s]["score"], full[s]["score"]) for s in seeds)


def _verdicts(
    lines: Sequence[Line], stored: Mapping[str, Any], chosen: Mapping[int, tuple[str, str]]
) -> Iterator[str]:
    from benchmarks.compression import NONE, PARTS, TARGETS, factor

    entries = {line.name: (line, line.entry(stored)) for line in lines}
    full = entries[NONE][1]
    for target, most in TARGETS.items():
        if PARTS[lines[0].part].like and target not in chosen:
            continue
        aim = f"- {target} times fewer bytes, at most {most:.0%} lost:"
        if target not in chosen:
            yield f"{aim} no candidate saves so much."
            continue
        name, what = chosen[target]
        line, found = entries[name]
        if not found or not full:
            yield f"{aim} {name} was chosen, and is not measured."
            continue
        whole, later = factor(found, full), factor(found, full, "round")
        lost = _lost(line, found, full)
        kept = "reached" if lost <= most else "missed"
        if what == "total":
            said = f"**{kept if whole >= target else 'missed'}** by {name}, {whole:.1f} times"
        else:
            said = (
                f"**missed over the whole run**, {whole:.1f} times by {name}: every site must be "
                "sent the first model whole, and of so few rounds that is more than all the rest. "
                f"Of a later round it saves {later:.1f} times, with which it would be {kept}"
            )
        yield f"{aim} {said}; {lost:+.1%} lost (negative: better), {len(found)} seeds."
    yield ""


def _compared(stored: Mapping[str, Any]) -> Iterator[str]:
    from benchmarks.compression import NONE, choosing, factor

    yield "## Candidates\n"
    yield TRIED
    yield "| | method | bytes of the whole run | of a later round |"
    yield "|---|---|---|---|"
    listed = list(choosing())
    for line in listed:
        full = next(o for o in listed if o.part == line.part and o.name == NONE).entry(stored)
        found = line.entry(stored)
        if line.name == NONE:
            continue
        cells = ["not measured", ""]
        if found and full:
            cells = [f"{factor(found, full, what):.1f} ×" for what in ("total", "round")]
        yield f"| {line.part} | {line.name} | {cells[0]} | {cells[1]} |"
    yield ""
