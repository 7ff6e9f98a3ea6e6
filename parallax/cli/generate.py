from typing import TYPE_CHECKING, Annotated

import typer

from parallax.cli.output import print_json

if TYPE_CHECKING:
    from parallax.cli.model import ReadyModel
    from parallax.generate.sampling import SamplingOptions


def generate(
    checkpoint: Annotated[str, typer.Argument(help="A run folder, a checkpoint in it, or a model folder.")],
    prompt: Annotated[list[str] | None, typer.Option(help="Text to continue; may be given again.")] = None,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from the K likeliest tokens; 0: from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that hold this share.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Leave out tokens below this share of the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: tokens seen before get rarer.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to write per text.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    num_samples: Annotated[int, typer.Option(help="Texts per prompt.", min=1)] = 1,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    compile_step: Annotated[
        bool, typer.Option("--compile", help="Compile the decoding step first; pays for long texts.")
    ] = False,
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask for prompts until Ctrl-D.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write text with a trained model.

    Texts longer than the model's window go on from its newest half.
    """
    from parallax.cli.model import open_model
    from parallax.errors import ConfigError
    from parallax.generate.sampling import SamplingOptions
    from parallax.runtime.ranks import read_ranks

    if interactive and as_json:
        raise ConfigError("--interactive and --json exclude each other; drop one")
    if read_ranks().world_size > 1 and (interactive or compile_step):
        raise ConfigError("--interactive and --compile work in one process; start without torchrun, or drop them")
    options = SamplingOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    ready = open_model(checkpoint, device=device, dtype=dtype)
    writer = _Writer(ready, options, max_new_tokens, seed, compile_step)
    if interactive:
        _converse(writer, prompt or [])
        return
    prompts = [text for text in (prompt or [""]) for _ in range(num_samples)]
    if as_json:
        print_json({"checkpoint": str(ready.path), "samples": writer.write(prompts, show=False)})
    else:
        writer.write(prompts, show=True)


class _Writer:
    """Continues prompts; a single text is shown as it is written, several one after the other."""

    def __init__(
        self,
        ready: "ReadyModel",
        options: "SamplingOptions",
        max_new_tokens: int,
        seed: int,
        compile_step: bool,
    ) -> None:
        self._ready = ready
        self._options = options
        self._max_new_tokens = max_new_tokens
        self._compile_step = compile_step
        self.seed = seed

    def write(self, prompts: list[str], show: bool) -> list[dict[str, str]]:
        from parallax.generate.decode import generate as decode
        from parallax.generate.stream import TextStream

        ready = self._ready
        ids = [[int(token) for token in ready.tokenizer.encode(prompt)] for prompt in prompts]
        stream = TextStream(ready.tokenizer.decode)
        streamed = show and len(prompts) == 1
        if streamed:
            print(prompts[0], end="", flush=True)
        written = decode(
            ready.model,
            ids,
            max_new_tokens=self._max_new_tokens,
            options=self._options,
            seed=self.seed,
            eos_id=ready.tokenizer.eos_id,
            compile_step=self._compile_step,
            on_token=(lambda _, token: print(stream.push(token), end="", flush=True)) if streamed else None,
        )
        if streamed:
            print(stream.finish())
        samples = [
            {"prompt": prompt, "text": ready.tokenizer.decode(row.tokens), "finished": row.finished}
            for prompt, row in zip(prompts, written, strict=True)
        ]
        if show and not streamed:
            for number, sample in enumerate(samples, start=1):
                print(f"--- {number} of {len(samples)}\n{sample['prompt']}{sample['text']}")
        return samples


def _converse(writer: _Writer, first: list[str]) -> None:
    for prompt in first:
        writer.write([prompt], show=True)
        writer.seed += 1
    print("Type a prompt and Enter; Ctrl-D ends.")
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            print()
            return
        writer.write([prompt], show=True)
        writer.seed += 1
