import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.compare.compared_run import ComparedRun
from parallax.errors import ConfigError

KINDS = ("tracks", "tasks")
_SECTION = re.compile(r'<section class="(?:tracks|tasks)">.*</section>', re.DOTALL)
_LOADING = re.compile(r"<(?:script|style|link|img|iframe|object|embed)\b", re.IGNORECASE)


@dataclass(frozen=True)
class BesideSection:
    """What `evaluation.tracks` or `evaluation.tasks` found of a model, to stand in a comparison's report."""

    kind: str
    """tracks or tasks."""
    page: Path
    """That it was read from."""
    html: str
    """A `<section>` that loads nothing and styles nothing outside itself."""

    @property
    def sha256(self) -> str:
        """Of the section's text."""
        return hashlib.sha256(self.html.encode()).hexdigest()


def sections_beside(runs: Sequence[ComparedRun], folders: Sequence[Path]) -> tuple[BesideSection, ...]:
    """The sections in runs' folders, in the order of runs, and then those of other folders; each once.

    A folder's are in its tracks.html and tasks.html, or in those of its subfolders `tracks` and `tasks`.

    Raises:
        ConfigError: a named folder has none, or a page is not one of theirs.
    """
    found = [section for run in runs if run.folder for section in _sections_of(run.folder)]
    for folder in folders:
        its = list(_sections_of(folder))
        if not its:
            raise ConfigError(
                f"--with {folder}: it holds neither tracks.html nor tasks.html; "
                f"`python -m evaluation.tracks RUN --output {folder}` writes one"
            )
        found += its
    first: dict[str, BesideSection] = {}
    for section in found:
        first.setdefault(section.html, section)
    return tuple(first.values())


def _sections_of(folder: Path) -> Iterator[BesideSection]:
    for kind in KINDS:
        for page in (folder / f"{kind}.html", folder / kind / f"{kind}.html"):
            if page.is_file():
                yield BesideSection(kind, page, _section_in(page, kind))


def _section_in(page: Path, kind: str) -> str:
    try:
        match = _SECTION.search(page.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{page}: cannot be read: {error}") from None
    if match is None or _LOADING.search(match.group()):
        raise ConfigError(
            f"{page}: expected a section as `python -m evaluation.{kind} RUN --output {page.parent}` writes it; "
            "write it again or take it away"
        )
    return match.group()
