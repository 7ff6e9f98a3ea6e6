import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, isfinite
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from evaluation.study.arms import Arm, resolve
from evaluation.study.design import Design
from evaluation.study.plan import PlannedRun
from evaluation.study.power import power_statement
from evaluation.study.status import Status
from evaluation.study.tuning import Tuned
from parallax.runtime.files import write_text_atomic


@dataclass(frozen=True)
class Findings:
    """All that a study has measured."""

    design: Design
    arms: Mapping[str, Arm]
    tuned: Mapping[str, Tuned]
    tuning: Mapping[PlannedRun, Status]
    runs: Mapping[PlannedRun, Status]
    command: str

    @property
    def every(self) -> dict[PlannedRun, Status]:
        """The runs of both stages, each once."""
        return {**self.tuning, **self.runs}

    def losses(self, arm: str) -> list[float]:
        """Final validation losses of an arm, in the order of the seeds."""
        return self._of_seeds(arm, "val_loss")

    def accuracies(self, arm: str) -> list[float]:
        """Final next-token accuracies of an arm, in the order of the seeds."""
        return self._of_seeds(arm, "val_accuracy")

    def _of_seeds(self, arm: str, figure: str) -> list[float]:
        by_seed = {run.seed: getattr(status, figure) for run, status in self.runs.items() if run.arm == arm}
        found = [by_seed[seed] for seed in self.design.seeds]
        return [value for value in found if value is not None]

    def differences(self, first: str, second: str) -> list[float]:
        """First minus second, seed by seed."""
        pair = (self.losses(resolve(self.arms, name).name) for name in (first, second))
        return [a - b for a, b in zip(*pair, strict=True)]


def describe_arms(design: Design, arms: Mapping[str, Arm]) -> list[str]:
    """A Markdown table of what every arm is and costs, and how near baselines come."""
    reference = resolve(arms, design.reference).costs
    lines = [
        "| arm | set to | parameters | training FLOPs a token | KV bytes a token | made equal |",
        "|---|---|---:|---:|---:|---|",
    ]
    for arm in arms.values():
        name = arm.name + (f" (the same: {', '.join(arm.also)})" if arm.also else "")
        settings = ", ".join(text.removeprefix("model.") for text in arm.overrides) or "nothing"
        costs = arm.costs
        shown = [
            f"{value:,} ({value / of:.2f}x)"
            for value, of in zip(asdict(costs).values(), asdict(reference).values(), strict=True)
        ]
        equal = f"{arm.match} to {arm.deviation:+.2%}" if arm.match else ""
        lines.append(f"| {name} | {settings} | {' | '.join(shown)} | {equal} |")
    return lines


def describe_tuning(tuned: Mapping[str, Tuned]) -> list[str]:
    """A Markdown table of the final validation loss at every rate, the chosen one in bold, and warnings."""
    rates = sorted({rate for one in tuned.values() for rate in one.losses})
    lines = [f"| arm | {' | '.join(f'{rate:g}' for rate in rates)} |", "|---|" + "---:|" * len(rates)]
    for one in tuned.values():
        cells = []
        for rate in rates:
            loss = one.losses[rate]
            text = f"{loss:.4f}" if isfinite(loss) else "diverged"
            cells.append(f"**{text}**" if rate == one.rate else text)
        lines.append(f"| {one.arm} | {' | '.join(cells)} |")
    warnings = [f"- {one.warning}" for one in tuned.values() if one.warning]
    return [*lines, "", *warnings] if warnings else lines


