"""Every notebook is executed."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LONG = ("02_does_federation_help", "03_source_systems")
"""What they show is tested elsewhere, too: several seeds, and tiny runs of the source systems."""
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", [
    pytest.param(path, marks=pytest.mark.long) if path.stem in LONG else path for path in NOTEBOOKS
], ids=lambda path: path.stem)  # fmt: skip
def test_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent.parent)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert outputs
    stored = nbformat.read(path, as_version=4)
    assert not any(c.get("outputs") for c in stored.cells), "outputs are not committed"
