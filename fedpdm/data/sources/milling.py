"""Milling runs whose sensors are driven by their program: generated, one site per machine shop.

A run is a program of one operation (a cut in a material, with a sound or a worn tool): lines of
G-code, each of them executed for some time. What a line does moves what sensors read: groups of
sensors, those of the source document (gcode-training-results), see one part of it each. So a
line can be read back from its sensors, and what each group adds is known: one group is planted
decisive, it sees how far the tool goes, and one is planted irrelevant, it sees noise.

Windows lie within a line and runs are split as a whole, so no window of a run is in two splits.
Shapes: R rows, K parts of what is latent, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedpdm.data.partition import Natural, Partition
from fedpdm.data.rows import Floats, Ints, Rows, Split, Strings
from fedpdm.data.sources.base import Source, require_choice, require_positive
from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator

SIZES = {
    "proximity": 9, "pressure": 12, "accel_x": 12, "accel_y": 12, "accel_z": 12, "gyro_x": 12,
    "gyro_y": 12, "gyro_z": 12, "mag_x": 11, "mag_y": 11, "mag_z": 12, "colour": 13, "position": 3,
    "audio": 5, "temperature": 3, "motor_current": 4,
}  # fmt: skip
"""Channels of each group of the source document: 155."""
SEES: dict[str, tuple[str, ...]] = {
    "proximity": ("reach_x", "reach_y", "radius"), "pressure": ("force",),
    "accel_x": ("fine_x",), "accel_y": ("fine_y",), "accel_z": ("fine_z",),
    "gyro_x": ("turn_x",), "gyro_y": ("turn_y",), "gyro_z": ("rapid",),
    "mag_x": ("way_x",), "mag_y": ("way_y",), "mag_z": ("way_z",),
    "colour": ("material",), "position": ("reach_z",), "audio": ("speed",),
    "temperature": ("cut",), "motor_current": (),
}  # fmt: skip
"""What is latent, by the group that sees it where nothing else is planted."""
DECISIVE, IRRELEVANT = "proximity", "motor_current"
LATENT = tuple(part for parts in SEES.values() for part in parts)
STATES = {"spindle": 3, "coolant": 3, "tool": 3, "reference": 3}
"""Categorical channels, and how many values each has."""

CUTS, MATERIALS = ("face", "pocket", "drill"), ("aluminium", "steel", "worn")
OPERATIONS = tuple(f"{cut}_{material}" for cut in CUTS for material in MATERIALS)
FORMS = {
    "face": (("G1", "XY"), ("G1", "XF"), ("G1", "YF")),
    "pocket": (("G2", "XR"), ("G3", "XR"), ("G2", "YR"), ("G3", "YR")),
    "drill": (("G0", "Z"), ("G53", "Z"), ("G1", "ZF"), ("G0", "XY")),
}
"""Kinds of lines, by the cut that they are three times as frequent in."""
FEEDS, SPEEDS = (100, 200, 400, 800), (1000, 2000, 4000, 8000)


@dataclass(frozen=True)
class Plan:
    """How many runs of what kind.

    Attributes:
        runs: of each shop.
        lines: of each run.
        shortest: rows of the shortest line.
        longest: rows of the longest line.
        noise: deviation of a reading, in units of a whole swing of what it sees.
        heterogeneity: how far the gains and offsets of two shops lie apart, in the same units.
        channels: at most so many of a group; None: as many as the source has.
        decisive: the group that sees how far the tool goes.
        irrelevant: the group that sees nothing.
    """

    runs: int
    lines: int
    shortest: int
    longest: int
    noise: float
    heterogeneity: float
    channels: int | None
    decisive: str
    irrelevant: str

    @property
    def sees(self) -> dict[str, tuple[str, ...]]:
        """What each group sees: the planted groups change places with the usual ones."""
        sees = dict(SEES)
        for usual, planted in ((DECISIVE, self.decisive), (IRRELEVANT, self.irrelevant)):
            place = next(name for name, parts in sees.items() if parts == SEES[usual])
            sees[place], sees[planted] = sees[planted], sees[place]
        return sees

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The channels of each group."""
        sees, found = self.sees, {}
        for name, most in SIZES.items():
            size = most if self.channels is None else min(most, self.channels)
            size = max(size, len(sees[name]))
            found[name] = tuple(f"{name}_{number}" for number in range(1, size + 1))
        return found | {"states": tuple(STATES)}


