"""How errors reach a person."""

import pytest

from parallax.errors import GoalError, RunError, run_and_explain


def fail(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(("error", "code"), [(RunError("in\nuse"), 2), (GoalError("never"), 1)])
def test_a_known_error_is_one_line_and_its_code(error: Exception, code: int, capsys) -> None:
    assert run_and_explain(lambda: fail(error)) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"error: {' '.join(str(error).split())}"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_a_machine_too_small_is_told_with_the_way_out(error: Exception, capsys) -> None:
    assert run_and_explain(lambda: fail(error)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "out of memory; try a smaller train.micro_batch" in line


def test_a_defect_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        run_and_explain(lambda: fail(RuntimeError("shape mismatch")))
