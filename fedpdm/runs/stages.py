"""Two stages in one command: ``init.pretrain=[task=reconstruction,rounds=10]``.

The first stage is a run of its own in ``RUN/pretraining``. The second starts from it as
``init=RUN/pretraining`` would. What both would refuse is refused before the first is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedpdm.config.values import Config, plain, resolved, select, yaml_of
from fedpdm.history.lock import PRETRAINING
from fedpdm.runs.experiment import build
from fedpdm.runs.folder import refuse_used
from fedpdm.runs.initial import load, scope_of
from fedpdm.runs.look import look_at_data
from fedpdm.runs.progress import Working
from fedpdm.storage import write_bytes
from fedpdm.trackers.guard import build_tracker


def after_first_stage(
    cfg: Config, folder: Path, simulate: Callable[..., Any], resumed: bool
) -> tuple[Config, bool]:
    """Run the first stage, if there is one and it is not done.

    Args:
        cfg: the config of the whole command.
        folder: of the run.
        simulate: runs a config in a folder, new or ``resumed=True``.
        resumed: continue what the folder holds.

    Returns:
        The config that the run is to be built from, which names what it starts from, and
        whether the second stage itself was begun before.

    Raises:
        UserError: one of the stages cannot work, or the folder holds another run.
    """
    begun = (folder / "manifest.json").exists()
    if select(cfg, "pretraining") is None or (resumed and begun):
        return cfg, resumed  # what it took over is in its own folder
    place, first = folder / PRETRAINING, resolved(cfg.pretraining)
    if not resumed:
        refuse_used(folder)
    with Working("checking both stages"):
        check_stages(cfg, first)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "config.yaml", yaml_of(cfg).encode())  # what resume= goes on with
    print(f"\nstage 1 of 2: {' '.join(plain(cfg.init.pretrain))}", flush=True)
    simulate(first, place, resumed=(place / "manifest.json").exists())
    print("\nstage 2 of 2", flush=True)
    asked = resolved(cfg)
    asked.init.run = str(place)
    return asked, False


def check_stages(cfg: Config, first: Config) -> None:
    """Refuse what either stage would refuse: options, data, and weights that do not fit.

    Args:
        cfg: the config of the second stage.
        first: that of the first one.

    Raises:
        UserError: says what cannot work.
    """
    there, here = build(first), build(cfg)
    for experiment in (there, here):
        look_at_data(experiment)
    build_tracker(cfg)
    scope = scope_of(cfg, there.model, here.model)
    trained = {name: array + 1 for name, array in there.initial.items()}  # every value another
    load(here.build_model(), trained, there.model["model_type"], scope, "init.pretrain")
