"""What ``python -m fedpdm.simulate --help`` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from fedpdm.config.compose import groups, options


def help_text(arguments: Sequence[str] = ()) -> str:
    """Return the help of ``python -m fedpdm.simulate``, with every option that exists."""
    ordered = sorted(groups(), key=lambda g: HELP_ORDER.index(g) if g in HELP_ORDER else 99)
    listed = "\n".join(
        textwrap.fill(
            "  ".join(options(group, arguments)) or "(yours, with --config-dir)",
            width=100, initial_indent=f"  {group:<10} ", subsequent_indent=" " * 13,
            break_on_hyphens=False, break_long_words=False,
        )
        for group in ordered
    )  # fmt: skip
    return HELP.format(options=listed)


HELP_ORDER = ["site", "data", "task", "partition", "model", "strategy", "engine", "debug"]

HELP = """\
Simulate federated learning for predictive maintenance across factory sites.

  python -m fedpdm.simulate site=detroit,houston

One command: the sites train a shared model, and the result stands beside each site
alone, all data pooled, boosted trees and a constant. Everything is kept in runs/….

Choose (NAME=OPTION):
{options}

Change (KEY=VALUE):
  rounds=20 seed=7                 length and seed
  strategy.proximal_mu=0.1         any value of a chosen option
  strategy.fraction_train=0.5      share of sites per round
  task.horizon=30 data.window=50   what is predicted, from how many rows
  training.local_epochs=1          local training: batch_size, learning_rate, clip_norm, …
  sites.houston.machines=40        one site
  replicas=50                      each named site becomes fifty
  partition=machine partition.sites=10 site=[]   the partition makes the sites
  monitor.rollback=true            return to the last good round by itself
  faults.nan=houston@4             put a fault in: SITE@ROUND
  hydra.run.dir=my/run             where to write

Continue:   python -m fedpdm.simulate resume=runs/2026-01-31_12-00-00-ab12cd
Sweep:      python -m fedpdm.simulate -m strategy=fedavg,fedprox seed=0,1,2,3,4,5
            compared at its end; hydra.sweep.dir=FOLDER again continues a stopped one
Federations python -m fedpdm.simulate -m 'site=[detroit],[houston],[detroit,houston]'
Look:       python -m fedpdm.simulate --cfg job        (the composed config)
Your own:   python -m fedpdm.simulate --config-dir my_conf strategy=mine

After it:   python -m fedpdm.history list RUN · show RUN ROUND · rollback RUN ROUND
            python -m fedpdm.predict RUN plant.csv
            python -m fedpdm.compare RUN RUN …
"""
