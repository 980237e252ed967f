"""The loop: batches -> rate -> loss and gradients -> step, with log lines, evaluations and checkpoints in between.

Whatever happens between two steps can be stopped and resumed: the position in the run is the whole state.
"""

import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from novelgpt.evaluation import Evaluation, score_batches
from novelgpt.messages import EXIT_DIVERGED, UserError, shown, warn
from novelgpt.network import model_weights, save_model
from novelgpt.training.checkpoint import (
    Progress,
    Saver,
    gather_on_host,
    list_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    training_weights,
)
from novelgpt.training.engine import Engine, Run, StepResult
from novelgpt.training.keeping import FINAL, ModelKeeper, final_step, keep_sample
from novelgpt.training.log import Meter, NoStory, RunLog, Story, Watch, say_evaluation
from novelgpt.training.pace import choose_pace, is_scored
from novelgpt.training.parallel import World, any_process, largest_of_processes, of_first_process, sum_over_processes
from novelgpt.training.regularize import Exchange
from novelgpt.training.stopping import Stopped, StopSignals, saving_at_a_stop, watch_blocks
from novelgpt.training.windows import Batch

BAD_IN_A_ROW = 3  # steps without a finite loss that end a run
Sampler = Callable[[torch.nn.Module], str]


class Trainer:
    """Holds a run's engine and position, and records what happens."""

    def __init__(
        self,
        run: Run,
        stop: StopSignals,
        *,
        sample: Sampler | None = None,
        story: Story | None = None,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
        began: float | None = None,
    ):
        """Make the engine, and open the log of the run folder.

        Args:
            run, stop: from prepare_run; asked between micro-batches.
            sample: writes a short text with the network as it stands; None for no samples.
            story: what the log tells beside figures; None, as in all processes but the first, for nothing.
            watch: called with every record of the log.
            clock, began: what a run of hours goes by, and what it showed when the command started; None for now.
        """
        options, folder, world = run.options, run.options.output_path, run.world
        self.run, self.options, self.stop, self.sample = run, options, stop, sample
        self.story = story or NoStory()

        # what computes; one step may take a minute on a CPU, so there a pass can be stopped in its middle
        self.engine = Engine(run)
        rule = {"vocab_size": run.tokenizer.vocab_size, "seed": options.seed, "rule": options.replacement}
        self.exchange = Exchange(run.data.stream, share, **rule) if (share := options.replace_inputs) else None
        if self.engine.device.type == "cpu" and world.size == 1:
            watch_blocks(run.model, stop)
        began = of_first_process(clock() if began is None else began, world)
        self.pace = choose_pace(run, lambda: of_first_process(clock(), world), began)

        # what keeps
        self.saver = Saver(folder, save_minutes=options.save_minutes, keep=options.save_total_limit)
        facts = {"corpus": run.data.corpus_facts(), "mark": run.data.mark, "is_main": world.is_main}
        self.keeper = ModelKeeper(
            folder,
            partial(save_model, run.model, run.tokenizer),
            tell=self.story.tell,
            agree=partial(any_process, world=world),
            **facts,
        )
        records = {"writer_dir": options.writer_dir, "watch": watch, "enabled": world.is_main, "hours": options.hours}
        self.log = RunLog(folder, run.total_steps, **records)

        # where the run stands
        self.progress, self.meter = Progress(), Meter()
        self.loss, self.tokens = (torch.zeros(1, device=self.engine.device) for _ in range(2))  # since the last log
        self.mean_loss: float | None = None  # nats per token since the last log line, where it costs nothing to know it
        self.unchecked: list[tuple[int, Batch, torch.Tensor]] = []  # steps whose finiteness the host has not looked at

    def fit(self, checkpoint: Path | None) -> Progress:
        """Train to the end of the last epoch or of the hours, from a checkpoint's folder if one is given.

        Returns:
            Where the run ended.

        Raises:
            Stopped: a signal or the deadline; the state is saved.
            UserError: the loss is no longer a number, the disk refuses, or the hours are too few.
        """
        run, pace = self.run, self.pace
        with self.log, saving_at_a_stop(self):
            progress = self.restore(checkpoint)

            # the untrained network is evaluated too: what all later losses are compared with; hours have no time for it
            if pace.has_epochs and progress.step == 0 and not progress.history:
                self.evaluate(epoch=0)
                self.story.show_page()
            while not pace.is_over(progress):
                batches = run.data.epoch_batches(progress.epoch, skip=progress.batch)
                run.model.train()
                self.meter.start()
                self.evaluate_if_due()  # one that a stop prevented is still due

                for batch in self.meter.timed(batches):
                    # a run whose time is over or whose held-out loss has stopped falling ends here
                    if pace.is_over(progress):
                        self.save_if_new()
                        break

                    # rate: a share of each optimizer's peak
                    step = progress.step + 1
                    lr_share = pace.lr_share(progress)

                    # batch: some inputs are replaced, so that a text read many times is not learned by heart
                    if self.exchange:
                        batch = self.exchange(batch, step=step)

                    # step: one that is not finite leaves the weights as they were
                    result = self.engine.step(batch, step=step, lr_share=lr_share, check_stop=self.check_stop)
                    self.count_step(batch, result)

                    # log, and say how it goes
                    self.log_if_due(step)

                    # evaluate within the epoch, and keep the best
                    self.evaluate_if_due()

                    # save: by steps, by the clock, or because a signal asked for it
                    if not pace.is_done(progress) and self.is_save_due():
                        self.save()
                else:
                    self.end_epoch()
            if not pace.has_epochs:  # it may have ended with an epoch
                self.save_if_new()
            self.write_final()
        return progress

    def restore(self, checkpoint: Path | None) -> Progress:
        """Put network, optimizers, log and position back to a checkpoint; without one, to the beginning."""
        if checkpoint is not None:
            self.progress = load_checkpoint(checkpoint, self.run.model, self.engine.optimizers)
            self.engine.scaler.load_state_dict(self.progress.scaler or self.engine.scaler.state_dict())
            parts = self.progress.micro_batches or self.engine.micro_batches
            self.engine.micro_batches = largest_of_processes(parts, self.run.world)
            self.loss += self.progress.loss_sum if self.run.world.is_main else 0.0  # summed over processes
            self.tokens += self.progress.loss_tokens
        self.pace.resume(self.progress)
        self.log.resume(place=self.pace.place(self.progress), length=self.progress.log_bytes)
        self.story.begin(self.log, self.progress, is_resumed=checkpoint is not None)
        return self.progress

    def count_step(self, batch: Batch, result: StepResult) -> None:
        """Move on by a step, and note its loss without waiting for it."""
        self.loss += result.loss
        self.tokens += result.tokens
        self.pace.advance(self.progress)
        self.unchecked.append((self.progress.step, batch, result.finite))
        if result.finite.device.type == "cpu" or len(self.unchecked) >= self.pace.steps_ahead:
            self.check_finite()
        self.meter.tokens += batch.input_ids.size
        self.log.move_bar(self.pace.place(self.progress), self.progress.epoch, self.options.epochs, self.mean_loss)

    def step_record(self) -> dict:
        """Return where the run stands and how it goes since the last log line; the loss only where it is known."""
        known = {} if self.mean_loss is None else {"loss": self.mean_loss}
        rates = {
            "lr": self.engine.optimizers[0].param_groups[0]["lr"],
            "tokens_per_second": round(self.meter.rate(), 1),
        }
        place = {"step": self.progress.step, "epoch": self.progress.epoch}
        return {**place, **known, **rates, **self.pace.record(self.progress)}

    def say_step(self, record: dict) -> None:
        """Print a record of a step, and what is left."""
        step_seconds = self.run.data.step_tokens / max(record["tokens_per_second"], 1e-9)
        seconds = self.pace.seconds_left(self.progress, step_seconds)
        self.log.say_step(record, seconds_left=seconds, loading_share=self.meter.loading_share())

    def check_finite(self) -> None:
        """Look at the steps since the last look: report those left out, and end the run after three in a row."""
        unchecked, self.unchecked = self.unchecked, []
        if unchecked:
            self.pace.note_steps(self.progress, len(unchecked))
        for step, batch, finite in unchecked:
            self.progress.bad_in_a_row = 0 if finite else self.progress.bad_in_a_row + 1
            if not finite:
                self.report_bad_step(step, batch)
        # several processes know only their own part of it
        if unchecked and self.run.world.size == 1 and (tokens := float(self.tokens)):
            self.mean_loss = float(self.loss) / tokens

    def report_bad_step(self, step: int, batch: Batch) -> None:
        """Record a step that was left out.

        Raises:
            UserError: it was the last of too many in a row.
        """
        self.progress.skipped += 1
        warn(f"step {step}: loss or gradient is not finite; left out ({self.run.data.describe_places(batch)})")
        self.record({"step": step, "loss": math.nan})
        if self.progress.bad_in_a_row >= BAD_IN_A_ROW:
            saved = list_checkpoints(self.options.output_path)
            good = saved[-1] if saved else "none was saved yet"
            message = f"step {step}: loss not finite {BAD_IN_A_ROW} steps in a row; last good checkpoint: {good}"
            raise UserError(message, f"--lr {self.options.lr / 3:.2g} --allow_change lr", EXIT_DIVERGED)

    def check_stop(self) -> None:
        """Raise Stopped if any process was asked to stop."""
        if any_process(self.stop.must_stop(), self.run.world):
            raise Stopped

    def log_if_due(self, step: int) -> None:
        """Log every log_step steps; in between, where there is no bar and nothing was said for minutes, only say it."""
        if step == 1 or step % self.options.log_step == 0 or self.pace.is_done(self.progress):
            self.log_step()
        elif self.log.is_line_due():
            self.say_step(self.step_record())

    def log_step(self) -> None:
        """Write the mean loss since the last log line."""
        self.check_finite()
        loss = sum_over_processes([float(self.loss)], self.run.world)[0]  # nats
        tokens = float(self.tokens)  # the host waits here for the steps under way
        self.loss.zero_()
        self.tokens.zero_()
        if tokens:
            self.mean_loss = loss / tokens
            record = self.step_record()
            self.log.write(record)
            if self.run.world.is_main:
                self.say_step(record)
        self.meter.start()

    def record(self, values: dict) -> None:
        """Append a record of the current step to the log."""
        self.log.write({"step": self.progress.step, "epoch": self.progress.epoch, **values})

    def evaluate_if_due(self) -> None:
        """Evaluate within the epoch if it is due, and keep the best; its time is not the training's."""
        if self.pace.is_look_due(self.progress):
            self.check_finite()
            began = time.monotonic()
            if not is_scored(self.progress):  # else the stop came after it
                evaluation = self.evaluate(epoch=self.pace.epoch(self.progress))
                if evaluation is not None:
                    self.keeper.choose_best(self.progress, evaluation.loss, self.gather_weights())
            if self.run.world.is_main:
                self.write_sample(is_wanted=not self.pace.has_epochs)
            self.pace.note_look(self.progress)
            self.meter.leave_out(time.monotonic() - began)

    def evaluate(self, *, epoch: float) -> Evaluation | None:
        """Score the held-out tail and log it; None when nothing is held out.

        Raises:
            Stopped: asked to stop before all of it was scored.
        """
        data = self.run.data
        if data.num_valid < 2:
            return None
        world = World() if self.options.shard else self.run.world  # shared weights meet in every pass of every process
        numbers = itertools.count(1)

        def before_batch() -> None:
            self.check_stop()
            self.log.show(shown(f"evaluating: batch {next(numbers)}"))

        part = {"before_batch": before_batch, "rank": world.rank, "world": world.size}
        self.run.model.eval()
        try:
            scores = score_batches(self.engine.score, data.valid_batches(), self.engine.device, **part)
        finally:
            self.engine.reshard()
            self.run.model.train()
        nll, scored, right = sum_over_processes([*scores.totals()], world)
        result = Evaluation(nll, int(scored), data.num_valid, data.valid_characters, int(right))

        # the history keeps it for the verdict, the log for plots
        loss = result.loss if math.isfinite(result.loss) else None  # JSON knows no nan
        self.progress.history.append({"epoch": epoch, "step": self.progress.step, "valid_loss": loss})
        values = {"valid_loss": result.loss, "valid_perplexity": result.perplexity}
        self.record({**values, "valid_accuracy": result.accuracy, "bits_per_character": result.bits_per_character})
        self.story.tell_passage(scores.nats)
        if self.run.world.is_main:
            say_evaluation(result, epoch, self.options.epochs)
        return result

    def end_epoch(self) -> None:
        """Go on to the next epoch; where epochs are counted, look at this one and save the next one's beginning."""
        state = self.look_at_epoch() if self.pace.has_epochs else None
        self.progress.epoch += 1
        self.progress.batch = 0
        if state is not None:
            self.save(state)  # of the next epoch's beginning, so a resumed run does not evaluate again

    def look_at_epoch(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Evaluate, write the epoch's model folder and a sample; return the state that is to be saved."""
        progress = self.progress
        self.check_finite()  # bad steps are logged before what is evaluated behind them

        # the evaluation comes first: the model folder names its loss; after a stop in the sample it is done already
        if not is_scored(progress):
            evaluation = self.evaluate(epoch=progress.epoch)
            weights = self.gather_weights()
            if self.run.world.is_main:
                self.keeper.try_to_write(f"model_epoch{progress.epoch}", progress, weights)
            if evaluation is not None:
                self.keeper.choose_best(progress, evaluation.loss, weights)
            del weights  # as large as a third of what comes now

        # what is saved lies on the host before the sample, after which a GPU may answer nothing any more
        state = self.gather_state()
        if self.run.world.is_main:
            self.write_sample()
        return state

    def write_sample(self, *, is_wanted: bool = True) -> None:
        """Show and keep a short text by the network as it stands, where one is wanted; then the page has all of it."""
        if self.sample and is_wanted:
            self.log.show(shown("writing a sample"))
            for record in keep_sample(self.sample, self.run.model, self.progress, further=self.story.samples):
                self.story.tell("sample", **record)
        self.story.show_page()

    def write_final(self) -> None:
        """Write final_model: the last weights, or the best ones where they are wanted; and the end of the story."""
        # told first: a run that has final_model is over, and if it is killed then, its log is whole
        self.story.tell("save", model=FINAL)
        self.story.end()
        weights = self.gather_weights()
        if self.run.world.is_main:
            step = final_step(self.progress, wants_best=self.options.load_best_model_at_end)
            self.keeper.write_final(self.progress, weights, step=step)
        self.story.show_page()

    def save_if_new(self, *, is_last: bool = False) -> None:
        """Write a checkpoint unless the newest one is of just this position."""
        is_saved = self.run.world.is_main and self.saver.is_saved(self.progress)  # the first process knows
        if not any_process(is_saved, self.run.world):
            self.save(is_last=is_last)

    def is_save_due(self) -> bool:
        """Tell whether a checkpoint is due by steps, or on any process by its clock or a signal."""
        if self.options.save_steps and self.progress.step % self.options.save_steps == 0:
            return True
        # clocks and signals differ between processes, so all of them agree on it
        return any_process(self.stop.save_asked or self.saver.time_is_up(), self.run.world)

    def gather_state(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return weights and moments on the host, once every step under way is known to be good."""
        self.check_finite()

        # every process has a part of what is saved
        (self.progress.loss_sum,) = sum_over_processes([float(self.loss)], self.run.world)
        self.progress.loss_tokens = int(self.tokens)
        self.progress.scaler = self.engine.scaler.state_dict()
        model, keep = self.run.model, self.run.world.is_main  # the others would fill the host with copies
        return training_weights(model, keep=keep), optimizer_tensors(self.engine.optimizers, model, keep=keep)

    def gather_weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of a model folder; nothing in a process that writes none and only gives its parts."""
        if self.run.world.is_main:
            return model_weights(self.run.model)
        return gather_on_host(self.run.model.named_parameters(), keep=False)

    def save(self, state: tuple | None = None, *, is_last: bool = False) -> None:
        """Write a checkpoint of a gathered state, or of the present one; a failure is a warning, but not at the end."""
        self.saver.start()
        self.stop.save_asked = False
        progress = self.progress
        weights, moments = state or self.gather_state()
        if not self.run.world.is_main:
            return

        progress.log_bytes = self.log.length()
        progress.micro_batches = self.engine.micro_batches
        self.saver.save(progress, weights, moments, is_last=is_last)
