from pathlib import Path

import torch

from parallax.checkpoint.load import Checkpoint, load_weights, read_checkpoint
from parallax.checkpoint.model import TOKENIZER_FILE, SavedModel, model_of_run, read_model
from parallax.checkpoint.sharded_store import ShardedStore
from parallax.config.run import RunConfig
from parallax.data.tokenizer_files import load_tokenizer
from parallax.errors import CheckpointError, ConfigError, TokenizerError
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.journal import Journal
from parallax.metrics.peak import measure_peak, peak_of_ranks
from parallax.metrics.throughput import ThroughputMeter
from parallax.model.decoder import Decoder
from parallax.model.registry import build_model
from parallax.parallel.placement import Placement
from parallax.runtime.allocator import keep_freed_memory
from parallax.runtime.determinism import use_deterministic_kernels
from parallax.runtime.device import Precision, resolve_precision
from parallax.train.display import Display
from parallax.train.elastic import restore_optimizer_state
from parallax.train.engines import build_engine
from parallax.train.freeze import trainable_names
from parallax.train.guard import FiniteGuard
from parallax.train.profiler import StepProfiler
from parallax.train.progress import Progress
from parallax.train.run_folder import RunFolder
from parallax.train.session import Session, count_steps
from parallax.train.sources import Sources
from parallax.train.world import World

_MEANING = (
    "architecture",
    "num_heads",
    "num_kv_heads",
    "attention",
    "norm_eps",
    "output_norm_eps",
    "rope_theta",
    "frequency_spread",
    "tie_embeddings",
)
"""Model settings that weights were fitted to but whose shapes may not show it; passes and swap may change.

Not every architecture has all of them.
"""


def resolve_machine(
    config: RunConfig, saved: RunConfig | None, device: torch.device
) -> tuple[RunConfig, Precision]:
    """Prepares the device and settles the precision, and with it the configuration that is saved.

    A run that `auto` once gave a precision keeps it: its loss curve continues in the same arithmetic.

    Args:
        config: as asked for.
        saved: that of the run that goes on; None: a new one.
        device: where this rank computes.

    Raises:
        BackendError: what was asked for by name is not there.
    """
    if device.type == "cpu":
        keep_freed_memory()
    if config.runtime.num_threads is not None:
        torch.set_num_threads(config.runtime.num_threads)
    if config.runtime.deterministic:
        use_deterministic_kernels()
    asked = config.train.precision
    if saved is not None and asked == "auto":
        precision = resolve_precision(saved.train.precision, device)
    else:
        precision = resolve_precision(asked, device)
    train = config.train.model_copy(update={"precision": precision.name})
    return config.model_copy(update={"train": train}), precision


def open_session(
    config: RunConfig,
    device: torch.device,
    precision: Precision,
    folder: RunFolder,
    sources: Sources,
    display: Display,
    world: World,
) -> Session:
    """Builds the run from its configuration, or from the newest good checkpoint in its folder.

    Raises:
        CheckpointError: no checkpoint of the run is good, or `train.init_from` cannot be used.
        TokenizerError: the checkpoint was made with another tokenizer than the data.
    """
    store = ShardedStore(
        folder.checkpoints,
        config.train.keep_last,
        group=world.saving,
        report=display.message,
        fence=folder.lock.check,
    )
    newest = _newest_checkpoint(store)
    # Verified by all ranks together a moment ago.
    checkpoint = read_checkpoint(newest, verify=False, report=display.message) if newest else None
    engine = build_engine(config, device, precision, mesh=world.mesh, eos_id=sources.tokenizer.eos_id)
    if config.train.freeze:
        engine.set_trainable(trainable_names(build_model(config.model), config.train.freeze))
        if world.any(not any(parameter.requires_grad for parameter in engine.model.parameters())):
            raise ConfigError(
                f"train.freeze={list(config.train.freeze)} leaves a rank of the track axis nothing to train; "
                f"freeze fewer, or set parallel.track=1"
            )
    engine.materialize(lambda model: _fill(model, config, sources, checkpoint, engine.placement))

    session = Session(
        config=config,
        folder=folder,
        sources=sources,
        engine=engine,
        store=store,
        journal=Journal(folder.journal, folder.lock.check),
        guard=FiniteGuard(device),
        profiler=StepProfiler(config.train.profile, folder.path / "profile", device),
        peak=peak_of_ranks(
            measure_peak(device, precision.autocast_dtype or torch.float32), world.ranks.world_size
        ),
        progress=Progress(),
        total_steps=count_steps(config, sources.loader.samples_per_epoch),
        flops_per_token=train_flops_per_token(config.model, config.model.max_seq_len),
        display=display,
        world=world,
        meter=ThroughputMeter(),
    )
    if checkpoint is not None:
        _restore(session, checkpoint)
    if world.on_first(lambda: _mend_journal(session)) and session.progress.best_val_loss is not None:
        store.mark_best(session.progress.step, session.progress.best_val_loss)
    return session


