import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from evaluation.attention_bench.bandwidth import Bandwidth, measure_bandwidth
from evaluation.attention_bench.caches import Flusher
from evaluation.attention_bench.capacity import usable_bytes
from evaluation.attention_bench.contenders import Absent, plla_contenders, sdpa
from evaluation.attention_bench.csv_file import CsvFile
from evaluation.attention_bench.floor import Rates
from evaluation.attention_bench.measure import Bench
from evaluation.attention_bench.peers import peers
from evaluation.attention_bench.rows import Row, Setting, rows_of
from evaluation.attention_bench.shapes import Shape, parse_shape, public_grid
from evaluation.attention_bench.table import headlines, shape_table
from evaluation.attention_bench.task import Task
from evaluation.output import print_tables
from parallax.errors import ConfigError, run_and_explain
from parallax.metrics.peak import measure_peak
from parallax.runtime.allocator import keep_freed_memory
from parallax.runtime.device import resolve_device, resolve_precision

_ROUNDS = {"cpu": (3, 3, 10), "cuda": (50, 30, 20)}
"""warmup, iters and trials; on CUDA those of the public repository."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def main(task: Task, arguments: Sequence[str] | None = None) -> int:
    """Times what was asked for and prints tables and ratios; 1 if a contender failed."""
    given = _parser(task).parse_args(arguments)
    return run_and_explain(lambda: _run(task, given))


def _run(task: Task, given: argparse.Namespace) -> int:
    device = resolve_device(given.device)
    dtype_name = resolve_precision(given.dtype, device).name
    shapes = _shapes(task, given)
    setting = _setting(task, given, device, dtype_name)
    contenders = [
        sdpa(),
        *plla_contenders(task, device, given.backend),
        *peers(task, device, given.include_fa3),
    ]
    if given.resume and not given.csv:
        raise ConfigError("--resume goes on with a file; name it with --csv PATH")
    file = CsvFile(given.csv, given.resume) if given.csv else None
    console = Console()
    # As a run does; MALLOC_TRIM_THRESHOLD_=131072 in the environment undoes it.
    keep_freed_memory()
    dtype = _DTYPES[dtype_name]
    bandwidth = Bandwidth(given.bandwidth * 1e9, "as stated") if given.bandwidth else measure_bandwidth(device)
    bench = Bench(
        task=task,
        device=device,
        dtype=dtype,
        layout=setting.layout,
        setting=setting,
        contenders=contenders,
        rates=Rates(measure_peak(device, dtype), bandwidth),
        flusher=Flusher(device),
        capacity_bytes=usable_bytes(device),
        limit_seconds=given.limit_seconds,
    )
    _print_conditions(console, bench)
    rows = _measure_all(bench, shapes, file, console)
    for absent in contenders:
        if isinstance(absent, Absent):
            console.print(f"not timed: {absent.name}: {absent.reason}", highlight=False, soft_wrap=True)
    for line in headlines(rows):
        console.print(line, highlight=False, soft_wrap=True)
    return 1 if any(row.outcome == "failed" for row in rows) else 0


def _measure_all(bench: Bench, shapes: Sequence[Shape], file: CsvFile | None, console: Console) -> list[Row]:
    """Rows of all shapes, those that the file has among them; each table is printed as soon as it is there."""
    rows: list[Row] = []
    kept = 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for shape in progress.track(shapes, description=bench.task.name):
            there = rows_of(file.rows if file else [], bench.setting, shape)
            whole = bench.is_whole(there)
            found = there if whole else bench.measure(shape)
            kept += whole
            if file and not whole:
                file.append(found)
            rows += found
            print_tables(progress.console, [shape_table(found)])
    if kept:
        console.print(f"{kept} of {len(shapes)} shapes are of an earlier command, from the CSV file")
    return rows


def _setting(task: Task, given: argparse.Namespace, device: torch.device, dtype: str) -> Setting:
    on_gpu = device.type == "cuda"
    warmup, iters, trials = _ROUNDS[device.type]
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    return Setting(
        task=task.name,
        device=torch.cuda.get_device_name(device) if on_gpu else f"cpu, {threads} thread{plural}",
        dtype=dtype,
        layout=given.layout or ("positions" if on_gpu else "heads"),
        warmup=warmup if given.warmup is None else given.warmup,
        iters=given.iters or iters,
        trials=given.trials or trials,
    )


def _shapes(task: Task, given: argparse.Namespace) -> list[Shape]:
    shapes = public_grid() if given.parallax_grid else []
    shapes += [parse_shape(text, given.order) for text in given.shape]
    for shape in shapes:
        if shape.window is not None and not task.gradients:
            raise ConfigError(
                f"--shape with a window of {shape.window}: a new query reads its whole cache; leave it out"
            )
    return list(dict.fromkeys(shapes)) or list(task.shapes)


def _print_conditions(console: Console, bench: Bench) -> None:
    setting, peak, bandwidth = bench.setting, bench.rates.peak, bench.rates.bandwidth
    rate = f"{peak.flops_per_second / 1e9:,.0f} GFLOP/s" if peak.flops_per_second else "not known"
    lines = [
        f"{setting.task} on {setting.device}, {setting.dtype}, (B, {setting.layout} first, …) in memory",
        f"warmup {setting.warmup}, iters {setting.iters}, trials {setting.trials}, interleaved",
        f"matrix products: {rate} ({peak.source})",
        f"memory: {bandwidth.bytes_per_second / 1e9:,.1f} GB/s ({bandwidth.source})",
        f"cold: {bench.flusher.num_bytes / 2**20:.0f} MiB are written before each call",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _parser(task: Task) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m evaluation.bench_{task.name}",
        description="PLLA beside softmax attention, other packages' kernels and what the hardware allows.",
    )
    add = parser.add_argument
    add("--shape", action="append", default=[], metavar="B,H,L,D", help="or B,H,G,L,D, or B,H,G,L,D,W; repeatable")
    add("--order", choices=["BHLD", "BLHD"], default="BHLD", help="of --shape; BLHD is the public bench_decode's")
    add("--parallax-grid", action="store_true", help="the public repository's 216 shapes")
    add("--include-fa3", action="store_true", help="flash-attn 3 as well")
    add("--csv", type=Path, metavar="PATH", help="every row goes there as soon as it is measured")
    add("--resume", action="store_true", help="shapes that the file has, measured alike, are not measured again")
    add("--warmup", type=_count, help="calls before counting; default: 3 on the CPU, 50 on CUDA")
    add("--iters", type=_positive, help="calls of a contender in a trial; default: 3, 30")
    add("--trials", type=_positive, help="rounds over all contenders; default: 10, 20")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--dtype", choices=["auto", *_DTYPES], default="auto", help="auto: as a run's precision")
    add(
        "--backend",
        action="append",
        default=[],
        metavar="NAME",
        help="of PLLA; repeatable; default: all there are",
    )
    add("--layout", choices=["heads", "positions"], help="what comes first in memory; default: heads on the CPU")
    add("--bandwidth", type=float, metavar="GB/S", help="of memory, for the floor; default: measured")
    add("--limit-seconds", type=float, default=300.0, help="of a contender on a shape, at its floor; else skipped")
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number
