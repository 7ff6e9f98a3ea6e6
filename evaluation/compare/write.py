import json
from pathlib import Path

from evaluation.compare.comparison import Comparison
from evaluation.compare.page import page
from evaluation.compare.plots import draw_all
from evaluation.compare.tables import to_csv
from evaluation.output import make_output_folder
from evaluation.pictures import to_png
from parallax.errors import ConfigError
from parallax.runtime.files import write_bytes_atomic, write_text_atomic

REPORT = "report.json"


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """report.json, runs.csv, report.html and the pictures; each is replaced as a whole.

    Raises:
        ConfigError: the folder holds something else.
        DiskFullError: no room.
    """
    foreign = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if foreign and REPORT not in foreign:
        raise ConfigError(
            f"--output {folder}: it holds {foreign[0]!r} and no {REPORT}; name a new or empty folder"
        )
    make_output_folder(folder)
    data, pictures = comparison.data, draw_all(comparison.data)
    text = json.dumps(data | {"sha256": comparison.digest}, indent=1, ensure_ascii=False)
    # First, so that a folder whose writing was cut off is known as ours.
    write_text_atomic(folder / REPORT, text + "\n")
    write_text_atomic(folder / "runs.csv", to_csv(data))
    write_text_atomic(folder / "report.html", page(comparison, pictures))
    for name, figure in pictures.items():
        write_bytes_atomic(folder / f"{name}.png", to_png(figure))
