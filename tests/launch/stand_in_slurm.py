"""Scripts that stand for Slurm's commands, for what needs no cluster: its words, and what it is told."""

import os
from pathlib import Path

_COMMANDS = {
    "sinfo": 'printf "low*|gpu:2\\nhigh|gpu:a100:8(S:0-1)\\nhigh|gpu:a100:4\\ncpus|(null)\\n"',
    "squeue": "echo 7",
    "scancel": 'echo "scancel $*" >>"$STAND_IN/told"',
    "scontrol": """
for job; do :; done
[ "$1" != release ] || { echo "scontrol $*" >>"$STAND_IN/told"; exit 0; }
[ -f "$STAND_IN/job-$job" ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
cat "$STAND_IN/job-$job" """,
    "sbatch": """
echo "sbatch $*" >>"$STAND_IN/told"
case $* in *--test-only*)
    [ ! -f "$STAND_IN/refusal" ] || { cat "$STAND_IN/refusal" >&2; exit 1; }
    exit 0 ;;
esac
n=$(cat "$STAND_IN/number"); echo $((n + 1)) >"$STAND_IN/number"; echo "$n" """,
}


class StandInSlurm:
    """A folder of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in _COMMANDS.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        (folder / "number").write_text("41\n")

    @property
    def variables(self) -> dict[str, str]:
        """So that they are found ahead of the real ones."""
        return {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "STAND_IN": str(self.folder)}

    @property
    def told(self) -> list[str]:
        """The commands that change something, as they were given."""
        path = self.folder / "told"
        return path.read_text().splitlines() if path.exists() else []

    def knows(self, job: str, state: str, tasks: str = "", reason: str = "None") -> None:
        """From now on it has this to say of a job."""
        array = f" ArrayJobId={job} ArrayTaskId={tasks}" if tasks else ""
        facts = f"JobId={job}{array} JobName=x JobState={state} Reason={reason} Restarts=1 RunTime=00:00:09"
        with (self.folder / f"job-{job}").open("a") as file:
            file.write(f"{facts} TimeLimit=01:00:00 NodeList=n[1-2]\n")

    def forget(self) -> None:
        """All jobs."""
        for path in self.folder.glob("job-*"):
            path.unlink()
