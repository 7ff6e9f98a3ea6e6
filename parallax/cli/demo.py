import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def demo(
    config: Annotated[Path, typer.Option(help="What to train.")] = Path("configs/tiny.yaml"),
    run_dir: Annotated[Path, typer.Option(help="Run folder; a demo in it goes on.")] = Path("runs/demo"),
    max_steps: Annotated[int | None, typer.Option(help="Shorter or longer than the configuration says.")] = None,
) -> int:
    """Train, evaluate and generate on Python's manual, in minutes.

    Runs the commands that you would type, and shows each before it starts.
    """
    from parallax.errors import ConfigError
    from parallax.train.run_folder import RunFolder

    if not config.is_file():
        raise ConfigError(f"{config}: no such file; run the demo from the checkout, or give --config")
    if RunFolder(run_dir).saved_config() is not None:
        print(f"{run_dir} holds an earlier demo; it goes on, or is shown again if it is complete.")
    began = time.monotonic()
    length = [f"train.max_steps={max_steps}"] if max_steps else []
    steps = [
        (
            "1. Train: the same command resumes it",
            ["train", str(config), f"run.dir={run_dir}", "run.name=demo", *length],
        ),
        ("2. Evaluate on text it has not seen", ["eval", str(run_dir)]),
        ("3. Let it write", ["generate", str(run_dir), "--prompt", "The ", "--top-p", "0.9"]),
        ("4. Its loss curve", ["curve", str(run_dir)]),
    ]
    for title, arguments in steps:
        _rule(title)
        print(f"$ parallax {shlex.join(arguments)}", flush=True)
        code = _run(arguments)
        if code:
            print(f"the demo stopped: the command above ended with exit code {code}", file=sys.stderr)
            return code
    _rule(f"Done in {time.monotonic() - began:.0f} s. Try next")
    print(
        ". .venv/bin/activate    # once per terminal, so that the commands below are found\n"
        f"parallax generate {run_dir} --interactive\n"
        f"parallax train {config} run.dir=runs/one-pass model.num_loops=1\n"
        f"parallax data prepare --input your.txt --output data/yours\n"
        f"parallax train {config} data.path=data/yours run.dir=runs/yours\n"
        f"mlflow ui --backend-store-uri sqlite:///runs/mlflow.db    # the runs side by side"
    )
    return 0


def _run(arguments: list[str]) -> int:
    """Runs a command to its end and returns its exit code.

    Ctrl-C reaches the command as well, which saves and leaves; here it must not be killed meanwhile.
    """
    with subprocess.Popen([sys.executable, "-m", "parallax.cli", *arguments]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def _rule(title: str) -> None:
    width = min(shutil.get_terminal_size((80, 24)).columns, 80)
    print(f"\n── {title} {'─' * max(width - len(title) - 4, 0)}", flush=True)
