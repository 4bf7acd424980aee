"""The decision record: what was asked of a model, what came out, what is risky, what to do then.

Every number and sentence is made from the gates; the Markdown says what the JSON says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedpdm.promote.evidence import Evidence
from fedpdm.promote.export import Exported
from fedpdm.promote.gates import Gate

MARKS = {"passed": "passed", "failed": "FAILED", "skipped": "skipped", "accepted": "accepted"}


def record(
    evidence: Evidence, exported: Exported | None, gates: Sequence[Gate], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the decision record as plain values.

    A model that no gate refuses is ``promoted`` when it has a version, else ``ready``.

    Args:
        evidence: the run, tested again.
        exported: the model's file; None if there is none.
        gates: all of them, asked.
        about: name and version of the model, its run, who signed, when.
    """
    refused = [gate.name for gate in gates if gate.refuses]
    good = "ready" if about["version"] is None else "promoted"
    return {
        "schema": 1,
        "decision": "refused" if refused else good,
        "refused_by": refused,
        **about,
        "data": {"name": evidence.card["data"]["name"], "sha256": evidence.data_sha256,
                 "generated": evidence.experiment.federation.source.generated,
                 "sites": len(evidence.sites)},
        "task": evidence.task.name,
        "metric": evidence.task.primary,
        "test": evidence.value(),
        "threshold": evidence.predictor.threshold,
        "format": exported and exported.format,
        "gates": [
            {
                "gate": gate.name,
                "status": gate.status,
                "critical": gate.critical,
                "hypothesis": gate.kind.hypothesis,
                "criterion": gate.found.criterion,
                "result": gate.found.said,
                "numbers": dict(gate.found.numbers),
                "accepted_because": gate.reason,
                "if_it_fails": gate.kind.if_it_fails,
            }
            for gate in gates
        ],
        "risks": risks(evidence, exported, gates),
    }  # fmt: skip


def risks(evidence: Evidence, exported: Exported | None, gates: Sequence[Gate]) -> list[str]:
    """Return what a person should know who uses the model, a sentence each."""
    found = []
    for gate in gates:
        if gate.status == "accepted":
            found.append(f"{gate.name}: not passed ({gate.found.said}); accepted: {gate.reason}")
        elif gate.status != "passed":
            found.append(f"{gate.name}: {gate.status} ({gate.found.said})")
    if evidence.experiment.federation.source.generated:
        found.append("the data is generated: the numbers say nothing of a real plant")
    for gate in gates:
        failing = gate.found.numbers.get("failing") if gate.name == "trivial" else None
        if failing is not None and failing < 10:
            found.append(
                f"only {failing} machines failed in the test part: its intervals are too narrow"
            )
    if exported is not None and exported.reason is not None:
        found.append(f"{exported.reason}; it is a torch.export file, and has no predict.py")
    return [*found, *evidence.predictor.notes]


def markdown(said: Mapping[str, Any]) -> str:
    """Return a decision record as Markdown."""
    score = "–" if said["test"] is None else f"{said['test']:.3f}"
    lines = [
        f"# Decision: {said['name']}"
        + (f", version {said['version']}" if said["version"] is not None else ""),
        "",
        f"**{said['decision'].capitalize()}**"
        + (f" by {', '.join(said['refused_by'])}" if said["refused_by"] else "")
        + f", {said['date']}. Signed: {said['signed_by'] or 'nobody'}.",
        "",
        f"Run `{said['run']}`, model `{said['model']}`, round {said['round']}, "
        f"task `{said['task']}`, data `{said['data']['name']}` "
        f"({said['data']['sites']} sites, {str(said['data']['sha256'])[:12]}…). "
        f"Test {said['metric']}: {score}.",
        "",
        "| gate | status | asked for | result |",
        "|---|---|---|---|",
    ]
    for gate in said["gates"]:
        optional = "" if gate["critical"] else " (optional)"
        why = f"; accepted: {gate['accepted_because']}" if gate["accepted_because"] else ""
        cells = (gate["gate"] + optional, MARKS[gate["status"]], gate["criterion"],
                 gate["result"] + why)  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Hypotheses, and what to do where one does not hold", ""]
    for gate in said["gates"]:
        lines.append(f"- **{gate['gate']}**: {gate['hypothesis']} If not: {gate['if_it_fails']}.")
    lines += ["", "## Risks", ""]
    lines += [f"- {risk}" for risk in said["risks"]] or ["- None that a gate knows of."]
    return "\n".join(lines) + "\n"
