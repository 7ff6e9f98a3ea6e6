import psutil
import torch

from parallax.metrics.hardware import hardware_tags

INTEL = "processor\t: 0\nmodel name\t: Xeon(R) Gold: 6130\nflags\t: fpu\n"


def test_a_node_without_gpus_tells_processors_memory_and_how_many_there_are(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(INTEL)
    monkeypatch.setattr("parallax.metrics.hardware._CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 64 if logical else 32)
    assert hardware_tags(torch.device("cpu"), 3) == {
        "hardware.nodes": "3",
        "hardware.cpu": "Xeon(R) Gold: 6130",
        "hardware.cpu_cores": "32",
        "hardware.processors": "64",
        "hardware.memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
    }


def test_a_machine_that_tells_neither_model_nor_cores_still_has_tags(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    monkeypatch.setattr("parallax.metrics.hardware._CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 4 if logical else None)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    tags = hardware_tags(torch.device("cpu"), 1)
    assert tags["hardware.cpu"] == "aarch64"
    assert "hardware.cpu_cores" not in tags


def test_gpus_are_counted_by_name(monkeypatch):
    names = ["A100", "A100", "T4"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(names))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: names[index])
    assert hardware_tags(torch.device("cuda", 1), 1)["hardware.gpus"] == "2 x A100, 1 x T4"
