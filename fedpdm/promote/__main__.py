"""``python -m fedpdm.promote RUN``: gates, a decision record, a folder without PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedpdm.config.arguments import add_imports, add_out, parser_of
from fedpdm.errors import ConfigError, FedPdmError, run_command

DESCRIPTION = """\
Ask a finished run whether its model may be used. If every critical gate is passed, or accepted
with a reason, the model goes into a folder of its own that numpy, pandas and onnxruntime can use:

  python -m fedpdm.promote runs/2026-01-31_12-00-00-ab12cd
  python -m fedpdm.promote RUN --seeds RUN2,RUN3 --accept trees="rows may not leave the sites"
  python -m fedpdm.promote --list

Exit code 0: promoted. 1: refused, and the table says by which gate. 2: a mistake."""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = parser_of("promote", DESCRIPTION)
    made.add_argument("run", nargs="?", type=Path, metavar="RUN", help="the run folder")
    add_out(made, "where promoted models are (promoted)", "FOLDER", "--to",
            default=Path("promoted"))  # fmt: skip
    made.add_argument("--name", help="of the model (TASK-MODEL, as failure-lstm)")
    made.add_argument("--site", help="whose model, columns and scaling, where sites differ in them")
    made.add_argument("--seeds", metavar="RUN,RUN", default="",
                      help="runs of the same settings with other seeds")  # fmt: skip
    made.add_argument("--accept", action="append", default=[], metavar="GATE=REASON",
                      help="why a gate need not be passed; recorded as accepted")  # fmt: skip
    made.add_argument("--gates", type=Path, metavar="FILE",
                      help="a yaml with thresholds that differ from conf/promote.yaml")  # fmt: skip
    made.add_argument("--by", metavar="NAME", help="who signs the decision")
    made.add_argument("--registry", metavar="URI",
                      help="also MLflow's registry, as sqlite:///promoted/registry.db")  # fmt: skip
    add_imports(made)
    made.add_argument("--list", action="store_true", help="show versions and their status")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 1 where a gate refuses, 2 for mistakes."""
    given = parser().parse_args(arguments)
    try:
        if given.list:
            from fedpdm.promote.output import print_list

            print_list(given.out)
            return 0
        if given.run is None:
            raise ConfigError("name a run folder to promote, or --list")
        from fedpdm.config.imports import names_of
        from fedpdm.promote.promotion import Request, promote

        return promote(
            Request(
                run=given.run,
                store=given.out,
                name=given.name,
                site=given.site,
                seeds=[Path(part) for part in given.seeds.split(",") if part],
                accepted=_accepted(given.accept),
                gates=given.gates,
                signed_by=given.by,
                registry=given.registry,
                imports=names_of(given.imports),
            )
        )
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _accepted(words: Sequence[str]) -> Mapping[str, str]:
    """Return reasons by gate.

    Raises:
        ConfigError: a reason is missing.
    """
    result = {}
    for word in words:
        name, _, reason = word.partition("=")
        if not reason.strip():
            raise ConfigError(
                f"--accept {word} needs a reason, for example --accept trees='rows stay at home'"
            )
        result[name] = reason.strip()
    return result


if __name__ == "__main__":
    sys.exit(run_command(main))
