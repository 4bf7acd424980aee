"""The language of program lines: what encodes decodes, and nothing else is a line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpdm.data import programs
from fedpdm.data.programs import DECIMALS, LENGTH, PARAMETERS, PARTS, SIGNED, TAKES
from fedpdm.errors import DataError


@st.composite
def lines(draw: st.DrawFn) -> str:
    command = draw(st.sampled_from(sorted(TAKES)))
    chosen = draw(st.lists(st.sampled_from(TAKES[command]), unique=True, max_size=2)
                  if TAKES[command] else st.just([]))  # fmt: skip
    words = [command]
    for name in sorted(chosen, key=PARAMETERS.index):
        number = draw(st.integers(0, 9999))
        sign = "-" if name in SIGNED and number and draw(st.booleans()) else ""
        words.append(f"{name}{sign}{number / 10 ** DECIMALS[name]:.{DECIMALS[name]}f}")
    return " ".join(words)


@given(lines())
def test_a_line_comes_back_from_its_tokens_and_from_their_names(line: str) -> None:
    tokens = programs.encode([line])
    assert tokens.shape == (1, LENGTH, len(PARTS)) and tokens.dtype == np.uint8
    assert programs.decode(tokens) == [line]
    assert programs.well_formed(tokens).all()
    names = programs.names_of(tokens[0])
    assert len(names) == LENGTH and names[0] == "SOS" and names.count("EOS") == 1
    assert programs.line_of(names) == line


def test_tokens_are_those_of_the_document() -> None:
    tokens = programs.encode(["G1 X-12.5 F400"])
    assert programs.names_of(tokens[0]) == [
        "SOS", "G1", "X", "NUM_X_-1250", "F", "NUM_F_0400", "EOS"
    ]  # fmt: skip
    assert tokens[0, 3].tolist() == [programs.NUMBER, 0, 0, 2, 1, 2, 5, 0]


@pytest.mark.parametrize(
    "line",
    ["", "G9", "G1 F3 X1", "G1 X1 X2", "G1 X1 Y1 F1", "M3 S-4", "G1 X123.4", "G1 X1.234", "M30 X1",
     "G1 X", "g1 X1", "M3 S10000"],
)  # fmt: skip
def test_what_is_no_line_is_refused_with_its_text(line: str) -> None:
    with pytest.raises(DataError, match=f"program line '{line}'"):
        programs.encode([line])


@given(lines(), st.integers(1, LENGTH - 1), st.integers(0, len(PARTS) - 1), st.integers(0, 9))
def test_a_changed_token_is_another_line_or_none(
    line: str, place: int, part: int, value: int
) -> None:
    tokens = programs.encode([line])
    changed = tokens.copy()
    changed[0, place, part] = value
    if programs.well_formed(changed)[0]:
        assert np.array_equal(programs.encode(programs.decode(changed)), changed)
        assert (programs.decode(changed) == [line]) == bool((changed == tokens).all())
