import json
from pathlib import Path

from evaluation.output import make_output_folder
from evaluation.pictures import html_page, to_png
from evaluation.tracks.found import Found
from evaluation.tracks.plots import draw_all
from evaluation.tracks.section import section
from parallax.runtime.files import write_bytes_atomic, write_text_atomic


def write_found(found: Found, folder: Path) -> list[Path]:
    """Writes figures, a page and pictures; what had the same names is replaced.

    Raises:
        ConfigError: the folder's name is a file's.
        DiskFullError: no room; every file is the old one or the new one.
    """
    make_output_folder(folder)
    figures = folder / "tracks.json"
    write_text_atomic(figures, json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
    html = folder / "tracks.html"
    write_text_atomic(html, html_page(f"Tracks of {found.setting.model}", section(found)))
    written = [figures, html]
    for name, figure in draw_all(found).items():
        picture = folder / f"{name}.png"
        write_bytes_atomic(picture, to_png(figure))
        written.append(picture)
    return written
