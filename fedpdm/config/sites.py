"""The sites of a composed config: their names, which of them are meant, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from fedpdm.config.command_line import options
from fedpdm.config.schema import conf_dir
from fedpdm.errors import ConfigError


def leave_out_sites(cfg: DictConfig, chosen: Sequence[str], overrides: Sequence[str]) -> None:
    """Take sites of ours out that an experiment sets up and the command does not choose.

    Args:
        cfg: the composed config, changed in place.
        chosen: the sites that the command names; empty leaves all.
        overrides: as ``rewrite`` returns them; sites that one of them sets stay.
    """
    if not chosen or not OmegaConf.is_dict(cfg.sites):
        return
    texts = [override.lstrip("+~") for override in overrides]
    said = {text.split(".")[1] for text in texts if text.startswith("sites.")}
    with open_dict(cfg):
        for name in sorted({*cfg.sites} & {*options("site")} - {*chosen} - said):
            del cfg.sites[name]


def name_sites(cfg: DictConfig, names: Sequence[str]) -> None:
    """Turn keys of ``sites`` into text: yaml reads a site ``no`` as false, ``1000`` as a number."""
    if not OmegaConf.is_dict(cfg.sites) or all(isinstance(key, str) for key in cfg.sites):
        return
    texts = {yaml.safe_load(name): name for name in names}
    sites = OmegaConf.to_container(cfg.sites, resolve=False)
    with open_dict(cfg):
        cfg.sites = {texts.get(key, str(key)): value for key, value in sites.items()}  # type: ignore[union-attr]


def check_own_sites(cfg: DictConfig, overrides: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse generated sites where sites bring files, and name those that there are.

    Args:
        cfg: the composed config.
        overrides: as ``rewrite`` returns them.
        folders: the user's own options (``--config-dir``).

    Raises:
        ConfigError: ``data=files`` without ``site=``, or with a site of ours.
    """
    if not str(cfg.data.get("_target_", "")).endswith(".FilesSource") or not cfg.sites:
        return
    places = [conf_dir() / "site", *(Path(folder) / "site" for folder in folders)]
    yamls = {file.stem: file for place in places for file in sorted(place.glob("*.yaml"))}
    yamls.pop("example_plant", None)  # a pattern, nobody's site
    with_files = re.compile(r"^\s+path:", re.MULTILINE)
    own = [
        name for name, file in yamls.items()
        if with_files.search(file.read_text("utf-8", errors="replace"))
    ]  # fmt: skip
    strange = [
        name for name in cfg.sites
        if name not in own and name in yamls and yamls[name].parent == places[0]
    ]  # fmt: skip
    if not strange:
        return
    chosen = [override for override in overrides if override.startswith("site=")]
    way_out = (
        f"name yours: site={','.join(own)} (from {', '.join(folders) or 'conf'})"
        if own
        else "write one yaml for each of yours after the pattern of conf/site/example_plant.yaml, "
        "in FOLDER/site, and name them: --config-dir FOLDER site=NAME,NAME"
    )
    raise ConfigError(
        f"data=files, {chosen[-1] if chosen else 'without site='}: {strange[0]} is a site that "
        f"data=fleet generates, not one with files; {way_out}"
    )
