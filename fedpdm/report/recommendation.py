"""What a run recommends to each site, in one sentence."""

from __future__ import annotations

from fedpdm.evaluation.wording import listing
from fedpdm.report.gain_table import GainRow, GainTable

MOST = 6
"""Sites that are named."""


def recommendation(table: GainTable) -> str | None:
    """Return in one sentence which sites should use the shared model, and which their own.

    A site uses what is surely better for it. Where nothing is sure, too few machines failed in the
    test to tell, and the sentence says what the difference looks like. None where no site was
    compared with a model of its own.
    """
    judged = [row for row in table.rows if row.gain is not None]
    if len(table.rows) < 2 or not judged:
        return None
    use = [row for row in judged if row.sure and row.verdict == "better"]
    keep = [row for row in judged if row.sure and row.verdict == "worse"]
    open_ = [row for row in judged if row not in use and row not in keep]
    parts = []
    if use:
        parts.append(f"use the shared model at {_names(use, judged)}")
    if keep:
        parts.append(f"keep your own model at {_names(keep, judged)}")
    if open_ and parts:
        parts.append(f"at {_names(open_, judged)} too few machines failed to be sure")
    if not parts:
        better = [row for row in open_ if row.verdict == "better"]
        looks = (
            "the shared model looks better" if len(better) == len(open_)
            else "your own model looks as good or better" if not better
            else f"the shared model looks better at {_names(better, judged)}"
        )  # fmt: skip
        parts.append(
            "not enough failures yet to choose between the shared model and your own: "
            f"{looks}, and that could be chance"
        )
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _names(rows: list[GainRow], judged: list[GainRow]) -> str:
    if len(rows) == len(judged):
        return "every site" if len(judged) > 2 else "both sites"
    if len(rows) > MOST:
        return f"{len(rows)} of {len(judged)} sites"
    return listing([row.name for row in rows])
