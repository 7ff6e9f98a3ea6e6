import hashlib
import json
from html import escape

from evaluation.pictures import html_table, to_svg
from evaluation.tracks.found import Found
from evaluation.tracks.plots import draw_all
from evaluation.tracks.report import describe, nats, tables

_CAPTIONS = {
    "tracks": "How alike two tracks' states of the same tokens are, by pass and layer. CKA compares their "
    "geometry and does not see a rotation; the cosine compares the vectors themselves.",
    "passes": "How alike a track's states are in one pass and the next.",
    "map": "Linear CKA of all states with all states. Black lines part tracks, white ones passes.",
    "fuse": "The fused vector as a sum: the embedding, and what each track's blocks added in each pass. "
    "Right: the loss when that part alone is taken out before the norm, all else as it was.",
    "ablations": "The loss, computed anew, with something taken out where the tracks meet. Lines are 95 % "
    "intervals over windows of text, paired with the whole model.",
}


def section(found: Found) -> str:
    """What was found as one `<section>` of HTML with its pictures in it, to stand in another report.

    It loads nothing and styles nothing outside itself; the same findings give the same text.
    """
    setting = found.setting
    salt = hashlib.sha256(json.dumps(found.to_json(), sort_keys=True).encode()).hexdigest()[:12]
    parts = [
        '<section class="tracks">',
        f"<h2>Tracks of {escape(setting.model)}</h2>",
        f"<p>{escape(describe(setting))}. {setting.tokens:,} tokens of {escape(setting.data)} in "
        f"{setting.windows} windows; intervals are 95 % over windows. Loss {nats(found.loss)} nats a token.</p>",
    ]
    for name, figure in draw_all(found).items():
        caption = escape(_CAPTIONS[name])
        parts.append(
            f"<figure>{to_svg(figure, f'tracks-{salt}-{name}')}<figcaption>{caption}</figcaption></figure>"
        )
    for title, header, rows in tables(found):
        parts.append(f"<details><summary>{escape(title)}</summary>{html_table(header, rows)}</details>")
    return "\n".join([*parts, "</section>"])