class MillingSource(Source):
    """Machine shops that run generated programs.

    ``Rows.groups`` of a row hold the truth: ``operation`` and ``program``, the line in force.
    A life is a line.
    """

    name = "milling"
    time_unit = "steps"
    categorical = tuple(STATES)
    levels = STATES

    def __init__(
        self,
        *,
        sites: Mapping[str, object],
        seed: int = 0,
        reach: float = 0.0,
        partition: Partition | None = None,
        shops: int = 3,
        runs: int = 30,
        lines: int = 12,
        window: int = 64,
        stride: int = 16,
        noise: float = 0.3,
        heterogeneity: float = 0.05,
        channels: int | None = None,
        decisive: str = DECISIVE,
        irrelevant: str = IRRELEVANT,
    ) -> None:
        """Check the settings; nothing is generated yet.

        Args:
            sites: names of shops; empty: ``shops`` numbered ones.
            seed: of every draw.
            reach: must be 0, as nothing is foretold.
            partition: only the natural one: every shop has runs of its own.
            shops: how many, where ``sites`` names none.
            runs: programs of each shop; at least 5, to be split.
            lines: of a program; at least 2, its start and its end.
            window: rows in a model input; a line lasts at least as long.
            stride: rows between the ends of two windows of a line.
            noise, heterogeneity, channels, decisive, irrelevant: see ``Plan``.

        Raises:
            ConfigError: a setting that is out of its range or has no meaning here.
        """
        if partition is not None and not isinstance(partition, Natural):
            raise ConfigError(
                "data=milling gives every shop its own runs, there is nothing to divide: use "
                "partition=natural and data.shops"
            )
        if reach > 0:
            raise ConfigError(
                "data=milling has no failures to foretell: use task=operation or task=program"
            )
        count = require_positive("data.shops", shops)
        for key, value, least in (("runs", runs, 5), ("lines", lines, 2)):
            if require_positive(f"data.{key}", value) < least:
                raise ConfigError(f"data.{key}={value} must be at least {least}")
        for key, spread in (("noise", noise), ("heterogeneity", heterogeneity)):
            if not 0 <= spread <= 10:
                raise ConfigError(f"data.{key}={spread} must be at least 0 and at most 10")
        require_choice("data.decisive", decisive, SIZES)
        require_choice("data.irrelevant", irrelevant, SIZES)
        if decisive == irrelevant:
            raise ConfigError(f"data.decisive and data.irrelevant are both {decisive}")
        if channels is not None:
            require_positive("data.channels", channels)
        self.window = require_positive("data.window", window)
        self.stride = self.evaluation_stride = require_positive("data.stride", stride)
        longest = self.window + 2 * self.stride
        self.plan = Plan(
            runs, lines, self.window, longest, noise, heterogeneity, channels, decisive, irrelevant
        )
        self.groups = self.plan.groups
        self.features = tuple(name for group in self.groups.values() for name in group)
        self.seed = seed
        self._names = tuple(sites) or tuple(f"shop-{number}" for number in range(1, count + 1))

    @property
    def sites(self) -> tuple[str, ...]:
        return self._names

    def rows(self, site: str) -> Rows:
        generator = numpy_generator(self.seed, "milling", site)
        shop = Shop.drawn(self.plan, generator)
        shares = generator.dirichlet(np.full(len(OPERATIONS), 5.0))
        operations = generator.choice(len(OPERATIONS), self.plan.runs, p=shares).astype(np.int64)
        split = by_run(operations, generator)
        parts = [
            replace(
                run_rows(f"{site}-run-{number:03d}", operation, shop, self.plan, generator),
                features=self.features,
            )
            for number, operation in enumerate(operations.tolist())
        ]
        rows = Rows.concatenate(parts)
        return replace(rows, split=np.repeat(split, [len(part) for part in parts]))

    def expected_rows(self, site: str) -> int:
        return self.plan.runs * self.plan.lines * (self.plan.shortest + self.plan.longest) // 2


