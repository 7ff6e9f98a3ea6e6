import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from parallax.data.documents import Document
from parallax.data.pieces import cut_pieces
from parallax.data.split_rule import DocumentSplit, SplitName, ValRule, check_split
from parallax.data.text_reader import EncodingErrors, ReadTally, without_surrogates
from parallax.errors import DataError, UnfinishedError

PREFIX = "datasets:"


def is_dataset(spec: str) -> bool:
    """Whether an input is a name for the `datasets` library."""
    return spec.startswith(PREFIX)


@final
class DatasetSource:
    """Documents of anything that `datasets.load_dataset` takes, streamed: a row is one.

    Held out are rows chosen by a hash of their ordinal (`DocumentSplit`). Every pass streams anew, so from the hub
    a tokenizer that is learned costs a second download.

    Args:
        spec: `datasets:NAME`, a name on the Hugging Face hub, or a folder of data files.
        val_fraction: Share to hold out.
        text_field: Column that holds the text.
        encoding_errors: What to do with text that is not valid Unicode.
        config: Configuration of the data set, where it has several.
        split: Its split, or a slice of it that the library understands.
        revision: Commit, branch or tag on the hub.
    """

    def __init__(
        self,
        spec: str,
        *,
        val_fraction: float,
        text_field: str,
        encoding_errors: EncodingErrors,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
    ) -> None:
        self._spec = spec
        self._name = spec.removeprefix(PREFIX)
        if not self._name:
            raise DataError(f"{spec}: no name; give one such as datasets:roneneldan/TinyStories, or a folder")
        self._val_fraction = val_fraction
        self._field = text_field
        self._errors: EncodingErrors = encoding_errors
        self._asked = {"config": config, "split": split, "revision": revision}

    @property
    def total_bytes(self) -> int:
        """0: what a stream will bring is not known."""
        return 0

    @property
    def val_rule(self) -> ValRule:
        """How the validation split is chosen."""
        return "documents" if self._val_fraction else "none"

    @property
    def identity(self) -> dict[str, Any]:
        """The names, and for a local folder its files with their sizes and times of change."""
        folder = Path(self._name).expanduser()
        found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        return {
            "dataset": str(folder.resolve()) if folder.is_dir() else self._name,
            "files": [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in found],
            **self._asked,
            "val_fraction": self._val_fraction,
            "text_field": self._field,
            "encoding_errors": self._errors,
        }

    def documents(self, tally: ReadTally) -> Iterator[Document]:
        """One pass over the rows in their order."""
        hashed = DocumentSplit(self._val_fraction)
        found: Counter[SplitName] = Counter()
        for number, row in enumerate(self._rows(), start=1):
            where = f"{self._spec}, row {number}"
            text = row[self._field] if self._field in row else self._refuse_field(row)
            if not isinstance(text, str):
                raise DataError(f"{where}: column {self._field!r} holds {str(text)[:40]!r}, expected text")
            text = without_surrogates(text, where, self._errors, tally)
            if text:
                split = hashed.choose()
                found[split] += 1
                yield Document(split, cut_pieces([text]))
            tally.bytes_read += len(text.encode("utf-8"))
        check_split(found, hashed, self._val_fraction)

    def _rows(self) -> Iterator[dict[str, Any]]:
        rows: Iterator[dict[str, Any]] | None = None
        begun = False
        while True:
            # The library raises types of its own, of fsspec, of httpx and of pyarrow; all mean that it got no row.
            try:
                rows = rows or iter(self._load())
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error, begun) from None
            begun = True
            yield row

    def _load(self) -> Any:
        import datasets

        # The library warns at each of its own tries to reach the hub; what came of them is one line of ours.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        datasets.disable_progress_bars()  # they would be drawn into ours
        return datasets.load_dataset(
            self._name,
            self._asked["config"],
            split=self._asked["split"],
            revision=self._asked["revision"],
            streaming=True,
        )

    def _unreadable(self, error: Exception, begun: bool) -> DataError:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        way_out = "check the name, --dataset-config and --dataset-split, and that the hub can be reached"
        kind = UnfinishedError if begun else DataError
        return kind(f"{self._spec}: could not be read: {reason}; {way_out}")

    def _refuse_field(self, row: dict[str, Any]) -> str:
        have = ", ".join(map(repr, list(row)[:8])) or "none"
        raise DataError(
            f"{self._spec}: no column {self._field!r} (it has {have}); name the one that holds the text: "
            f"--text-field"
        )
