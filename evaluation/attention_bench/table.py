import math
from collections.abc import Iterator, Sequence

from evaluation.attention_bench.contenders import PEER
from evaluation.attention_bench.rows import Row
from evaluation.output import NamedTable

_MOST_HEADLINES = 16
_COLUMNS = ["contender", "cache", "median", "q05", "q95", "of sdpa", "error", "floor", "over floor", "note"]


def shape_table(rows: Sequence[Row]) -> NamedTable:
    """One shape: every contender that was to be had, or why it was not timed."""
    gradients = any(row.gradient_error is not None for row in rows)
    header = [*_COLUMNS[:7], *(["of gradients"] if gradients else []), *_COLUMNS[7:]]
    lines = [list(_cells(row, gradients)) for row in rows if row.outcome != "unavailable"]
    against = {row.against: None for row in rows if row.against}
    beside = f"; errors against {', '.join(against)}" if against else ""
    return f"{rows[0].shape}, {rows[0].dtype}{beside}", header, lines


def headlines(rows: Sequence[Row]) -> list[str]:
    """Each backend of PLLA over SDPA: a line a shape where they are few, else their mean and range."""
    ours = [row for row in rows if row.family == "plla" and row.cache and row.ratio_to_sdpa is not None]
    names = dict.fromkeys(row.contender for row in ours)
    shapes = dict.fromkeys(row.shape for row in ours)
    if len(shapes) > _MOST_HEADLINES:
        return [line for name in names for line in _summary(name, [row for row in ours if row.contender == name])]
    lines = []
    for shape in shapes:
        for name in names:
            by_cache = {
                row.cache: row.ratio_to_sdpa for row in ours if (row.contender, row.shape) == (name, shape)
            }
            ratios = ", ".join(f"{ratio:.2f}x ({cache})" for cache, ratio in by_cache.items())
            if ratios:
                lines.append(f"{rows[0].task} {shape} {rows[0].dtype}: {name} takes {ratios} the time of {PEER}")
    return lines


def span(seconds: float | None) -> str:
    """Three digits of the largest unit of which there is one."""
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:,.3g} s" if seconds < 100 else f"{seconds:,.0f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _summary(name: str, rows: Sequence[Row]) -> Iterator[str]:
    for cache in dict.fromkeys(row.cache for row in rows):
        ratios = [row.ratio_to_sdpa for row in rows if row.cache == cache and row.ratio_to_sdpa]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        yield (
            f"{rows[0].task} {rows[0].dtype}, {len(ratios)} shapes: {name} takes {mean:.2f}x the time of {PEER} "
            f"({cache}), geometric mean of {min(ratios):.2f}x to {max(ratios):.2f}x"
        )


def _cells(row: Row, gradients: bool) -> Iterator[str]:
    yield from (row.contender, row.cache)
    yield from (span(row.q50_seconds), span(row.q05_seconds), span(row.q95_seconds))
    yield "" if row.ratio_to_sdpa is None else f"{row.ratio_to_sdpa:.2f}x"
    yield from (_error(row.error), *([_error(row.gradient_error)] if gradients else []))
    yield f"{span(row.floor_seconds)} ({row.floor_bound})"
    yield "" if row.over_floor is None else f"{row.over_floor:.2f}x"
    yield f"{row.timer}, {row.samples} samples" if row.outcome == "measured" else f"{row.outcome}: {row.reason}"


def _error(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"
