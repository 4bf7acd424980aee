"""Runs inside a run: the first of two stages, and a federation for each model that sites prefer.

The config of each is composed with the command's own overrides and kept in the config of the whole:
under ``pretraining`` (``init.pretrain=[…]``), and under ``federations``, by model
(``sites.detroit.models=[cnn,hybrid]``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
from hydra.core.singleton import Singleton
from omegaconf import DictConfig, OmegaConf, open_dict

from fedpdm.config.compose import check, translate
from fedpdm.config.schema import conf_dir
from fedpdm.config.stages import first_stage
from fedpdm.config.values import plain, resolved, rooted, select
from fedpdm.errors import ConfigError, FedPdmError

MODELS = "models"
"""The key of a site that lists the models it prefers."""


def add_parts(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Put the configs of the runs inside this run into its config, where it asks for some.

    Args:
        cfg: the composed config, changed in place.
        overrides: as ``rewrite`` returns them.

    Raises:
        ConfigError: one of them cannot be composed; the message says why.
    """
    for key, asked in (("pretraining", "init.pretrain=[OVERRIDE,…]"),
                       ("federations", "sites.NAME.models=[MODEL,…]")):  # fmt: skip
        if cfg[key] is not None:
            raise ConfigError(f"{key} is filled from {asked}: write that")
    add_first_stage(cfg, overrides)
    add_federations(cfg, overrides)


def add_first_stage(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Put the first stage's config under ``pretraining``, where ``init.pretrain`` asks for one.

    Args:
        cfg: the composed config, changed in place.
        overrides: as ``rewrite`` returns them.

    Raises:
        ConfigError: the first stage's config cannot be composed; the message says why.
    """
    listed = plain(select(cfg, "init.pretrain"))
    if listed is None:
        return
    if select(cfg, "init.run") is not None:
        raise ConfigError(
            f"init={cfg.init.run} and init.pretrain both say what the run starts from; leave one"
        )
    words = first_stage(overrides, listed)
    first = rooted(resolved(_composed(words, "init.pretrain, the first stage")))
    first.init, first.promote = OmegaConf.load(conf_dir() / "config.yaml").init, False
    cfg.pretraining = plain(first)


def add_federations(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Put a config for each model that a site prefers under ``federations``.

    A site that prefers none takes part with the run's own model, and what the command says of
    ``model`` is said of that one.

    Args:
        cfg: the composed config, changed in place.
        overrides: as ``rewrite`` returns them.

    Raises:
        ConfigError: a preference is no list of models, no site takes the model that the command
            speaks of, or sites are not those that are named.
    """
    if not (preferred := preferences(cfg)):
        return
    own = str(cfg.model.model_type)
    of_site = {str(site): preferred.get(str(site), [own]) for site in cfg.sites}
    models = dict.fromkeys(model for listed in of_site.values() for model in listed)
    of_model = [o for o in overrides if o.lstrip("+~").startswith(("model.", "model="))]
    if of_model and own not in models:
        raise ConfigError(
            f"{of_model[0]}: every site prefers other models (sites.NAME.models), so this has no "
            "effect; leave it out"
        )
    if plain(cfg.partition)["_target_"].rpartition(".")[2] != "Natural" or cfg.replicas != 1:
        raise ConfigError(
            "sites.NAME.models needs the sites as they are named: partition=natural, replicas=1"
        )
    if select(cfg, "init.run") is not None or cfg.pretraining is not None:
        raise ConfigError(
            "sites.NAME.models: federations of different models do not start from one run; leave "
            "init out"
        )
    others = [o for o in overrides if o not in of_model]
    found = {}
    for model in models:
        words = overrides if model == own else [*others, f"model={model}"]
        part = _composed(words, f"model={model}, a federation of its own")
        preferences(part)
        with open_dict(part):
            for site in [s for s in part.sites if model not in of_site[str(s)]]:
                del part.sites[site]
        part.promote = False
        found[model] = plain(rooted(resolved(part)))
    cfg.federations = found


def preferences(cfg: DictConfig) -> dict[str, list[str]]:
    """Take the models that sites prefer out of a config, and return them by site.

    Raises:
        ConfigError: one is no list of models that there are.
    """
    found: dict[str, list[str]] = {}
    sites = cfg.sites if OmegaConf.is_dict(cfg.sites) else {}
    for name, site in sites.items():
        if not OmegaConf.is_dict(site) or MODELS not in site:
            continue
        with open_dict(site):
            listed = plain(site).pop(MODELS)
            del site[MODELS]
        if listed is None:
            continue
        key = f"sites.{name}.{MODELS}={listed}"
        if not isinstance(listed, list) or not listed or len(set(map(str, listed))) < len(listed):
            raise ConfigError(f"{key} must be a list of different models, for example [cnn,lstm]")
        found[str(name)] = [str(model) for model in listed]
    return found


def parts_of(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Return a stored config without the configs inside it, and those."""
    inside = [config.get("pretraining")]
    federations = config.get("federations")
    inside += list(federations.values()) if isinstance(federations, Mapping) else []
    own = {key: each for key, each in config.items() if key not in ("pretraining", "federations")}
    return own, [each for each in inside if isinstance(each, Mapping)]


def _composed(words: Sequence[str], what: str) -> DictConfig:
    """Return a checked config; Hydra's own state, while it runs another job, stays.

    Raises:
        ConfigError: says what cannot be composed, and why.
    """
    hydra_now = Singleton.get_state()
    try:
        cfg = hydra.compose("config", overrides=[*words])
        check(cfg, words)
    except Exception as error:
        sentence = translate(error, words)
        Singleton.set_state(hydra_now)  # to say what there is, another config was composed
        if not isinstance(sentence, FedPdmError):
            raise
        raise ConfigError(f"{what}: {sentence}") from error
    return cfg
