from collections.abc import Sequence

from rich.console import Console

from evaluation.jackknife import Estimate, Estimates
from evaluation.output import NamedTable, print_tables
from evaluation.tracks.found import Contribution, Found, Setting


def print_found(console: Console, found: Found) -> None:
    """Everything that was found, as tables."""
    setting = found.setting
    console.print(
        f"{setting.model}: {describe(setting)}\n{setting.data}: {setting.tokens:,} tokens in {setting.windows} "
        f"windows; ± and ranges are 95 % intervals over windows\nloss {nats(found.loss)} nats a token"
    )
    print_tables(console, tables(found))


def describe(setting: Setting) -> str:
    """Tracks, passes, layers and whether they swap, in words."""

    def count(number: int, noun: str) -> str:
        return f"{number} {noun}{'s' if number > 1 else ''}"

    parts = [count(setting.num_tracks, "track"), count(setting.num_loops, "pass").replace("passs", "passes")]
    swaps = "swap between passes" if setting.use_swap else "no swap"
    return f"{parts[0]} of {count(setting.num_layers, 'layer')}, {parts[1]}, {swaps}"


def tables(found: Found) -> list[NamedTable]:
    """All that was found."""
    shown: list[NamedTable] = []
    depths = ["", *found.setting.depths]
    if found.tracks is not None:
        for number, (i, j) in enumerate(found.tracks.pairs):
            rows = [
                [f"{name}, pass {loop + 1}", *_cells(values[number, loop])]
                for name, values in (("CKA", found.tracks.cka), ("cosine", found.tracks.cosine))
                for loop in range(found.setting.num_loops)
            ]
            shown.append((f"tracks {i} and {j}: how alike their states are, by depth", depths, rows))
    if found.passes is not None:
        rows = [
            [f"{name}, track {track}, pass {loop} and {loop + 1}", *_cells(values[number])]
            for name, values in (("CKA", found.passes.cka), ("cosine", found.passes.cosine))
            for number, (track, loop) in enumerate(found.passes.pairs)
        ]
        shown.append(("a track in one pass and the next: how alike its states are, by depth", depths, rows))
    header = ["", "share of the fused", "norm / fused norm", "loss without it"]
    if found.outputs:
        shown.append(("what the tracks add to the fuse", header, _parts(found.outputs)))
    if found.increments:
        shown.append(("the same sum by pass", header, _parts(found.increments)))
    if len(found.fused_early) > 1:
        rows = [[f"after pass {number}", nats(loss)] for number, loss in enumerate(found.fused_early, start=1)]
        shown.append(("fused early", ["", "loss"], rows))
    if found.ablations:
        rows = [[one.name, nats(one.loss), signed(one.change)] for one in found.ablations]
        shown.append(("with something taken out", ["", "loss", "change"], rows))
    return shown


def nats(estimate: Estimate) -> str:
    """A figure with half its interval."""
    return f"{estimate.value:.4f} ± {(estimate.high - estimate.low) / 2:.4f}"


def signed(estimate: Estimate) -> str:
    """A change with half its interval."""
    return f"{estimate.value:+.4f} ± {(estimate.high - estimate.low) / 2:.4f}"


def _cells(values: Estimates) -> list[str]:
    return [f"{value:.3f}" for value in values.value]


def _parts(parts: Sequence[Contribution]) -> list[list[str]]:
    return [
        [
            part.name,
            f"{part.share.value:+.1%} ± {(part.share.high - part.share.low) / 2:.1%}",
            f"{part.norm.value:.3f}",
            signed(part.loss_change),
        ]
        for part in parts
    ]
