"""Parameter policies: which tensors travel, which are averaged, and which stay at a site.

One policy answers for all: the client (what to send, what to keep), the server (what
to expect), the stacked kernel, the final test and ``predict --site``. A policy of your own
is a subclass of ``ParameterPolicy`` and ``travels={_target_: mylab.MyPolicy}``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from fedpdm.errors import ConfigError
from fedpdm.models.mixer import LowRank
from fedpdm.models.wrapper import ModelWrapper

NORMALISATION = (
    nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The tensors of a model by where they belong, each in the model's order.

    Attributes:
        shared: parameters that travel, and that the strategy combines.
        buffers: buffers and frozen parameters that travel, and that the server averages.
        local: parameters and buffers that a site keeps; it starts from the initial model's.
    """

    shared: tuple[str, ...]
    buffers: tuple[str, ...]
    local: tuple[str, ...]


class ParameterPolicy:
    """Everything travels: the policy ``all``. Others override ``is_local`` or ``local``."""

    def is_local(self, name: str, layer: nn.Module) -> bool:
        """Return whether a tensor stays at its site.

        Args:
            name: of the parameter or buffer in the model, e.g. ``bn1.running_mean``.
            layer: the module that it belongs to.
        """
        return False

    def local(self, module: nn.Module) -> Collection[str]:
        """Return the names of the tensors that stay at their site."""
        return {
            name
            for prefix, layer in module.named_modules()
            for key in (*layer._parameters, *layer._buffers)
            if self.is_local(name := f"{prefix}.{key}" if prefix else key, layer)
        }

    def parts(self, model: ModelWrapper) -> Parts:
        """Return where each tensor of a model belongs.

        Parameters that are frozen and travel do so as buffers: no strategy or noise moves them.

        Raises:
            ConfigError: no parameter would be shared.
        """
        local, still = self.local(model.module), frozen(model.module)
        parameters, buffers = model.parameter_names, model.buffer_names
        shared = tuple(name for name in parameters if name not in local and name not in still)
        if parameters and not shared:
            raise ConfigError(
                "travels: every parameter of the model would stay at its site and nothing be "
                f"learnt together; share some of {', '.join(parameters[:5])}"
            )
        return Parts(
            shared,
            tuple(
                name for name in (*parameters, *buffers) if name not in local and name not in shared
            ),
            tuple(name for name in (*parameters, *buffers) if name in local),
        )


class NoNorm(ParameterPolicy):
    """FedBN: parameters and statistics of normalisation layers stay at their site.

    Li, Jiang, Zhang, Kamp, Dou 2021, FedBN: Federated Learning on Non-IID Features via Local Batch
    Normalization (ICLR). For sites whose sensors read differently; messages are shorter.
    """

    def is_local(self, name: str, layer: nn.Module) -> bool:
        return isinstance(layer, NORMALISATION)


class Body(ParameterPolicy):
    """FedPer: the body travels; ``output``, or else the last layer, stays at its site.

    Arivazhagan, Aggarwal, Singh, Choudhary 2019, Federated Learning with Personalization Layers
    (arXiv:1912.00818). For sites that agree on what matters in a window and not on what it means.
    """

    def local(self, module: nn.Module) -> Collection[str]:
        layers = {prefix: layer for prefix, layer in module.named_modules() if layer._parameters}
        named = [prefix for prefix in layers if prefix.partition(".")[0] == "output"]
        return {
            f"{prefix}.{key}" if prefix else key
            for prefix in named or [*layers][-1:]
            for key in (*layers[prefix]._parameters, *layers[prefix]._buffers)
        }


class Head(Body):
    """LG-FedAvg: the head travels; all but the last layer with parameters stay at their site.

    Liang et al. 2020, Think Locally, Act Globally: Federated Learning with Local and Global
    Representations (arXiv:2001.01523). For sites whose signals differ; messages are the shortest.
    """

    def local(self, module: nn.Module) -> Collection[str]:
        return set(module.state_dict()) - set(super().local(module))


class Adapters(ParameterPolicy):
    """What is trained beside a frozen encoder travels: adapters, attention, heads.

    The frozen tensors stay at home. They are those of the initial model at every site.

    Raises:
        ConfigError: (local) the model has no adapters.
    """

    def local(self, module: nn.Module) -> Collection[str]:
        still = frozen(module)
        if not still or not any(isinstance(layer, LowRank) for layer in module.modules()):
            raise ConfigError(
                "travels=adapters: this model has no adapters beside a frozen encoder; use "
                "model=mixer_hybrid model.config.freeze_encoder=true, or another choice of travels"
            )
        return still


class Named(ParameterPolicy):
    """Tensors travel whose names match one of the patterns: ``travels=[lstm.*,fc1.*]``.

    Args:
        patterns: as in a shell: ``*`` stands for any text.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = [str(pattern) for pattern in patterns]

    def local(self, module: nn.Module) -> Collection[str]:
        names = list(module.state_dict())
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(
                    f"travels: no tensor of the model matches {pattern!r}; there are "
                    f"{', '.join(names)}"
                )
        return {n for n in names if not any(fnmatchcase(n, p) for p in self.patterns)}


def frozen(module: nn.Module) -> Collection[str]:
    """Return the names of the parameters that no training changes.

    Where none has a gradient, as in trees, all are made in another way: none is frozen.
    """
    named = dict(module.named_parameters())
    still = {name for name, weight in named.items() if not weight.requires_grad}
    return still if len(still) < len(named) else set()


ALL = ParameterPolicy()

POLICIES: dict[str, type[ParameterPolicy]] = {
    "all": ParameterPolicy, "no_norm": NoNorm, "body": Body, "head": Head, "adapters": Adapters
}  # fmt: skip
