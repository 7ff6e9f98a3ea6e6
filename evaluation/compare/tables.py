import csv
import io
from typing import Any

from evaluation.compare.curves import LABELS
from evaluation.output import NamedTable


def all_tables(data: dict[str, Any]) -> list[NamedTable]:
    """Arms, pairs, settings that differ and what else was not the same."""
    tables = [_arms(data), _pairs(data), _settings(data)]
    if data["environment"]:
        rows = [[key, *values] for key, values in data["environment"].items()]
        tables.append(("what else differs", ["", *(arm["name"] for arm in data["arms"])], rows))
    return tables


def _arms(data: dict[str, Any]) -> NamedTable:
    header = [
        "arm",
        "seeds",
        "final loss",
        "best loss",
        LABELS[data["by"]],
        "parameters",
        "KV bytes a token",
        "front",
    ]
    rows = []
    for arm in data["arms"]:
        means = [f"{arm['mean_final']:.4f}", f"{arm['mean_best']:.4f}"]
        sizes = [f"{arm['cost']:.4g}", f"{arm['parameters']:,}", f"{arm['kv_bytes']:,}"]
        rows.append([arm["name"], str(len(arm["finals"])), *means, *sizes, "yes" if arm["on_front"] else ""])
    return "arms: validation loss in nats a token, means over seeds", header, rows


def _pairs(data: dict[str, Any]) -> NamedTable:
    header = ["first against second", "verdict on the first", "seeds", "p", "p, Holm"]
    rows = [
        [
            f"{pair['first']} against {pair['second']}",
            pair["verdict"],
            str(len(pair["seeds"])),
            *("-" if p is None else f"{p:.2g}" for p in (pair["p"], pair["adjusted_p"])),
        ]
        for pair in data["pairs"]
    ]
    level = data["pairs"][0]["level"]
    return f"pairs: differences within a seed, intervals at {level:.2%}, so that all hold with 95 %", header, rows


def _settings(data: dict[str, Any]) -> NamedTable:
    header = ["setting", *(arm["name"] for arm in data["arms"])]
    rows = [[key, *(str(value) for value in values)] for key, values in data["settings"].items()]
    return "settings that differ", header, rows


def to_csv(data: dict[str, Any]) -> str:
    """One line for each run: arm, seed, final loss, and the arm's costs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["arm", "seed", "final_val_loss", "parameters", "flops_a_token", "kv_bytes_a_token", data["by"]]
    )
    for arm in data["arms"]:
        for seed, loss in arm["finals"].items():
            costs = [arm["parameters"], arm["flops"], arm["kv_bytes"], arm["cost"]]
            writer.writerow([arm["name"], seed, repr(loss), *costs])
    return text.getvalue()
