"""What the five source documents state, what is wrong in them, and what stands here instead.

Numbers in this file are the documents' own, or counts that show a defect of theirs. Numbers of ours
come from ``benchmarks/results/`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A source document.

    Attributes:
        title: name of its system and of the document.
        claims: what it states, each with the section that states it.
        defects: what is wrong, and what is done here instead, with a link from ``docs/``.
    """

    title: str
    claims: tuple[tuple[str, str], ...]
    defects: tuple[tuple[str, str], ...]


def _decision(page: str) -> str:
    return f"[{page[:3]}](decisions/{page}.md)"


PROGRAMS = _decision("031-programs-from-sensors")
PROMOTION = _decision("033-promotion")
MIXER = _decision("034-mixer-hybrid")
PRETRAINING = _decision("035-pretraining-and-init")
CLASSES = _decision("036-classes-and-machines")
SPLITS = _decision("014-splits-and-guards")
EVALUATION = _decision("006-evaluation-and-baselines")
SITE_STATE = _decision("013-strategies-with-site-state")
AUGMENTATION = _decision("037-augmentations")
TRUST = _decision("022-trust-boundary")

DOCUMENTS: dict[str, Document] = {
    "networkfed": Document(
        "NetworkFed (`networkfed-models`)",
        (("accuracy 93.95 % (CNN), 94.15 % (LSTM), 92.20 % (hybrid)", "Architecture Overview"),),
        (
            ("“Never fails” has 96.60 % accuracy on the same test rows: above all three",
             f"average precision, beside trivial, alone, pooled and trees, {EVALUATION}"),
            ("Windows are cut from shuffled rows that SMOTE had extended; federated runs were "
             "tested "
             "on half-synthetic rows that training had seen, and stopped early on them",
             "windows in order of time, guards at every site, resampling of training rows "
             f"only, {SPLITS}"),
            ("BatchNorm statistics are not federated: the shared CNN and hybrid stay at 50 %",
             "buffers travel and are averaged; a test restores them bit for bit"),
            ("FedDyn runs backwards, FedNova multiplies where it should divide, FedProx is FedAvg",
             f"each is tested against its closed form, {SITE_STATE}"),
            ("“Secure” runs the same code as “Standard”; bytes from the network are unpickled",
             f"nothing is unpickled, {TRUST}; privacy is Flower's, with clipping"),
            ("No model is saved; a resumed run starts from new weights",
             "every round is kept, and a resumed run gives the same bytes"),
        ),
    ),
    "hvac": Document(
        "HVAC hybrid v2.2 (`hvac-hybrid-v2.2`)",
        (
            ("F1 0.2771, 0.2756, 0.2840 within 30, 60, 90 days; ROC-AUC 0.7230, 0.6981, 0.6958",
             "Model Files, v2.2"),
            ("a frozen foundation model with 31.64 % of its parameters trained", "Model Files, "
             "v2.2"),
            ("without statistics F1 falls by 29.2 %", "Performance Summary"),
        ),
        (
            ("The “foundation model” has random weights and is frozen",
             f"trained here by default, or started from a pretraining run by proof, {PRETRAINING}"),
            ("All 73 adapters are zero; query and key of the attention get no gradient",
             f"every trained tensor gets a gradient, which a test asks for, {MIXER}"),
            ("Thresholds and the best epoch were chosen on test data",
             f"on validation engines, {MIXER}"),
            ("“Always positive” has F1 0.165 to 0.174; v2.1 with 0.2887 is left out of the table",
             "trees and prevalence stand beside every score"),
            ("Each window is divided by its own deviation: level and scale are lost",
             f"scaled by training rows, {MIXER}"),
            ("The focal weight of failures is their share, 0.09: it suppresses them",
             "`objective.alpha` is the weight of failures"),
        ),
    ),
    "moola": Document(
        "moola (`moola-decision-log`)",
        (
            ("validation accuracy 70.0 %, weighted F1 57.6 %; shipped", "Validated Performance"),
            ("pretraining brings 0.000: 78 samples are too few", "Why Ship Gate 1 Baseline?"),
            ("“leak-free”, “no augmentation”", "Validation Gates Passed"),
        ),
        (
            ("70.0 % and 57.6 % are exactly the majority class of 20 windows: the shipped model "
             "is a "
             "constant",
             f"the gate `trivial` asks for a gain whose interval is above 0, {PROMOTION}"),
            ("The calibration error of 0.000 is an indexing bug; it is 0.20",
             "a test has this very case"),
            ("Batch 512 of 78 windows: three epochs are three steps",
             "batch 32, 24 rounds of 2 epochs"),
            ("MiniRocket's gate compares 20 windows: the intervals .46 to .88 and .36 to .81 "
             "overlap",
             "MiniRocket is a control of the run and a gate, with intervals over machines, "
             f"{PROMOTION}"),
            ("Order by row index, no purge between windows of 105 steps",
             f"order by time, a purge between parts, {SPLITS}"),
            ("80 % of tensors had to match, of a model of which 61.5 % at most could",
             f"every tensor of the encoder must match, and values are compared, {PRETRAINING}"),
            ("Mixup and cutmix ran although “no augmentation” is stated",
             "off unless asked for; a gate looks for made-up windows outside training, "
             f"{AUGMENTATION}"),
        ),
    ),
    "gcode": Document(
        "G-code (`gcode-training-results`)",
        (
            ("operation 100 %, token 90.23 %, type 99.8 %, command 99.9 %, parameter 96.2 %",
             "Performance Metrics (Test Set)"),
            ("600 times better than random (0.15 %); majority 23.74 %", "Comparison to Baselines"),
            ("focal gamma 2 is best, 90.68 %", "Training Technique Ablation"),
            ("without proximity −6.70 %", "Sensor Modality Ablation"),
        ),
        (
            ("Token accuracy is teacher-forced and counts the end mark",
             f"lines are decoded freely; exact match of whole lines leads, {PROGRAMS}"),
            ("Only the legacy head was trained: no loss reached type, command, parameter and "
             "digits",
             f"each head has a loss and a score, {PROGRAMS}"),
            ("Windows overlap by 75 % and are split at random: neighbours are in training and test",
             f"whole program runs are split, {PROGRAMS}"),
            ("No control without sensors: its own notebook has 82.45 % without looking at them",
             f"`language` is the same decoder without sensors, {PROGRAMS}"),
            ("One seed an ablation, differences of 0.4 points; relative drops subtracted as points",
             "differences are paired by seed, with an interval"),
            ("No ONNX code; 28 ms, not below 10",
             f"export with parity and measured latency are gates, {PROMOTION}"),
        ),
    ),
    "homeiq": Document(
        "HomeIQ (`homeiq-training-run`)",
        (
            ("home type: accuracy, precision, recall, F1 100 %", "1. Home Type Classifier"),
            ("device failure: accuracy 99.5 %, F1 98.2 %", "2. Device Intelligence Models"),
            ("all quality thresholds passed, ready for production", "Critical Components Status"),
        ),
        (
            ("8 test rows, near copies of the 32 of training: 10 homes, each made four times "
             "before "
             "the split",
             f"whole machines are tested that nobody trained on, {CLASSES}"),
            ("The failure label is a threshold rule on three inputs of the model",
             "labels are the generator's hidden state; a test shows that no threshold gives "
             f"them, {CLASSES}"),
            ("Every battery scenario is clamped to 0: a bug marks the class",
             "damage grows in the hidden state; sensors see it through noise, [fleet](fleet.md)"),
            ("A snapshot per device; patterns depend on the clock at generation",
             "series in time; the same seed gives the same bytes"),
            ("“Skipped” gates count as passed; one returns 1.0 as a placeholder",
             f"skipped is a state of its own, and refuses where the gate is critical, {PROMOTION}"),
            ("The manifest has no checksums and names a wrong source of data",
             f"checksums of all files, data and splits, {PROMOTION}"),
        ),
    ),
}  # fmt: skip