def describe_results(findings: Findings) -> list[str]:
    """Markdown tables of the final losses, and of planned differences beside the deviation that was assumed."""
    lines = [
        "| arm | rate | final validation loss: mean | sd over seeds | perplexity | accuracy "
        "| parameters | FLOPs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    reference = resolve(findings.arms, findings.design.reference).costs
    for name, arm in findings.arms.items():
        losses, right, costs = findings.losses(name), findings.accuracies(name), arm.costs
        lines.append(
            f"| {name} | {findings.tuned[name].rate:g} | {mean(losses):.4f} | {stdev(losses):.4f} "
            f"| {exp(mean(losses)):.2f} | {f'{mean(right):.2%}' if right else 'n/a'} "
            f"| {costs.parameters / reference.parameters:.2f}x | {costs.flops / reference.flops:.2f}x |"
        )
    assumed = findings.design.power.paired_sd
    lines += [
        "",
        "| first | second | first - second: mean | paired sd | of what was assumed |",
        "|---|---|---:|---:|---:|",
    ]
    for first, second in findings.design.comparisons:
        found = findings.differences(first, second)
        spread = stdev(found)
        lines.append(f"| {first} | {second} | {mean(found):+.4f} | {spread:.4f} | {spread / assumed:.1f}x |")
    return lines


def write_report(findings: Findings, folder: Path, verdicts: Sequence[str]) -> None:
    """`study.md` and `study.json`: what was asked, planned, tuned and found."""
    write_text_atomic(folder / "study.md", "\n".join(_page(findings, verdicts)) + "\n")
    write_text_atomic(folder / "study.json", json.dumps(_data(findings, folder), indent=1) + "\n")


def _page(findings: Findings, verdicts: Sequence[str]) -> list[str]:
    design = findings.design
    every = findings.every
    hours = sum(status.seconds for status in every.values()) / 3600
    return [
        f"# {design.title}",
        "",
        design.question.strip(),
        "",
        f"`{findings.command}`",
        "",
        f"{len(every)} runs, {hours:.1f} hours in training steps, summed over runs; {len(design.seeds)} paired "
        f"seeds; every arm tuned over {len(design.tuning.rates)} rates on {len(design.tuning.seeds)} seed(s).",
        "",
        "## Verdicts",
        "",
        *(f"- {verdict}" for verdict in verdicts),
        "",
        "![differences within a seed, and their intervals](comparison/differences.png)",
        "",
        "Curves, costs and what else differs between runs: [the comparison](comparison/report.html).",
        "",
        "## Stated before the study was run",
        "",
        *(f"- {line}" for line in power_statement(design.power, len(design.seeds), len(design.comparisons))),
        "",
        "## Arms",
        "",
        *describe_arms(design, findings.arms),
        "",
        "## Learning rates",
        "",
        "Final validation loss on the tuning seeds; the runs at the chosen rate count as those of the study.",
        "",
        *describe_tuning(findings.tuned),
        "",
        "## Final validation losses",
        "",
        "In nats a token; perplexity is that of the mean loss, accuracy the next token's; parameters, and "
        f"training FLOPs a token, beside {design.reference}'s; a negative difference is for the first.",
        "",
        *describe_results(findings),
    ]


def _data(findings: Findings, folder: Path) -> dict[str, Any]:
    design = findings.design
    return {
        "design": design.model_dump(mode="json"),
        "command": findings.command,
        "arms": {
            arm.name: {
                "overrides": arm.overrides,
                "the_same": arm.also,
                **asdict(arm.costs),
                "made_equal": arm.match,
                "deviation": arm.deviation if arm.match else None,
            }
            for arm in findings.arms.values()
        },
        "tuned": {
            one.arm: {
                "rate": one.rate,
                "losses": {f"{rate:g}": loss if isfinite(loss) else None for rate, loss in one.losses.items()},
                "edge": one.edge,
            }
            for one in findings.tuned.values()
        },
        "runs": [
            {
                "id": run.id,
                "arm": run.arm,
                "rate": run.rate,
                "seed": run.seed,
                "folder": str(run.folder.relative_to(folder)),
                "stand": str(status.stand),
                "val_loss": status.val_loss,
                "val_accuracy": status.val_accuracy,
                "seconds": status.seconds,
            }
            for run, status in findings.every.items()
        ],
    }
