from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One subject, looked at in a process of its own."""

    name: str
    title: str
    function: str
    """MODULE:FUNCTION; the function takes a `Setting` and yields rows."""
    seconds: float
    """After which it is ended on a GPU of the data-centre class; `--patience` multiplies it."""


CHECKS = (
    Check("attention", "Attention backends against eager", "evaluation.gpu_proof.attention:check_attention", 45),
    Check("plla", "PLLA's backends against the definition", "evaluation.gpu_proof.plla:check_plla", 75),
    Check("step", "One training step against float64", "evaluation.gpu_proof.step:check_step", 40),
    Check("scaling", "Loss scaling in fp16", "evaluation.gpu_proof.scaling:check_scaling", 40),
    Check("layouts", "Layouts over the GPUs present", "evaluation.gpu_proof.layouts:check_layouts", 75),
    Check(
        "determinism",
        "Two runs, one resumed, in the same bits",
        "evaluation.gpu_proof.determinism:check_determinism",
        45,
    ),
    Check("memory", "Peak memory against the estimate", "evaluation.gpu_proof.memory:check_memory", 45),
    Check("rtx3050", "The 6 GB configuration within 6 GiB", "evaluation.gpu_proof.rtx3050:check_rtx3050", 60),
    Check("compile", "torch.compile of blocks", "evaluation.gpu_proof.compiled_blocks:check_compiled_blocks", 90),
    Check("decoding", "The compiled decoding step", "evaluation.gpu_proof.decoding:check_decoding", 120),
    Check("plla_speed", "Speed of PLLA's kernels", "evaluation.gpu_proof.plla_speed:check_plla_speed", 75),
    Check("speed", "Training speed", "evaluation.gpu_proof.speed:check_speed", 200),
)
"""In this order: what is quick first, so that a run that is cut off has shown most."""
