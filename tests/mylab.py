"""A researcher's own package, written into a folder outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CODE = {
    "mylab/__init__.py": "",
    "mylab/strategies.py": '''
import torch
from fedpdm.strategies.base import ClientHalf, Outcome, ServerHalf, client_half


@client_half("mylab-pull")
class Pull(ClientHalf):
    """Pulls towards the mean of all models that the site came to before."""

    groups = ("before",)

    def term(self, received, memory):
        pull = float(self.setting)

        def add(parameters, received):
            with torch.no_grad():
                for parameter, own in zip(parameters, memory["before"], strict=True):
                    if parameter.grad is not None:
                        parameter.grad.add_(parameter - own, alpha=pull)

        return add

    def finish(self, work):
        old = work.memory["before"]
        return Outcome(memory={"before": {n: (a + old[n]) / 2 for n, a in work.trained.items()}})


class Pulled(ServerHalf):
    client = Pull

    def __init__(self, pull=0.5, **flower):
        super().__init__(setting=float(pull), **flower)

    def combine(self, server_round, sent, sums):
        return sums.mean
''',
    "mylab/models.py": '''
import torch
from torch import nn
from fedpdm.models.registry import register


@register("tcn")
class Tcn(nn.Module):
    """Two dilated convolutions over time."""

    def __init__(self, input_dim, num_classes, sequence_length=None, channels=8):
        super().__init__()
        self.first = nn.Conv1d(input_dim, channels, 3, padding="same")
        self.second = nn.Conv1d(channels, channels, 3, padding="same", dilation=2)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x):
        hidden = torch.relu(self.first(x.transpose(1, 2)))
        return self.head(torch.relu(self.second(hidden)).mean(dim=2))


@register("tiny_transformer")
class TinyTransformer(nn.Module):
    """One layer of attention."""

    def __init__(self, input_dim, num_classes, sequence_length=None, width=8):
        super().__init__()
        self.embed = nn.Linear(input_dim, width)
        self.place = nn.Parameter(torch.zeros(sequence_length, width))
        self.layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.layer(self.embed(x) + self.place).mean(dim=1))
''',
    "conf/strategy/pulled.yaml": "_target_: mylab.strategies.Pulled\nfraction_train: 1.0\n",
    "conf/model/tcn.yaml": "model_type: tcn\nconfig: {channels: 8}\n",
    "conf/model/tiny_transformer.yaml": "model_type: tiny_transformer\nconfig: {width: 8}\n",
    "conf/experiment/mine.yaml": "# @package _global_\nimports: [mylab.strategies,mylab.models]\n",
}  # fmt: skip

TINY = [
    "site=[detroit,houston]", "data.days=150", "data.step_hours=24", "data.window=8", "rounds=2",
    "training.local_epochs=1", "sites.detroit.machines=4", "sites.houston.machines=4",
    "baselines.max_plants=0", "evaluate.bootstrap=0",
]  # fmt: skip
"""A run of seconds."""

TRAINING = """training:
  optimizer: adam
  batch_size: 32
  learning_rate: 0.001
  weight_decay: 0.0001
  clip_norm: 1.0
"""


def commands(folder: Path, *lines: list[str]) -> list[tuple[int, str]]:
    """Run ``fedpdm`` commands in one process that starts in a folder.

    Returns:
        The exit code and what was written to standard error, by command.
    """
    code = "import json, sys\nfrom fedpdm.__main__ import main\n"
    code += "for line in json.loads(sys.argv[1]):\n"
    code += "    print('\\0', main(line), '\\0', file=sys.stderr, flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = done.stderr.split("\0")
    return [(int(code), text) for text, code in zip(told[::2], told[1::2], strict=False)]


def write(folder: Path) -> Path:
    """Write the package ``mylab`` and its options ``conf``; return the folder of both."""
    for name, text in CODE.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + (TRAINING if name.startswith("conf/model") else ""))
    return folder
