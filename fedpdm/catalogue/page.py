"""The page of one method, in Markdown, from its yaml and its docstring."""

from __future__ import annotations

from fedpdm.catalogue.methods import Method

WHO = {"sites": "Sites work", "server": "The server works", "both": "Sites and server work"}
"""The beginning of a sentence, by ``Method.where``."""


def page_of(method: Method, measured: str = "") -> str:
    """Return a page: what the method does, its formulas, arguments, costs, and what was measured.

    Args:
        method: from the catalogue.
        measured: a section in Markdown; empty for none.
    """
    differs = [f"{WHO[method.where]} differently from FedAvg."] if method.where in WHO else []
    if method.costs:
        differs.append(f"Costs beside FedAvg: {'; '.join(method.costs)}.")
    sections = [
        f"# {method.name}",
        f"    {method.command}",
        " ".join(line.strip() for line in method.header if "python -m" not in line),
        *([" ".join(differs)] if differs else []),
    ]
    if method.document:
        sections += ["## What it does", method.document]
    if method.arguments:
        sections += ["## Arguments", f"```yaml\n{method.arguments}\n```"]
    if measured:
        sections += ["## Measured", measured]
    return "\n\n".join(sections) + "\n"
