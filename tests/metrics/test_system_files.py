import pytest

from parallax.metrics.system_files import SystemFiles, next_sample, node_file


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def files(tmp_path, warnings):
    return SystemFiles(tmp_path, warnings.append)


def add(path, text):
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def test_samples_of_all_nodes_are_named_as_mlflow_names_them(tmp_path, files, warnings):
    assert files.new_records() == []
    add(node_file(tmp_path, "b"), '{"step":0,"time":5.5,"cpu_utilization_percentage":50.0}\n')
    add(node_file(tmp_path, "a"), '{"step":3,"time":5.0,"cpu_utilization_percentage":25.0}\n')
    assert files.new_records() == [
        {"step": 3, "time": 5.0, "system/a/cpu_utilization_percentage": 25.0},
        {"step": 0, "time": 5.5, "system/b/cpu_utilization_percentage": 50.0},
    ]
    assert warnings == []


def test_each_line_is_read_once_and_when_it_is_whole(tmp_path, files):
    path = node_file(tmp_path, "a")
    add(path, '{"step":0,"time":1}\n{"step":1,"ti')
    assert [record["step"] for record in files.new_records()] == [0]
    assert files.new_records() == []
    add(path, 'me":2}\n{"step":2,"time":3}\n')
    assert [record["step"] for record in files.new_records()] == [1, 2]


def test_damaged_lines_are_skipped_with_one_warning(tmp_path, files, warnings):
    path = node_file(tmp_path, "a")
    add(path, b'{"step":0,"time":1}\n{oops\n\xff\x00\n{"step":3,"time":2}\n')
    assert [record["step"] for record in files.new_records()] == [0, 3]
    add(path, '{"step":"4"}\n')
    assert files.new_records() == []
    assert warnings == [
        f"{path}: line 2 is damaged: found '{{oops' (and 1 more); skipped",
        f"""{path}: line 5 is damaged: found '{{"step":"4"}}'; skipped""",
    ]


def test_a_line_without_a_time_is_damaged(tmp_path, files, warnings):
    add(node_file(tmp_path, "a"), '{"step":0}\n')
    assert files.new_records() == []
    assert len(warnings) == 1


def test_a_file_that_cannot_be_read_costs_a_warning(tmp_path, files, warnings):
    (tmp_path / "system" / "a.jsonl").mkdir(parents=True)
    add(node_file(tmp_path, "b"), '{"step":0,"time":1}\n')
    assert [record["step"] for record in files.new_records()] == [0]
    assert "a.jsonl: Is a directory" in warnings[0]


def test_a_host_name_of_any_characters_is_one_file_name(tmp_path):
    assert node_file(tmp_path, "gpu 1/ä").name == "gpu_1__.jsonl"


@pytest.mark.parametrize(
    ("content", "number"),
    [("", 0), ('{"step":7,"time":1}\n', 8), ('{"step":7,"time":1}\n{oops\n{"st', 8), ("{oops\n", 0)],
)
def test_the_next_sample_follows_the_last_sound_line(tmp_path, content, number):
    path = tmp_path / "a.jsonl"
    assert next_sample(path) == 0
    path.write_text(content)
    assert next_sample(path) == number