def by_run(operation: Ints, generator: np.random.Generator) -> NDArray[np.int8]:
    """Return (N,) splits of N runs: of five of them three are trained on, one is validated on.

    Runs of one operation (N,) are dealt in turn, so that each split has its share of them.
    """
    shuffled = generator.permutation(len(operation))
    order = shuffled[np.argsort(operation[shuffled], kind="stable")]
    split = np.full(len(operation), Split.TRAIN, dtype=np.int8)
    split[order[3::5]] = Split.VALIDATION
    split[order[4::5]] = Split.TEST
    return split


@dataclass(frozen=True)
class Shop:
    """How the sensors of a shop read.

    Attributes:
        mixes: (K, C) what each channel sees of each latent part.
        offsets: (C,) its reading at rest.
    """

    mixes: Floats
    offsets: Floats

    @staticmethod
    def drawn(plan: Plan, generator: np.random.Generator) -> Shop:
        """Return a shop; its channels see the same parts as those of any other."""
        sees = [(plan.sees.get(name, ()), group) for name, group in plan.groups.items()]
        sees = [(parts, group) for parts, group in sees if group != tuple(STATES)]
        count = sum(len(group) for _, group in sees)
        mixes, offsets, place = np.zeros((len(LATENT), count)), np.zeros(count), 0
        for parts, group in sees:
            for number in range(len(group)):
                gain, offset = 1 + plan.heterogeneity * generator.normal(), generator.normal()
                if parts:  # a group that sees nothing does not tell the shop either
                    mixes[LATENT.index(parts[number % len(parts)]), place] = gain
                    offsets[place] = plan.heterogeneity * offset
                place += 1
        return Shop(mixes, offsets)


def run_rows(
    name: str, operation: int, shop: Shop, plan: Plan, generator: np.random.Generator
) -> Rows:
    """Return the rows of a run, all of them of no split; features are not named yet."""
    program = draw_program(operation, plan.lines, generator)
    lasts = generator.integers(plan.shortest, plan.longest + 1, len(program))
    latent = np.array([latent_of(words, operation) for words in program])
    line = np.repeat(np.arange(len(program)), lasts)
    since = np.concatenate([np.arange(1.0, steps + 1) for steps in lasts])
    # A reading takes a few steps to follow.
    signal = latent[line] * (1 - np.exp(-since / 3.0))[:, None]
    drift = shop.offsets + 0.02 * generator.normal(size=len(shop.offsets))
    values = signal @ shop.mixes + drift
    values += plan.noise * generator.normal(size=values.shape)
    count = len(line)
    texts = np.array([" ".join((word, *numbers)) for word, *numbers in program])
    return Rows(
        features=(),
        values=np.column_stack([values, states(program, line, generator)]),
        machine=np.full(count, name),
        time=np.arange(1.0, count + 1),
        life=line.astype(np.int64),
        time_to_failure=np.full(count, np.nan),
        observed=np.zeros(count),
        split=np.full(count, Split.UNUSED, dtype=np.int8),
        condition=np.zeros(count, dtype=np.int64),
        groups=truth(np.full(count, OPERATIONS[operation]), texts[line]),
    )


def truth(operation: Strings, program: Strings) -> dict[str, Strings]:
    """Return the columns of (R,) operations and program lines that tasks read."""
    return {"operation": operation, "program": program}


