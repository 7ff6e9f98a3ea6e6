import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from parallax.data.text_digest import Digests
from parallax.data.tokenizer import Tokenizer
from parallax.data.tokenizer_files import TOKENIZER_FILE, load_tokenizer
from parallax.data.write_corpus import Done
from parallax.errors import DataError, TokenizerError, UnfinishedError
from parallax.runtime.files import explain_disk_full, write_text_atomic
from parallax.runtime.lock import RunLock

SAVE_SECONDS = 5.0
"""Between two moments at which finished work is made safe: what a `kill -9` costs at most, besides re-reading."""

_PLAN, _STATE, _LEARNED = "plan.json", "state.json", "learned.json"
_DONE = TypeAdapter(Done)


def partial_folder(output: Path) -> Path:
    """Where the unfinished work on `output` is kept."""
    return output.with_name(output.name + ".partial")


@final
class PartialCorpus:
    """`OUTPUT.partial`: the unfinished corpus in `corpus/`, and beside it what is needed to go on.

    `plan.json` says what the work is, `state.json` how much is done and safe, `learned.json` that the tokenizer in
    `corpus/` is learned and from what text.
    """

    def __init__(self, output: Path) -> None:
        self.folder = partial_folder(output)
        self.corpus = self.folder / "corpus"
        self._saved_at = time.monotonic()

    @property
    def holds_work(self) -> bool:
        """Whether there is anything that would have to be made again."""
        return (self.folder / _STATE).exists() or (self.folder / _LEARNED).exists()

    def begin_or_continue(self, plan: dict[str, Any]) -> None:
        """Takes up what is there, if it is work on the same plan; if nothing was saved, begins.

        Raises:
            UnfinishedError: there is work on another plan.
        """
        plan = json.loads(json.dumps(plan))
        if self.holds_work:
            found = self._read(_PLAN)
            if found != plan:
                raise UnfinishedError(
                    f"{self.folder} holds unfinished work of {_difference(found, plan)}; run the command that "
                    f"began it, or remove {self.folder} to begin anew"
                )
        else:
            shutil.rmtree(self.corpus, ignore_errors=True)
            write_text_atomic(self.folder / _PLAN, json.dumps(plan))
        self.corpus.mkdir(exist_ok=True)

    def done(self) -> Done | None:
        """What `save` saved last."""
        if not (self.folder / _STATE).exists():
            return None
        try:
            return _DONE.validate_python(self._read(_STATE))
        except ValidationError:
            raise self._damaged(_STATE) from None

    def save_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved_at >= SAVE_SECONDS

    def save(self, done: Done) -> None:
        """Notes what is done; its shards must be on the disk."""
        write_text_atomic(self.folder / _STATE, _DONE.dump_json(done).decode())
        self._saved_at = time.monotonic()

    def learned(self) -> tuple[Tokenizer, Digests] | None:
        """The tokenizer that `save_learned` saved, and what it was learned from."""
        if not (self.folder / _LEARNED).exists():
            return None
        return load_tokenizer(self.corpus / TOKENIZER_FILE), self._read(_LEARNED)

    def save_learned(self, tokenizer: Tokenizer, learned_from: Digests) -> None:
        """Keeps a tokenizer, so that it need not be learned again."""
        write_text_atomic(self.corpus / TOKENIZER_FILE, tokenizer.to_json())
        write_text_atomic(self.folder / _LEARNED, json.dumps(learned_from))

    def remove(self) -> None:
        """Deletes everything; what says that there is work goes first."""
        for name in (_STATE, _LEARNED):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise self._damaged(name) from None

    def _damaged(self, name: str) -> UnfinishedError:
        return UnfinishedError(f"{self.folder / name}: damaged; remove {self.folder} to begin anew")


@contextmanager
def open_partial(output: Path, plan: dict[str, Any]) -> Iterator[PartialCorpus]:
    """The locked `OUTPUT.partial`, begun or taken up; removed at the end.

    On an error that is the input's fault it is removed as well; on any other, and on Ctrl-C, it stays if work was
    saved in it.

    Raises:
        UnfinishedError: it holds work on another plan.
        RunError: another process works on it.
        DiskFullError: the disk ran out.
    """
    partial = PartialCorpus(output)
    with explain_disk_full(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with RunLock(partial.folder, "--output"):
            try:
                partial.begin_or_continue(plan)
                yield partial
            except BaseException as error:
                spoilt = isinstance(error, DataError | TokenizerError) and not isinstance(error, UnfinishedError)
                if spoilt or not partial.holds_work:
                    partial.remove()
                raise
            partial.remove()


def _difference(found: Any, plan: dict[str, Any]) -> str:
    """Which part of the plan another one differs in, in words."""
    if not isinstance(found, dict):
        return "another version"
    theirs, ours = found.get("source"), plan["source"]
    if isinstance(theirs, dict) and theirs.get("files") != ours.get("files"):
        before = {file[0]: file[1:] for file in theirs.get("files") or []}
        now = {file[0]: file[1:] for file in ours.get("files") or []}
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed and changed[0] in before and changed[0] in now:
            return f"before {changed[0]} was changed"
        return (
            f"other input ({changed[0]} is {'gone' if changed[0] in before else 'new'})"
            if changed
            else "other input"
        )
    if theirs != ours and isinstance(theirs, dict):
        found, plan = theirs, ours
    keys = [key for key in plan if found.get(key) != plan[key]]
    key = keys[0] if keys else "version"
    return f"other settings ({key}={found.get(key)!r}, now {plan.get(key)!r})"
