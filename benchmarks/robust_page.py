"""The page of ``benchmarks/robust.py``, from its results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

WITHIN = 0.9
"""Of the clean score: what a defence is asked to keep."""
DOORS = ("backdoor", "quiet_backdoor")
SHUT = 0.1
"""A backdoor whose success is no further above that of the control does not work."""

HEAD = (Path(__file__).parent / "robust_head.md").read_text("utf-8")


def values(stored: Mapping[str, Any], defence: str, attack: str, name: str) -> dict[str, float]:
    """Return a number by seed."""
    seeds = stored.get("measured", {}).get(defence, {}).get(attack, {}).get("seeds", {})
    return {seed: found[name] for seed, found in seeds.items() if found.get(name) is not None}


def kept(stored: Mapping[str, Any], defence: str, attack: str) -> list[float]:
    """Return by seed the score as a part of FedAvg's clean one."""
    clean = values(stored, "fedavg", "none", "test")
    found = values(stored, defence, attack, "test")
    return [found[seed] / clean[seed] for seed in found if seed in clean]


def bearing(
    stored: Mapping[str, Any], attacks: Sequence[str], defences: Sequence[str]
) -> dict[str, list[str]]:
    """Return by attack the defences that keep ``WITHIN`` of the clean score on average."""
    return {
        attack: [
            name
            for name in defences
            if name != "fedavg" and (parts := kept(stored, name, attack)) and fmean(parts) >= WITHIN
        ]
        for attack in attacks
        if attack != "none"
    }


