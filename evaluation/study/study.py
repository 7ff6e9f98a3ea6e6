from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.study.arms import Arm, build_arms
from evaluation.study.design import Design, load_design
from evaluation.study.plan import PlannedRun, Planner, read_fingerprints
from evaluation.study.tuning import Tuned
from parallax.runtime.files import write_text_atomic


@dataclass(frozen=True)
class Study:
    """A study file that makes sense, and where it is carried out."""

    name: str
    design: Design
    base: Path
    folder: Path
    arms: Mapping[str, Arm]
    planner: Planner

    def kept(self, file: Path) -> "Study":
        """The same with copies of its two files in its folder, so that an edit meanwhile changes nothing."""
        base = self.folder / "base.yaml"
        for source, copy in ((file, self.folder / "study.yaml"), (self.base, base)):
            write_text_atomic(copy, source.read_text(encoding="utf-8"))
        return replace(self, base=base, planner=self.planner.beginning_with(base))

    def tuning(self) -> list[PlannedRun]:
        """Runs of the first stage."""
        return self.planner.tuning(self.design, self.arms.values())

    def seeds(self, tuned: Mapping[str, Tuned]) -> list[PlannedRun]:
        """Runs of the second, of which some may be of the first as well."""
        rates = {arm: one.rate for arm, one in tuned.items()}
        return self.planner.seeds(self.design, self.arms.values(), rates)


def open_study(file: Path, output: Path | None) -> Study:
    """Reads a study file and everything it leans on.

    Args:
        file: of the study.
        output: its folder; None: one in `runs/studies` with the file's name.

    Raises:
        ParallaxError: a mistake in it, or a corpus that is missing.
    """
    design = load_design(file)
    base = (file.parent / design.base).resolve()
    arms = build_arms(design, base)
    fingerprints: dict[str, str] = {}
    for arm in arms.values():
        fingerprints |= read_fingerprints(arm.config, design.prepare)
    folder = (output or Path("runs/studies") / file.stem).resolve()
    return Study(file.stem, design, base, folder, arms, Planner(base, folder, fingerprints))
