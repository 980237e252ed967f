"""What a run that stopped says in the morning: what improved, the best sample, what is left, how it goes on.

::

    stopped at step 120 of 600, epoch 2 of 10
    held-out loss 5.8068 at the start, 4.0158 now; best 4.0158 after epoch 1
    sample of epoch 1: 萧炎大喝一声……
    left: 480 steps, about 3 h 20 min
    goes on with: python train.py --raw
"""

import shlex
from collections.abc import Sequence

from novelgpt.training.checkpoint import Progress
from novelgpt.training.metrics import duration_words


def stop_words(
    progress: Progress, total_steps: int, epochs: int, *, seconds_a_step: float | None, command: str
) -> list[str]:
    """Return the lines of the summary.

    Args:
        progress: where the run stands.
        total_steps: optimizer steps of the whole run.
        epochs: of the whole run.
        seconds_a_step: measured in this session, evaluations and saves included; None when no step was taken.
        command: what command_words returned.

    >>> stop_words(Progress(step=2, epoch=1), 6, 3, seconds_a_step=30.0, command="python train.py")
    ['stopped at step 2 of 6, epoch 1 of 3', 'left: 4 steps, about 2 min 0 s', 'goes on with: python train.py']
    """
    lines = [f"stopped at step {progress.step:,} of {total_steps:,}, epoch {min(progress.epoch, epochs)} of {epochs}"]
    scored = [entry for entry in progress.history if entry["valid_loss"] is not None]
    if scored:
        losses = f"held-out loss {scored[0]['valid_loss']:.4f} at the start, {scored[-1]['valid_loss']:.4f} now"
        best = min(scored, key=lambda entry: entry["valid_loss"])
        lines.append(f"{losses}; best {best['valid_loss']:.4f} after epoch {best['epoch']}")
    samples = sorted(
        (entry for entry in scored if "sample" in entry), key=lambda entry: (entry["valid_loss"], entry["epoch"])
    )
    lines += [f"sample of epoch {entry['epoch']}: {entry['sample']}" for entry in samples[:1]]
    if progress.skipped:
        lines.append(f"{progress.skipped} steps were left out, their loss or gradient being no number")
    left = total_steps - progress.step
    time = f", about {duration_words(left * seconds_a_step)}" if seconds_a_step else ""
    return [*lines, f"left: {left:,} steps{time}", f"goes on with: {command}"]


def command_words(words: Sequence[str], *, resume: str, processes: int) -> str:
    """Return the command that goes on with a run.

    Args:
        words: the command that is stopping, script first (sys.argv).
        resume: its --resume; anything but auto is replaced, however spelled, or it would begin where this one began.
        processes: that torchrun started; 1 for none.

    >>> command_words(["train.py", "--raw", "--output_dir", "my model"], resume="never", processes=1)
    "python train.py --raw --output_dir 'my model' --resume auto"
    """
    start = "python" if processes == 1 else f"torchrun --nproc_per_node={processes}"
    if resume != "auto":
        words = [*without_resume(words), "--resume", "auto"]
    return shlex.join([*start.split(), *words])


def without_resume(words: Sequence[str]) -> list[str]:
    """Leave out --resume with its value, in both spellings.

    >>> without_resume(["train.py", "--resume=never", "--raw", "--resume", "model/checkpoints/step-00000002"])
    ['train.py', '--raw']
    """
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if before != "--resume" and word.split("=")[0] != "--resume"]
