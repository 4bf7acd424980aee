"""The page of one method, in Markdown, from its yaml and its docstring."""

from __future__ import annotations

from fedpdm.catalogue.methods import Method


def page_of(method: Method, measured: str = "") -> str:
    """Return a page: what the method does, its formulas, arguments, costs, and what was measured.

    Args:
        method: from the catalogue.
        measured: a section in Markdown; empty for none.
    """
    costs = "; ".join(method.costs) or "nothing beside FedAvg that its classes state"
    sections = [
        f"# {method.name}",
        f"    python -m fedpdm.simulate {method.override}",
        " ".join(line.strip() for line in method.header if "python -m" not in line),
        f"Works differently from FedAvg: {method.where}. Costs: {costs}.",
    ]
    if method.document:
        sections += ["## What it does", method.document]
    if method.arguments:
        sections += ["## Arguments", f"```yaml\n{method.arguments}\n```"]
    if measured:
        sections += ["## Measured", measured]
    return "\n\n".join(sections) + "\n"