def page(
    stored: Mapping[str, Any],
    attacks: Sequence[str],
    defences: Sequence[str],
    chosen_against: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        stored: the results.
        attacks: their names, ``none`` among them.
        defences: their names, ``fedavg`` first.
        chosen_against: the attacks that candidates met.
    """
    parts = [HEAD, "## Measured\n", *_opening(stored, attacks, defences)]
    parts += [_table(stored, attacks, defences), _doors(stored, defences), _named(stored, attacks)]
    parts += [_candidates(stored, chosen_against), _missing(stored, attacks, defences)]
    return "\n".join(part for part in parts if part)


def _opening(
    stored: Mapping[str, Any], attacks: Sequence[str], defences: Sequence[str]
) -> list[str]:
    clean = list(values(stored, "fedavg", "none", "test").values())
    if not clean:
        return ["Nothing is measured yet."]
    lines = [
        "Twelve sites (six sites of the generated fleet, each twice, ten machines each), "
        "`model=mlp`, ten rounds; three are malicious in every round. Average precision on the "
        "test windows of all "
        f"twelve, mean of the sites; {len(clean)} seed{'s' if len(clean) != 1 else ''}. Clean "
        f"FedAvg scores {fmean(clean):.3f}. Shown is the score as a part of it, "
        f"the mean over seeds ± "
        "the standard deviation; bold: at least nine tenths.\n"
    ]
    borne = bearing(stored, attacks, defences)
    fallen = {a: fmean(p) for a in borne if (p := kept(stored, "fedavg", a))}
    for attack, part in sorted(fallen.items(), key=lambda pair: pair[1]):
        fell = f"FedAvg keeps {part:.0%} of the clean score"
        names = _listed(borne[attack])
        lines.append(f"- `{attack}`: {fell}; nine tenths or more keep {names}.")
    every = [d for d in defences if borne and all(d in names for names in borne.values())]
    lines.append(
        f"\nAgainst every one of these attacks nine tenths keep {_listed(every)}. A score that is "
        "kept says nothing of the backdoors: their table is below.\n"
    )
    return lines


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no defence"


def _table(stored: Mapping[str, Any], attacks: Sequence[str], defences: Sequence[str]) -> str:
    lines = [
        f"| strategy | {' | '.join(attacks)} |",
        f"|---|{'---|' * len(attacks)}",
    ]
    for defence in defences:
        cells = []
        for attack in attacks:
            parts = kept(stored, defence, attack)
            text = "–"
            if parts:
                spread = f" ± {stdev(parts):.2f}" if len(parts) > 1 else ""
                text = f"{fmean(parts):.2f}{spread}"
                text = f"**{text}**" if fmean(parts) >= WITHIN else text
            cells.append(text)
        lines.append(f"| {defence} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _doors(stored: Mapping[str, Any], defences: Sequence[str]) -> str:
    lines = [
        "A backdoor leaves the scores above nearly as they are. It hides failures: the share of "
        "test windows before a failure that the model calls healthy with the trigger, and "
        "without it. `backdoor` enlarges the update four times, `quiet_backdoor` does not; the "
        "control is the same of a run that nobody attacks.\n",
        "| strategy | backdoor, trigger | without | quiet, trigger | without "
        "| control, trigger | without |",
        "|---|---|---|---|---|---|---|",
    ]
    rows: dict[str, dict[tuple[str, str], float]] = {}
    for defence in defences:
        rows[defence] = {
            (attack, name): fmean(numbers.values())
            for attack in (*DOORS, "none")
            for name in ("success", "without_trigger")
            if (numbers := values(stored, defence, attack, name))
        }
        cells = [
            f"{rows[defence][attack, name]:.2f}" if (attack, name) in rows[defence] else "–"
            for attack in (*DOORS, "none")
            for name in ("success", "without_trigger")
        ]
        lines.append(f"| {defence} | {' | '.join(cells)} |")
    if not any(rows.values()):
        return ""
    for attack in DOORS:
        key, control = (attack, "success"), ("none", "success")
        shut = [d for d, row in rows.items() if key in row and row[key] <= row[control] + SHUT]
        lines.append(f"\nWithin {SHUT:g} of the control against `{attack}` stay {_listed(shut)}.")
    return "\n".join(lines) + "\n"


def _named(stored: Mapping[str, Any], attacks: Sequence[str]) -> str:
    lines = [
        "`outlier_detection` names sites: the share of malicious updates that it left out, and of "
        "honest ones.\n",
        "| attack | malicious | honest |",
        "|---|---|---|",
    ]
    found = False
    for attack in attacks:
        cell = stored.get("measured", {}).get("outlier_detection", {}).get(attack, {})
        pairs = [seed["left_out"] for seed in cell.get("seeds", {}).values()]
        if not pairs:
            continue
        found, bad = True, 3 if attack != "none" else 0
        malicious = f"{fmean(p[0] for p in pairs) / (10 * bad):.0%}" if bad else "–"
        honest = f"{fmean(p[1] for p in pairs) / (120 - 10 * bad):.0%}"
        lines.append(f"| {attack} | {malicious} | {honest} |")
    return "\n".join(lines) + "\n" if found else ""


def _candidates(stored: Mapping[str, Any], against: Sequence[str]) -> str:
    part = stored.get("choosing", {})
    if not part:
        return ""
    lines = [
        "Settings were chosen by average precision on validation windows with seed 100, whose test "
        "scores nobody looked at; all others are their yaml's or follow from 3 of 12:\n",
        f"| candidate | {' | '.join(against)} |",
        f"|---|{'---|' * len(against)}",
    ]
    for name, by_attack in part.items():
        scores = []
        for attack in against:
            seeds = by_attack.get(attack, {}).get("seeds", {})
            scores.append(f"{fmean(s['validation'] for s in seeds.values()):.3f}" if seeds else "–")
        lines.append(f"| {name} | {' | '.join(scores)} |")
    return "\n".join(lines) + "\n"


def _missing(stored: Mapping[str, Any], attacks: Sequence[str], defences: Sequence[str]) -> str:
    counts = {
        (d, a): len(values(stored, d, a, "test")) for d in defences for a in attacks
    }  # fmt: skip
    most = max(counts.values(), default=0)
    few = [f"{d} against {a} ({n} of {most} seeds)" for (d, a), n in counts.items() if n < most]
    said = (
        "**Not measured**: other models and tasks, fleets whose sites differ more, other numbers "
        "of sites and malicious ones, attackers that know the defence, several attacks at once, "
        "and defences inside other strategies."
    )
    return f"{said} Fewer seeds: {'; '.join(few)}.\n" if few else f"{said}\n"
