"""The loop around the step: epochs, validation, early stop, and an ending that loses nothing.

    fitted = fit(net, cross_entropy, optax.adam(1e-3), (x, y), epochs=15)
    logits = net(fitted.state.params, x_test)

Every step is `Step.update` on a batch of `Feed(data, batch, seed).batch(step)`, so the same
arguments give the same parameters, bit for bit, on the same machine.
"""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ..feed.feed import Feed, in_order
from ..feed.reader import Reader
from ..mesh.hosts import is_first, together
from ..mesh.mesh import Mesh
from ..nn.layer import Layer
from ..types import Hint
from ..verdicts.nonfinite.report import Nonfinite
from .calls import limited
from .checkpoint import CheckpointError, Checkpoints
from .checks import (
    check_alike,
    check_batch,
    check_calls,
    check_feeds,
    check_labels,
    check_settings,
    dry_run,
)
from .class_weight import weighted
from .guard import Guard, check_choice
from .health import Checkups, Look
from .history import History
from .log import RunLog, logged
from .loss import Objective
from .micro import check_count
from .precision import Precision
from .profile import profiled
from .progress import progress_line
from .resume import Keeper, begun, checkpoints_of, settings_of
from .run import Best, OnEpoch, Run
from .signals import interrupts
from .state import TrainState
from .step import outermost, step_of


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes:
        state: The last state whose parameters are finite, or with `patience` the best one;
            `state.params` are the parameters.
        history: The figures of each epoch.
        stopped: None after all epochs; "patience", "on_epoch", "interrupted", "terminated", "not
            finite" or "data", which could not be read on, where training ended before.
        nonfinite: With `on_nonfinite="explain"`, where the step that ended training went wrong.
    """

    state: TrainState
    history: History
    stopped: str | None
    nonfinite: Nonfinite | None = None


@together("fit")
def fit(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    optimizer: Any,
    data: Any,
    *,
    epochs: int,
    batch: int = 64,
    validation: Any = None,
    seed: int = 0,
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    patience: int | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    on_nonfinite: str | None = None,
    health: int | None = None,
    inputs: Any = None,
    accumulate: int = 1,
    max_traces: int | None = None,
    clip: float | None = None,
    ema: float | None = None,
    precision: str | Precision | None = None,
    workers: int = 0,
    class_weight: Any = None,
    start: TrainState | None = None,
    checkpoint: str | Path | Checkpoints | None = None,
    resume: bool = False,
    log: str | Path | RunLog | None = None,
    profile: str | Path | None = None,
    mesh: Mesh | None = None,
) -> Fitted:
    """Train a network on data.

    Ctrl-C ends training after the step that runs and returns what was learned; before the first
    step it raises KeyboardInterrupt. A loss or parameters that are no longer finite end training
    after their epoch, and the state of the last epoch before comes back (the first one of all, if
    there is no other). Data that cannot be read on ends it with what was learned, and a warning.

    The figures of an epoch are those of all its examples together. A scalar is taken as a mean over
    the batch's examples. Where that is not so, because some targets are left out or weigh more, a
    criterion or a metric returns `fn.Mean(total, count)`; funcnet's own losses and metrics need no
    such care where their value is returned as it is.

    Args:
        net: The network.
        criterion: `(output, target) -> scalar`, or a `Mean`, or `(loss, {name: figure})`, whose
            figures join the metrics.
        optimizer: Any optax optimiser.
        data: The inputs, then the target: arrays of one length, as in `(x, y)`; what has a length
            and gives one such pair for each number, as the data sets of PyTorch do; batches of
            such pairs, in a list, from a loader, or from a function that gives them for each epoch
            anew; or a `fn.data.Feed` of any of these.
        epochs: How often to go through the data.
        batch: Examples in a step. The last step of an epoch takes what is left over.
        validation: The same as `data`, to be looked at after each epoch and not learned from.
        seed: Decides the parameters, the order of the examples and every draw.
        metrics: `(output, target) -> scalar`, or a `Mean`, by name.
        patience: Stop when the validation loss has not improved for so many epochs; the state of
            the best epoch comes back, however training ends.
        progress: Whether to show a line of progress on the standard error.
        on_epoch: Called with the figures of each epoch and the state, which is valid until the
            function returns: copy what is to be kept. Where it returns True training ends.
        on_nonfinite: What to do about a step whose loss, gradient or new parameters are not
            finite: "stop" ends training with the state before it; "explain" does so too, and says
            where the NaN or the Inf is born, as `explain_nonfinite` does; "skip" leaves the step
            out, and the history counts those in `skipped`. Training runs at full speed.
        health: Look at the network every so many steps, from the first on: the scales of values,
            adjoints and updates, and dead units, layer by layer. They are `history.health`, and
            `history.verdicts()` says what is wrong.
        inputs: As for `make_step`. What else of a batch holds labels is then known to the
            criterion alone, so that labels without an output are not refused.
        accumulate: As for `make_step`; a step that looks at the network's health takes the whole
            batch at once.
        max_traces: As for `make_step`.
        clip: As for `make_step`.
        ema: As for `make_step`; validation looks at the average, the state holds both.
        precision: "f32", "bf16", "f16" or a `Precision`, as for `make_step`. With "f16" steps whose
            gradients overflow are not taken; the history has their number in `skipped` and the
            `loss_scale` of the epoch's last step.
        workers: How many processes read single examples; arrays in memory need none.
        class_weight: Weights of classes for the loss: "balanced" lets each class count alike, as
            `fn.data.class_weights` says; or `{class: weight}`, where others weigh 1.
        start: A state to go on from, such as another `fit(...).state`: its parameters, what the
            optimiser knows and its count of steps. Epochs count from 1, in the order of `seed`.
        checkpoint: A folder, or `Checkpoints`, to which the run is written: after each epoch, or
            as often as those say, and at the end. Ctrl-C and SIGTERM write one more.
        resume: Go on from the last checkpoint, as if the run had never ended: the result is the
            same, bit for bit, but for the times. In a folder without one training begins anew.
        log: A folder for the figures of each epoch as they come: `history.jsonl`, and where the
            package tensorboardX is installed, `tensorboard/` for TensorBoard.
        profile: A folder for a trace of some steps, which xprof and TensorBoard show, with the
            names of the layers. What is traced runs slower.
        mesh: The devices to train on, and what is split along them. With several processes each
            calls `fit` with the same arguments; the first one shows the progress.

    Returns:
        The state, the history, and why training stopped early, if it did.

    Raises:
        ValueError: Before the first step, if the data cannot be learned from: empty, smaller than
            a batch, of different lengths, not finite, beyond int32, masked, or labels the network
            has no output for; if a batch does not come out even on the mesh; if a metric has the
            name of another column of the history; or if `on_nonfinite` or `precision` is another
            word. After an epoch, if none of its targets counts.
        TypeError: If `data` is nothing of these, `metrics` no dict of functions, or `on_epoch` no
            function.
        ConnectionError: If another process of the run is gone.
        KeyboardInterrupt: If Ctrl-C was pressed before the first step.

    >>> from funcnet.layers.linear import Dense
    >>> import jax.numpy as jnp, numpy as np, optax
    >>> def squared_error(output, target):
    ...     return jnp.mean((output - target) ** 2)
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> arguments = (Dense(1), squared_error, optax.sgd(0.3), (x, 2 * x + 1))
    >>> fitted = fit(*arguments, epochs=20, batch=16, progress=False)
    >>> round(float(fitted.state.params["b"][0]), 3), fitted.history.rows[-1]["loss"] < 1e-4
    (1.0, True)
    """
    check_settings(epochs, batch, patience, seed)
    feed = Feed.of("data", data, batch, seed, workers=workers)
    size = max(feed.size, 256)
    held = None if validation is None else in_order("validation", validation, size, workers)
    check_feeds(epochs, patience, feed, held)
    criterion = weighted(criterion, class_weight, feed)
    check_choice(on_nonfinite)
    objective = Objective.of(net, criterion, metrics, inputs).under("fit", precision)
    guard = Guard(on_nonfinite, objective.scales) if on_nonfinite or objective.scales else None
    made = functools.partial(
        step_of, objective, optimizer, dict, guard and guard.look, mesh=mesh,
        accumulate=check_count("accumulate", accumulate), clip=clip, ema=ema,
    )  # fmt: skip
    step = whole = made()
    if mesh is not None:
        mesh.check_batch("fit", feed.size, accumulate)
    place = None if mesh is None else mesh.place
    update, seen = _compiled(guard, limited(step.update, _allowed(max_traces, feed))), None
    if health is not None:
        update = seen = Checkups(health, update, _compiled(guard, made(Look()).update))
    update = guard.over(update) if guard else update
    kept = checkpoints_of(checkpoint, resume)
    with contextlib.ExitStack() as closing:
        interrupted = closing.enter_context(interrupts(kept is not None))
        write = closing.enter_context(logged(log))
        step = step._replace(update=closing.enter_context(profiled(profile, update)))
        check_calls(metrics or {}, on_epoch)
        first = feed.first() if inputs else check_batch(feed.first())
        state = step.init(jax.random.key(seed), *objective.read(first)[0])
        seen_parts = [part.seen() for part in (feed, held) if part is not None]
        check_alike(seen_parts[0], seen_parts[-1])
        for part in () if inputs else seen_parts:
            check_labels(net, criterion, state, part)
            dry_run(net, criterion, metrics, state, part)
        settings = settings_of(seed, feed)
        keeper = closing.enter_context(Keeper(kept, settings, seen)) if kept else None
        if interrupted():
            raise KeyboardInterrupt("before the first step")
        show = closing.enter_context(progress_line(epochs, progress and is_first()))
        reader = closing.enter_context(Reader(feed, epochs, place))
        shown = None if held is None else closing.enter_context(Reader(held, epochs, place))
        state = begun(state, start)
        run = Run(step, state, Best(patience), show, interrupted, guard, keeper)
        if keeper is not None:
            keeper.resume(run, resume)
        try:
            _train(run, reader, shown, on_epoch, write)
        except CheckpointError as error:
            error.fitted = _fitted(run, seen)
            raise
    if run.failed:
        warnings.warn(f"{run.failed} What was learned until then is kept.", Hint, stacklevel=2)
    told = guard.explained(objective, whole.update, run.state) if guard else None
    if told is not None and progress and is_first():
        print(told, file=sys.stderr)
    return _fitted(run, seen)._replace(nonfinite=told)


def _train(
    run: Run, data: Reader, held: Reader | None, on_epoch: OnEpoch | None, write: Callable
) -> None:
    """Take the epochs that are left of a run."""
    begun_at = run.taken
    try:
        for epoch in range(run.finished, data.epochs):
            if run.stopped:
                break
            run.learn(epoch, data)
            if run.stopped is None:
                run.finish(held, epoch + 1, on_epoch)
                write(run.rows)
                if run.keeper is not None:
                    run.keeper.finished(run)
        if run.keeper is not None:
            run.keeper.close(run)
    except KeyboardInterrupt:
        # Raised inside a step it may have cost the state; with another there is no need.
        if run.taken == begun_at:
            raise
        run.stopped = "interrupted"
    finally:
        write(run.rows)


def _fitted(run: Run, seen: Checkups | None) -> Fitted:
    history = History(tuple(run.rows), seen.records() if seen else ())
    return Fitted(run.result(), history, run.stopped)


def _compiled(guard: Guard | None, update: Callable) -> Callable:
    return outermost(update if guard is None else guard.guarded(update))


def _allowed(max_traces: int | None, feed: Feed) -> int | None:
    """How often the step may be traced: once more where the last batch of an epoch is smaller."""
    if max_traces is None:
        return None
    ragged = feed.examples is not None and feed.remainder == "use" and feed.examples % feed.size
    return check_count("max_traces", max_traces) + bool(ragged)
