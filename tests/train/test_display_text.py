"""What a person sees of a run, in words and in columns."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from parallax.train.display import (
    LiveDisplay,
    PlainDisplay,
    describe,
    format_count,
    format_seconds,
    open_display,
    quote_sample,
)

RECORD = {"step": 40, "loss": 2.345678, "grad_norm": 1.234, "tokens_per_second": 12_345.6, "step_seconds": 0.5}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m"), (3600, "1h00m")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(950, "950"), (1804, "1,804"), (18_040, "18.0k"), (67_377_664, "67.4M"), (1.2e9, "1.20B"), (0.0, "0")],
)
def test_counts_are_short(number: float, text: str) -> None:
    assert format_count(number) == text


def test_a_line_tells_the_loss_the_speed_and_the_time_left() -> None:
    assert describe(RECORD, 100) == "loss 2.346  norm 1.23  12.3k tok/s  eta 30s"
    more = {**RECORD, "val_loss": 2.5, "mfu": 0.256}
    assert describe(more, 100) == "loss 2.346  val 2.500  norm 1.23  12.3k tok/s  mfu 26%  eta 30s"


def test_what_the_journal_could_not_hold_is_said() -> None:
    assert "norm inf" in describe({**RECORD, "grad_norm": None}, 100)
    assert "mfu" not in describe({**RECORD, "mfu": None}, 100)


def test_a_sample_cannot_move_the_cursor_or_fill_the_screen() -> None:
    shown = quote_sample("The \x1b[2J\x07end\n" + "word " * 200)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    lines = shown.splitlines()
    assert len(lines) == 6
    assert lines[0] == "     | The �[2J�end"
    assert all(cell_len(line) <= 80 for line in lines)
    assert all(cell_len(line) <= 80 for line in quote_sample("\u6f22" * 200).splitlines())


def test_a_file_gets_a_line_for_each_record_and_no_control_characters() -> None:
    written = io.StringIO()
    display = open_display(Console(file=written))
    assert isinstance(display, PlainDisplay)
    display.begin(0, 100)
    display.message("a [bold]message[/bold] with /a/very/long/path" + "x" * 200)
    display.step({**RECORD, "sample": "The end"})
    display.end()
    assert written.getvalue().splitlines() == [
        "a [bold]message[/bold] with /a/very/long/path" + "x" * 200,
        "step     40/100  loss 2.346  norm 1.23  12.3k tok/s  eta 30s",
        "     | The end",
    ]


def test_a_terminal_gets_a_bar() -> None:
    assert isinstance(open_display(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)
