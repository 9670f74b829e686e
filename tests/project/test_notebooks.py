"""The notebooks run from top to bottom, and what they keep is small."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
LARGEST = 1_500_000  # bytes, outputs included: a web page shows it at once
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def pictures(notebook: dict) -> list[str]:
    """Pictures among the outputs, in base64."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["activation_maximization", "filters_and_activation_maps"]


@pytest.mark.slow
@notebooks
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    import nbclient
    import nbformat

    kept = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(pictures(fresh)) == len(pictures(kept)) >= 4


@notebooks
def test_outputs_are_kept_and_small(path: Path) -> None:
    import nbformat

    assert path.stat().st_size <= LARGEST
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [
        o for cell in cells for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]
