import math

import pytest
from matplotlib import image

from parallax.errors import DiskFullError
from parallax.metrics.curve import save_curve_png, terminal_curve


def falling(steps=2000, every=10, validate=100):
    records = []
    for step in range(every, steps + 1, every):
        record = {"step": step, "loss": 1 + 3 * math.exp(-step / 400), "lr": 1e-3}
        if step % validate == 0:
            record["val_loss"] = record["loss"] + 0.2
        records.append(record)
    return records


@pytest.mark.parametrize(("width", "height"), [(78, 16), (40, 10), (160, 40)])
def test_the_drawing_has_the_size_asked_for_whatever_the_terminal_is(monkeypatch, width, height):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "12")
    lines = terminal_curve(falling(), width, height).splitlines()
    assert len(lines) == height
    assert max(map(len, lines)) == width


def test_the_drawing_is_plain_characters_with_both_curves_and_labelled_axes():
    drawing = terminal_curve(falling())
    assert "\x1b" not in drawing
    head, *body = drawing.splitlines()
    assert "nats per token" in head
    assert sum(line.count("x") for line in body) >= 10
    assert sum("\u2801" <= character <= "\u28ff" for character in drawing) >= 40
    assert "2000" in body[-2]
    assert body[-1].strip() == "step"


def test_a_falling_loss_is_drawn_from_the_upper_left_to_the_lower_right():
    dots = [
        (row, column)
        for row, line in enumerate(terminal_curve(falling()).splitlines())
        for column, character in enumerate(line)
        if "\u2801" <= character <= "\u28ff"
    ]
    assert min(dots, key=lambda dot: dot[1])[0] < 4
    assert max(dots, key=lambda dot: dot[1])[0] > 9


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "val_loss": 2.0}],
        [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 2.0}],
        [{"step": 1, "loss": None}, {"step": 2, "loss": 3.0}],
    ],
)
def test_few_points_are_drawn_too(records, tmp_path):
    assert len(terminal_curve(records).splitlines()) == 16
    save_curve_png(records, tmp_path / "curve.png", "few")


@pytest.mark.parametrize("records", [[], [{"step": 1, "lr": 0.1}], [{"step": 1, "loss": None}]])
def test_without_a_loss_the_drawing_says_so(records):
    assert terminal_curve(records) == "no loss has been logged yet"


def test_drawing_twice_draws_the_second_alone():
    alone = terminal_curve(falling(steps=500))
    terminal_curve(falling(steps=3000), 100, 30)
    assert terminal_curve(falling(steps=500)) == alone


def test_the_picture_shows_both_curves_in_their_colours(tmp_path):
    save_curve_png(falling(), tmp_path / "curve.png", r"a $\run$")
    picture = image.imread(tmp_path / "curve.png")[..., :3]
    assert picture.shape == (900, 1600, 3)
    for colour in ((0x3B, 0x6E, 0xA8), (0xD9, 0x82, 0x2B)):
        near = abs(picture * 255 - colour).max(axis=-1) < 3
        assert near.sum() > 300
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_a_full_disk_leaves_the_picture_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    save_curve_png(falling(), path, "first")
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DiskFullError, match=r"curve\.png"):
        save_curve_png(falling(), path, "second")
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["curve.png"]


def test_a_validation_loss_on_another_corpus_is_a_line_of_its_own(tmp_path):
    plain = falling()
    anchored = [record | {"val_loss_on/old": 2.0} if "val_loss" in record else record for record in plain]
    green = []
    for name, records in (("plain.png", plain), ("anchored.png", anchored)):
        save_curve_png(records, tmp_path / name, title="run")
        red, greens, blue = (image.imread(tmp_path / name)[..., channel] for channel in range(3))
        green.append(int(((greens > red + 0.2) & (greens > blue + 0.1)).sum()))
    assert green[0] == 0
    assert green[1] > 1000
