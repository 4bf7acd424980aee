"""List the methods there are, or explain one.

python -m fedpdm.strategies                 every method, what it does and who works differently
python -m fedpdm.strategies ditto           its paper, formulas, arguments and costs
python -m fedpdm.strategies --config-dir my_conf   yours, too
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fedpdm.errors import FedPdmError, run_command

USAGE = "usage: python -m fedpdm.strategies [NAME] [--config-dir FOLDER]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list or a page; return the exit code."""
    from rich.console import Console

    from fedpdm.catalogue import GROUPS
    from fedpdm.catalogue.methods import find, methods
    from fedpdm.catalogue.page import page_of
    from fedpdm.config.command_line import config_dirs

    words = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & {*words}:
        print(f"{USAGE}\n\n{__doc__}")
        return 0
    folders = config_dirs(words)
    names = [word for word in words if not word.startswith("-") and word not in folders]
    console = Console(highlight=False, soft_wrap=True)
    try:
        if len(names) > 1:
            print(f"error: {USAGE}", file=sys.stderr)
            return 2
        if names:
            console.print(page_of(find(names[0], words)), markup=False)
            return 0
        listed = list(methods(words))
    except FedPdmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    wide = max(len(method.name) for method in listed)
    for group, about in GROUPS.items():
        own = [method for method in listed if method.group == group]
        console.print(f"\n{group}=…  {about} ({len(own)})", style="bold", markup=False)
        for method in own:
            text = f"  {method.name:<{wide}}  {method.where:<6}  {method.line}"
            console.print(text, markup=False)
    print("\nsites, server, both: who works differently from FedAvg. NAME explains one.")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
