import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.gpu_proof.checks import Check
from evaluation.gpu_proof.rows import Row
from parallax.metrics.environment import git_state

Results = Mapping[Check, Sequence[Row]]
_COLUMNS = ("what", "found", "expected", "verdict", "reason")


def describe_machine(device: torch.device) -> dict[str, str]:
    """What a reader of the table must know of where it came from."""
    facts = {"device": platform.processor() or platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        capability = torch.cuda.get_device_capability(device)
        facts["device"] = f"{torch.cuda.device_count()} x {properties.name}"
        facts["memory"] = f"{properties.total_memory / 2**30:.1f} GiB"
        facts["capability"] = f"sm_{capability[0]}{capability[1]}"
        facts["driver"] = _driver()
        facts["cuda"] = str(torch.version.cuda)
        version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        facts["nccl"] = ".".join(map(str, version))
    facts |= {"torch": torch.__version__, "python": platform.python_version(), "platform": platform.platform()}
    git = git_state(Path(__file__).parent)
    if git is not None:
        facts["commit"] = git.commit[:12] + (" with changes" if git.dirty else "")
    return facts


def _driver() -> str:
    """As the kernel module states it; `nvidia-smi` may be missing in a container."""
    file = Path("/proc/driver/nvidia/version")
    return file.read_text().splitlines()[0].removeprefix("NVRM version: ") if file.exists() else "unknown"


def count_verdicts(results: Results) -> dict[str, int]:
    """How many rows came to each verdict."""
    verdicts = [row.verdict for rows in results.values() for row in rows]
    return {verdict: verdicts.count(verdict) for verdict in ("pass", "fail", "not possible here", "measured")}


def to_markdown(machine: Mapping[str, str], results: Results, seconds: float) -> str:
    """The table that a user sends in."""
    lines = ["# GPU proof", "", *(f"- {name}: {value}" for name, value in machine.items())]
    counts = ", ".join(f"{number} {verdict}" for verdict, number in count_verdicts(results).items())
    lines += [f"- {counts}; {seconds:.0f} s", ""]
    for check, rows in results.items():
        lines += [f"## {check.title}", "", "| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
        lines += ["| " + " | ".join(_cell(row, column) for column in _COLUMNS) + " |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(row: Row, column: str) -> str:
    text = " ".join(str(getattr(row, column)).split()).replace("|", "\\|")
    return f"**{text}**" if text == "fail" else text


def to_json(machine: Mapping[str, str], results: Results, seconds: float) -> str:
    """The same for a program."""
    content: dict[str, Any] = {"machine": dict(machine), "seconds": round(seconds, 1)}
    content["counts"] = count_verdicts(results)
    content["checks"] = {check.name: [row.to_dict() for row in rows] for check, rows in results.items()}
    return json.dumps(content, indent=1) + "\n"


def write_report(output: Path, machine: Mapping[str, str], results: Results, seconds: float) -> None:
    """OUTPUT.md and OUTPUT.json, anew after every check."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_name(output.name + ".md").write_text(to_markdown(machine, results, seconds))
    output.with_name(output.name + ".json").write_text(to_json(machine, results, seconds))