def draw_program(
    operation: int, lines: int, generator: np.random.Generator
) -> list[tuple[str, ...]]:
    """Return the lines of a program as words: the spindle starts, the tool moves, it ends."""
    cut = CUTS[operation // len(MATERIALS)]
    forms = [("M3", "S"), *(form for group in FORMS.values() for form in group)]
    weights = np.array([3.0 if form in FORMS[cut] else 1.0 for form in forms])
    drawn = generator.choice(len(forms), max(lines - 2, 0), p=weights / weights.sum())
    program = [_line("M3", "S", generator)]
    for number in drawn.tolist():
        command, parameters = forms[number]
        program.append(_line(command, parameters, generator))
    return [*program, ("M30",)]


def _line(command: str, parameters: str, generator: np.random.Generator) -> tuple[str, ...]:
    words = [command]
    for name in parameters:
        if name == "F":
            words.append(f"F{generator.choice(FEEDS)}")
        elif name == "S":
            words.append(f"S{generator.choice(SPEEDS)}")
        elif name == "R":
            words.append(f"R{5.0 * generator.integers(1, 5):.2f}")
        else:
            size = 5.0 * generator.integers(1, 5) + 2.5 * generator.integers(0, 2)
            words.append(f"{name}{generator.choice((-1.0, 1.0)) * size:.2f}")
    return tuple(words)


def latent_of(words: tuple[str, ...], operation: int) -> Floats:
    """Return (K,) what a line does, each part between -1 and 1, in the order of ``LATENT``."""
    command, *rest = words
    value = {word[0]: float(word[1:]) for word in rest}
    cut, material = divmod(operation, len(MATERIALS))
    found = dict.fromkeys(LATENT, 0.0)
    found |= {"material": material - 1.0, "cut": cut - 1.0, "rapid": float(command == "G0")}
    if "R" in value:
        found["radius"] = _level(value["R"] / 5)
    # What is cut with decides how a speed sounds and how a feed pushes, by a whole step each, so
    # audio is read with temperature and pressure with colour.
    if "S" in value:
        found["speed"] = _level(1 + np.log2(value["S"] / SPEEDS[0]) + found["cut"]) / 1.7
    if "F" in value:
        found["force"] = _level(1 + np.log2(value["F"] / FEEDS[0]) + found["material"]) / 1.7
    turn = {"G2": 1.0, "G3": -1.0}.get(command, 0.0)
    found["turn_x" if "X" in value else "turn_y"] = turn
    for axis in "XYZ":
        if axis in value:
            coarse, fine = divmod(abs(value[axis]), 5.0)
            name = axis.lower()
            found[f"reach_{name}"] = _level(coarse)
            found[f"fine_{name}"] = 1.0 if fine else -1.0
            found[f"way_{name}"] = float(np.sign(value[axis]))
    return np.array([found[name] for name in LATENT])


def _level(step: float) -> float:
    """Return steps 1, 2, 3 and 4 as -1 … 1; a sensor that is not driven reads 0."""
    return (step - 2.5) / 1.5


def states(program: list[tuple[str, ...]], line: Ints, generator: np.random.Generator) -> Floats:
    """Return (R, 4) categorical channels: codes 0, 1 and 2 as numbers.

    The spindle's is the step of the speed that was set before the line, tool and coolant stay as
    they are in a run, and the reference is 1 while the tool goes to the machine's own zero (G53).
    """
    spindle, tool, coolant = generator.integers(0, 3, 3).tolist()
    before = []
    for command, *rest in program:
        before.append(spindle)
        if command == "M3":
            spindle = min(SPEEDS.index(int(rest[0][1:])), 2)
    home = np.array([float(command == "G53") for command, *_ in program])[line]
    flickers = generator.random(len(line)) < 0.02
    return np.column_stack([
        np.array(before, dtype=np.float64)[line],
        np.full(len(line), float(coolant)),
        np.full(len(line), float(tool)),
        np.where(flickers, 2.0, home),
    ])  # fmt: skip