def _newest_checkpoint(store: ShardedStore) -> Path | None:
    """What the run goes on from; None for a run that has not saved yet.

    Raises:
        CheckpointError: there are checkpoints and none is good; starting anew would put them at risk.
    """
    store.clear_leftovers()
    newest = store.newest_good()
    if newest is None and store.all_steps():
        raise CheckpointError(
            f"{store.folder} holds no checkpoint that is whole; nothing was overwritten: put one back from a "
            f"copy, or choose another run.dir"
        )
    return newest


def _fill(
    model: Decoder, config: RunConfig, sources: Sources, checkpoint: Checkpoint | None, placement: Placement
) -> None:
    if checkpoint is not None:
        saved = model_of_run(checkpoint)
    elif config.train.init_from is not None:
        saved = read_model(config.train.init_from)
    else:
        model.initialize(config.seed, placement.put)
        return
    _check_tokenizer(saved, sources)
    _check_meaning(saved, config)
    load_weights(model, saved.weights, source=saved.path, whole=build_model(config.model), put=placement.put)


def _check_tokenizer(saved: SavedModel, sources: Sources) -> None:
    if TOKENIZER_FILE not in saved.texts:
        raise TokenizerError(
            f"{saved.path} has no {TOKENIZER_FILE}, so its weights may mean other token ids than the data at "
            f"{sources.corpus.path}; import it again with --tokenizer"
        )
    made_with = load_tokenizer(saved.path)
    if made_with.fingerprint != sources.tokenizer.fingerprint:
        raise TokenizerError(
            f"{saved.path} was trained with another tokenizer ({made_with.vocab_size} ids, fingerprint "
            f"{made_with.fingerprint[:12]}) than the data at {sources.corpus.path} (fingerprint "
            f"{sources.tokenizer.fingerprint[:12]}); prepare the data with --tokenizer {saved.path}"
        )


def _check_meaning(saved: SavedModel, config: RunConfig) -> None:
    """Weights of the same shapes can still mean another model: other heads, other positions, other norms."""
    theirs, ours = saved.model_config.model_dump(), config.model.model_dump()
    for key in _MEANING:
        if (given := theirs.get(key)) != ours.get(key):
            raise CheckpointError(
                f"{saved.path} was trained with model.{key}={given}, this run has {ours.get(key)}; "
                f"set model.{key}={given}"
            )


def _restore(session: Session, checkpoint: Checkpoint) -> None:
    state = checkpoint.state
    restore_optimizer_state(checkpoint.path, session.engine, state["optimizer"], group=session.world.saving)
    session.engine.load_extra_state(state["engine"])
    session.sources.loader.load_state_dict(state["loader"])
    session.meter.load_state_dict(state["meter"])
    session.progress = Progress.from_state(state["progress"])
    if session.progress.validated_on != session.validation_name:
        # Losses on other text cannot be compared: the best so far is not known.
        session.progress.best_val_loss = None


def _mend_journal(session: Session) -> bool:
    """Takes back what the journal has beyond the checkpoint; whether that is the best, and may lack its mark.

    The run may have been killed before it marked it.
    """
    session.journal.truncate_after(session.progress.step)
    best = session.progress.best_val_loss
    if best is None or not session.config.train.save_best:
        return False
    return any(record.get("val_loss") == best for record in session.records_here())
