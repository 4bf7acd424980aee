"""``python -m fedpdm.audit RUN``: who was in the training data, and what do gradients show?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fedpdm.config.arguments import run_parser
from fedpdm.errors import FedPdmError, run_command

DESCRIPTION = """\
Attack a finished run: tell training windows from windows that were never used by their loss
(Yeom et al. 2018). AUC 0.5 and advantage 0 are guessing. With --inversion: rebuild training windows
from the gradients and updates that sites send (Phong et al. 2018, Zhu et al. 2019, Geiping et al.
2020); takes minutes, with recurrent models many.

  python -m fedpdm.audit runs/2026-01-31_12-00-00-ab12cd
  python -m fedpdm.audit RUN --control     also a model that learned windows by heart
  python -m fedpdm.audit RUN --inversion
  python -m fedpdm.audit RUN --out audit.json"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = run_parser("audit", DESCRIPTION, "also write the numbers there, as JSON")
    made.add_argument("--control", action="store_true",
                      help="also attack a model that was made to overfit")  # fmt: skip
    made.add_argument("--inversion", action="store_true",
                      help="rebuild windows from gradients instead")  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 2 for mistakes."""
    given = parser().parse_args(arguments)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from fedpdm.audit.attack import membership
        from fedpdm.audit.reconstruct import inversion
        from fedpdm.config.imports import names_of
        from fedpdm.errors import ConfigError
        from fedpdm.runs.assembly import one_thread
        from fedpdm.storage import write_json

        one_thread()
        imports = names_of(given.imports)
        if given.inversion and given.control:
            raise ConfigError("--control belongs to membership inference; leave --inversion out")
        found = (
            inversion(given.run, imports=imports)
            if given.inversion
            else membership(given.run, control=given.control, imports=imports)
        )
        print(rebuilt(found) if given.inversion else told(found))
        if given.out is not None:
            write_json(given.out, found)
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def told(found: Mapping[str, Any]) -> str:
    """Return the result in words.

    Args:
        found: what ``membership`` returned.
    """
    of = found["model"]
    lines = [
        f"Membership inference against round {found['round']} of {found['run']}: {of['members']:,} "
        f"training windows of {of['machines'][0]} machines, {of['others']:,} never used of "
        f"{of['machines'][1]}."
    ]
    for name, words in (
        ("model", "the run's model"), ("untrained", "an untrained model, which knows nobody"),
        ("control", "control: a model that learned members by heart"),
    ):  # fmt: skip
        if found[name] is not None:
            lines.append(f"  {words}: {both(found[name])}")
    lines.append(verdict(found))
    if found["bound"] is not None:
        epsilon = found["privacy"]["epsilon"]
        lines.append(
            f"The advantage against one window cannot pass {found['bound']:.3f} at epsilon "
            f"{epsilon:.3g}, whatever the attack."
            if epsilon is not None
            else "Without noise there is no bound on the advantage."
        )
    return "\n".join(lines)


ATTACKS = {
    "closed_form": "closed form", "by_direction": "by direction", "by_length": "by length"
}  # fmt: skip


def rebuilt(found: Mapping[str, Any]) -> str:
    """Return in words what gradient inversion found.

    Args:
        found: what ``inversion`` returned.
    """
    lines = [
        f"Gradient inversion against {found['run']} (untrained, and as of round {found['round']}): "
        "mean error of a reading, in deviations of its sensor."
    ]
    for step in found["steps"]:
        noise = "clipped, noise multiplier {:g}".format(step["noise"]) if step["noise"] else "plain"
        of = "one window" if step["batch"] == 1 else f"{step['batch']} windows"
        parts = [
            f"{words} {own['error']:.3f}" + (f" ({own['recovered']:.0%} recovered)"
                                             if own["recovered"] else "")
            for name, words in ATTACKS.items()
            if (own := step["attacks"].get(name)) is not None
        ]  # fmt: skip
        lines.append(
            f"  {step['model']} model, step on {of}, {noise}: {', '.join(parts)}; the mean "
            f"window {step['mean_window']:.3f}"
        )
    if sent := found["update"]:
        other = sent["other_site"]
        lines.append(
            f"  update of {sent['site']} in round 1 ({sent['epochs']} epochs over "
            f"{sent['windows']:,} windows): {sent['error']:.3f} to the nearest of its windows; the "
            f"mean window {sent['mean_window']:.3f}"
            + ("" if other is None else f", windows of another site {other:.3f}")
        )
    lines.append(conclusion(found))
    return "\n".join(lines)


def conclusion(found: Mapping[str, Any]) -> str:
    """Return what the errors say, and what they do not."""
    plain = [s for s in found["steps"] if s["noise"] is None]
    given = sorted({s["batch"] for s in plain if any(a["recovered"] for a in _of(s))})
    nearer = {s["batch"] for s in plain if min(a["error"] for a in _of(s)) < s["mean_window"]}
    first = "No window was recovered from a plain step"
    if given:
        first = (
            f"A plain step on a batch of {' and of '.join(map(str, given))} gives windows away: "
            "who sees it reads the sensors. Such steps must not be sent without noise"
        )
    for size in sorted(nearer - set(given)):
        first += f". From one on {size}, guesses come nearer than the mean window"
    sent = found["update"]
    if sent is None:
        return f"{first}. The run's own updates were not seen: this server adds up none by itself."
    guesses = [sent["mean_window"], *([] if sent["other_site"] is None else [sent["other_site"]])]
    second = (
        "The run's own update brings guesses nearer to a site's windows than guesses without it"
        if sent["error"] < min(guesses)
        else "From the run's own update this attack learns less than from the mean window; a "
        "stronger one (simulated local steps, priors on windows) was not tried"
    )
    return f"{first}. {second}."


def _of(step: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(step["attacks"].values())


def both(of: Mapping[str, Any]) -> str:
    """Return AUC and advantage with their intervals."""
    return ", ".join(
        f"{name} {of[key]['value']:.3f} ({of[key]['low']:.3f} to {of[key]['high']:.3f})"
        for key, name in (("auc", "AUC"), ("advantage", "advantage"))
    )


def verdict(found: Mapping[str, Any]) -> str:
    """Return what the numbers say, and what they do not."""
    seen, base = found["model"]["auc"], found["untrained"]["auc"]
    if seen["low"] > max(0.5, base["high"]):
        said = "The attack works: training windows are told from others beyond chance"
    elif seen["low"] > 0.5:
        said = (
            "Training windows are told from others, but an untrained model tells them nearly as "
            "well: the machines differ by themselves"
        )
    else:
        said = "This attack finds nothing; a stronger one (shadow models) was not tried"
    return f"{said}."


if __name__ == "__main__":
    sys.exit(run_command(main))
