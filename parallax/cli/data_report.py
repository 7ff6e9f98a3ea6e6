from typing import Any

from parallax.cli.output import print_table

_BAR_CHARS = 30
_EXCERPT_CHARS = 300


def print_inspection(report: dict[str, Any]) -> None:
    """What `data inspect` found, on a terminal of 80 columns."""
    print(f"{report['path']}: {report['kind']}")
    if "fingerprint" in report:
        checked = "; checksums hold" if report["verified"] else ""
        print(f"fingerprint {report['fingerprint'][:16]}, {report['storage']}{checked}")
    print_table(
        "",
        ["split", "documents", "tokens", "bytes of text"],
        [
            [name, f"{split['documents']:,}", f"{split['tokens']:,}", f"{split['text_bytes']:,}"]
            for name, split in report["splits"].items()
        ],
    )
    print(
        f"tokenizer {report['tokenizer']}, {report['vocab_size']:,} ids of which {report['used_ids']:,} occur; "
        f"{report['bytes_per_token']:.2f} bytes a token"
    )
    print(
        f"unknown tokens {report['unknown']:,} ({report['unknown_share']:.4%}); "
        f"characters replaced because they were not UTF-8: {report['replaced']:,}"
    )
    _print_lengths(report["document_tokens"])
    print()
    print_table(
        "",
        ["most frequent", "id", "count", "share"],
        [
            [entry["token"], str(entry["id"]), f"{entry['count']:,}", f"{entry['share']:.2%}"]
            for entry in report["most_frequent"]
        ],
    )
    for number, text in enumerate(report["first_documents"], start=1):
        print(f"\ndocument {number} begins\n{text[:_EXCERPT_CHARS]}")


def _print_lengths(lengths: dict[str, Any] | None) -> None:
    if lengths is None:
        return
    print(
        f"\ntokens a document: median {lengths['median']:,}, mean {lengths['mean']:,.1f}, "
        f"from {lengths['shortest']:,} to {lengths['longest']:,}"
    )
    most = max(count for _, _, count in lengths["histogram"])
    for low, high, count in lengths["histogram"]:
        bar = "█" * -(-_BAR_CHARS * count // most)
        print(f"{low:>12,} – {high:<12,} {bar:<{_BAR_CHARS}} {count:,}")
