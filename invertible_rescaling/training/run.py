"""The training loop, whole in one class: every part of it reads and moves the one state that is resumed."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from invertible_rescaling.errors import RescalingError
from invertible_rescaling.evaluation import Rescale, bicubic_rescale, model_rescale
from invertible_rescaling.images import from_uint8
from invertible_rescaling.models import AnyModel
from invertible_rescaling.training.build import weights_label
from invertible_rescaling.training.config import OptionError, TrainingConfig
from invertible_rescaling.training.defaults import resolve_steps
from invertible_rescaling.training.degradations import Degradation
from invertible_rescaling.training.device import compile_model
from invertible_rescaling.training.gan import Adversary
from invertible_rescaling.training.graph import DeviceStep
from invertible_rescaling.training.objective import objective_for
from invertible_rescaling.training.optimizer_state import optimizer_tensors, restore_optimizer
from invertible_rescaling.training.optimizers import make_optimizer, refresh_if_due, set_rate
from invertible_rescaling.training.patches import PatchSampler
from invertible_rescaling.training.prefetch import Prefetched
from invertible_rescaling.training.schedule import Average, TrainStep, learning_rate
from invertible_rescaling.training.state import cut_log, fingerprint, load_newest_state, save_state
from invertible_rescaling.training.time_budget import TimeBudget, in_words
from invertible_rescaling.training.validation import CEILING, ValidationImage, measure_images
from invertible_rescaling.weights.checkpoint import save_checkpoint

_TIMED = range(4, 12)  # steps of a call, by which it says how long it will take: the first ones warm up
_AGAIN = 30  # steps, at least, until a run that is to fit into a time counts once more


class TrainingError(RescalingError, RuntimeError):
    """Training cannot go on."""


class Run:
    """A run: model, averaged model, optimiser, data and where it stands.

    Args:
        options: of the run, settled; without ``steps``, as many are made as ``fit`` allows.
        accelerator: places model and tensors, and speaks to the other processes.
        model: to be trained, on the CPU.
        sampler: of the training patches.
        val: images to validate on; may be empty.
        say: prints a line once, whatever the number of processes.
    """

    def __init__(
        self,
        options: TrainingConfig,
        accelerator: Accelerator,
        model: AnyModel,
        sampler: PatchSampler,
        val: Sequence[ValidationImage],
        say: Callable[[str], None],
    ) -> None:
        self.options = options
        self.accelerator = accelerator
        self.sampler = sampler
        self.val = val
        self.say = say
        device = accelerator.device
        model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.ema = Average(model, options.ema or 0.0)
        if options.compile == "on":
            compile_model(model)
        on_gpu = device.type == "cuda"
        optimizer = make_optimizer(model, options, on_gpu=on_gpu)
        self.adversary = Adversary(options, accelerator, model.channels) if options.gan else None
        objective = objective_for(model, options, self.adversary)
        self.terms = objective.terms + (() if self.adversary is None else ("discriminator",))
        self.step_module, self.optimizer = accelerator.prepare(TrainStep(model, objective), optimizer)
        images = [image.hr for image in sampler.images]
        far = device.type != "cpu" and images[0].device.type == "cpu"
        self._batches = Prefetched(sampler.batch_at, pin=on_gpu) if far else sampler
        self._device_step: DeviceStep | None = None
        if options.graph == "on":
            self._device_step = DeviceStep(
                lambda hr, lr: self.step_module(hr, lr)[0],
                [parameter for parameter in model.parameters() if parameter.requires_grad],
                getattr(self.optimizer, "optimizer", self.optimizer),
                self.ema,
                model,
                options.clip,
            )
        self._through = _in_validation(options.degradation)
        self._images = fingerprint(images)
        self._weights = weights_label(options)
        self._first = self.step = 0
        self.best, self.best_step = -math.inf, 0
        self.skipped_in_a_row = 0
        self.metrics: dict[str, float] = {}
        self.stop_requested = False
        self.writer: SummaryWriter | None = None
        self._bicubic: dict[str, float] | None = None
        self._saved_at = -1
        self.pace = TimeBudget()
        self._timed_from, self._count_again_at = (0.0, 0), -1
        self._asked, self._fit = options, options.fit if options.steps is None else None

    # ---------------------------------------------------------------- running

    def run(self, started: float) -> bool:
        """Train until done or out of time; return whether all steps are done.

        Args:
            started: ``time.monotonic()`` at the start of the program, from which the time limit counts. One
                step is made even where it has passed, so that a run called again and again always ends.
        """
        options, main = self.options, self.accelerator.is_main_process
        if self._is_done:
            return True
        if main:
            self.writer = SummaryWriter(str(options.out / "tensorboard"), purge_step=self.step or None)
        if self.step == 0 and not self.metrics:
            self._save_state()  # before any weights: what is in the folder can be gone on with at any moment
            if self.val:
                self.validate()
        elif self.val and self._bicubic is None:
            self._measure_bicubic()
        if self.val and options.time_limit is not None and self.pace.validation is None:
            self._try_validation()
        self._first = self.step
        bar = tqdm(
            total=options.steps,
            initial=self.step,
            unit="step",
            disable=options.quiet or not main,
            leave=False,
        )
        while not self._is_done and not self._must_stop(started):
            before = time.monotonic()
            terms, norm = self.train_one()
            bar.update()
            if self.step % options.log_every == 0 or self._is_done:
                self._read_skipped(terms)
                self._record(terms, norm, bar)
            self.pace.stepped(time.monotonic() - before)
            self._tell_pace(bar, started)
            if self.step % options.validate_every == 0 or self._is_done:
                self.validate()
            elif self.step % options.save_every == 0:
                self.save()
        bar.close()
        finished = self._is_done
        if not finished and self._saved_at < self.step:
            self.save()  # first, so that a validation that is cut off costs no steps
            if not self._any(self.stop_requested or not self._reserves_validation):
                self.validate(keep_best=False)
        if self.writer is not None:
            self.writer.close()
        return finished

    def train_one(self) -> tuple[Tensor, Tensor]:
        """Make one step; return the terms of its loss and the norm of its gradient, on the device."""
        options, accelerator = self.options, self.accelerator
        rank = accelerator.process_index
        rate = learning_rate(options, self.step)
        set_rate(self.optimizer, rate)
        # Noise of a Gaussian latent, like the batch, depends on the step and not on how it was reached.
        torch.manual_seed(options.seed * 1_000_003 + self.step * 1009 + rank)
        hr, lr = self._batches.batch_at(self.step, rank)
        if self._device_step is not None and self._step_on_device(self._device_step, hr, lr, rate):
            self.step += 1
            refresh_if_due(self.optimizer, self.step)
            return self._device_step.terms, self._device_step.norm
        hr = hr.to(accelerator.device, non_blocking=True)
        lr = None if lr is None else lr.to(accelerator.device, non_blocking=True)
        self.optimizer.zero_grad()
        terms, sr = self.step_module(hr, lr)
        accelerator.backward(terms[0])
        norm = accelerator.clip_grad_norm_(self.step_module.parameters(), options.clip)
        # The norm is that of the gradients averaged over all processes, so that all decide alike.
        finite = bool(torch.isfinite(norm))
        if finite or options.precision == "fp16":  # fp16's gradient scaler skips by itself and adapts
            self.optimizer.step()
        if finite:
            self.ema.update(self.model)
        terms = terms.detach()
        if self.adversary is not None:
            loss = self.adversary.train(from_uint8(hr), sr, rate) if finite else terms.new_tensor(math.nan)
            terms = torch.cat((terms, loss.reshape(1)))
        self._count_skipped(finite, terms)
        self.step += 1
        refresh_if_due(self.optimizer, self.step)
        return terms, norm

    def _step_on_device(self, step: DeviceStep, hr: Tensor, lr: Tensor | None, rate: float) -> bool:
        """Make a step that the host does not wait for; return whether it was made."""
        try:
            step(hr, lr, rate)
        except RuntimeError as error:
            self.say(f"going on without a CUDA graph: {str(error).strip().splitlines()[0]}")
            self._device_step = None
            step.optimizer.found_inf = None  # type: ignore[attr-defined]  # a tensor of the lost graph
            return False
        return True

    @property
    def _is_done(self) -> bool:
        return self.options.steps is not None and self.step >= self.options.steps

    def _tell_pace(self, bar: Any, started: float) -> None:
        """Say after the first steps how long all will take, or how many fit; all processes agree.

        The first steps of a run may be slower than the rest, so that a run that is to fit into a time counts
        again after a tenth of its steps, when the rate is still near its peak.
        """
        made = self.step - self._first
        if made == _TIMED.start:
            self._timed_from = self._now(), self.step
        if made != _TIMED.stop and self.step != self._count_again_at:
            return
        seconds, steps = self._now() - self._timed_from[0], self.step - self._timed_from[1]
        step = -self._least(-seconds / steps)  # the slowest process's
        validation = (self.pace.validation or 0.0) if self.val else 0.0
        after = (validation + self.pace.save) / self.options.validate_every
        if self._fit is not None:
            left = self._fit - (time.monotonic() - started) - validation
            more = max(1, int(0.97 * self._least(left) / (step + after)))
            self._resolve_steps(self.step + more)
            bar.total = self.options.steps
            self._count_again_at = self.step + max(_AGAIN, more // 10) if made == _TIMED.stop else -1
            self._timed_from = self._now(), self.step
        to_go = (self.options.steps or 0) - self.step
        time_left = in_words(to_go * (step + after) + validation)
        some = "the step" if to_go == 1 else f"the {to_go} steps"
        self.say(f"{step:.3g} s a step: about {time_left} for {some} to go of {self.options.steps}")

    def _resolve_steps(self, steps: int) -> None:
        self.options = resolve_steps(
            replace(self.options, warmup=self._asked.warmup, ema=self._asked.ema), steps
        )
        self.ema.set_decay(self.options.ema or 0.0)
        self._saved_at = -1  # a state without the number of steps would come to another

    def _now(self) -> float:
        """The time at which all that was asked of the device is done."""
        if self.accelerator.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.monotonic()

    def _least(self, number: float) -> float:
        """The least of a number over all processes."""
        if self.accelerator.num_processes == 1:
            return number
        here = torch.tensor([number], device=self.accelerator.device)
        return float(self.accelerator.gather(here).min())

    def _count_skipped(self, finite: bool, terms: Tensor) -> None:
        if finite:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        self.say(f"step {self.step}: loss {float(terms[0]):.4g} or its gradient is not finite; step skipped")
        self._give_up_if_lost()

    def _read_skipped(self, terms: Tensor) -> None:
        """Ask the device what the host was not told step by step."""
        if self._device_step is None:
            return
        self.skipped_in_a_row = int(self._device_step.skipped)
        if self.skipped_in_a_row:
            row = "1 step" if self.skipped_in_a_row == 1 else f"{self.skipped_in_a_row} steps in a row"
            self.say(
                f"step {self.step}: loss {float(terms[0]):.4g} or its gradient is not finite; {row} skipped"
            )
            self._give_up_if_lost()

    def _give_up_if_lost(self) -> None:
        if self.skipped_in_a_row >= self.options.max_skipped_steps:
            raise TrainingError(
                f"{self.skipped_in_a_row} steps in a row without a finite gradient, the last is {self.step}; "
                f"start anew with --weights {self.options.out / 'last.safetensors'}, a lower --lr and "
                "another --out"
            )

    @property
    def _reserves_validation(self) -> bool:
        """Return whether a slice is to end with a validation: where that costs little of the time limit."""
        return bool(self.val) and self.pace.is_cheap_to_validate(self.options.time_limit)

    def _must_stop(self, started: float) -> bool:
        """Return whether another step, with what follows it, outruns the time limit; all processes agree."""
        options = self.options
        made, after = self.step - self._first, self.step + 1
        due = bool(self.val) and (after % options.validate_every == 0 or after == options.steps)
        late = False
        if options.time_limit is not None:
            left = options.time_limit - (time.monotonic() - started)
            late = not self.pace.fits(left, validation=due or self._reserves_validation)
        if late and made == 0:
            late = False
            if due and self.pace.outruns(options.time_limit):
                self.say(
                    f"the validation after step {after} may outrun --time-limit {options.time_limit:g}: give "
                    "it more, or validate on fewer images with --val-limit"
                )
        enough = options.stop_after is not None and made >= options.stop_after
        return self._any(late or enough or self.stop_requested)

    def _any(self, flag: bool) -> bool:
        """Return whether a flag is set in any process; all have to ask."""
        if self.accelerator.num_processes == 1:
            return flag
        flags = torch.tensor([float(flag)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum").item())

    # ------------------------------------------------------------- validating

    @property
    def averaged_model(self) -> AnyModel:
        """The model with averaged weights: what is validated and shipped."""
        return self.ema.module

    def validate(self, *, keep_best: bool = True) -> None:
        """Measure the averaged model; write ``last`` and, where it is the best so far, ``best``; save.

        With ``keep_best=False`` the figures are only reported and written into ``last``: a validation at
        the end of a slice, whose state is saved already, leaves the run what it would have been uncut.
        """
        started = time.monotonic()
        better = False
        if self.val:
            if self._bicubic is None:
                self._measure_bicubic()
            rescale = model_rescale(self.averaged_model.eval(), through=self._through)
            self.metrics = self._averages(rescale, "val") | {"step": self.step}
            bicubic = math.nan if self._bicubic is None else self._bicubic["psnr_rgb"]
            lr = self.metrics["lr_psnr_rgb"]
            self.say(
                f"step {self.step}: val PSNR {self.metrics['psnr_rgb']:.2f} dB RGB (bicubic {bicubic:.2f}), "
                f"{self.metrics['psnr_y']:.2f} dB Y, SSIM {self.metrics['ssim_rgb']:.4f}; "
                + ("LR is bicubic's" if lr >= CEILING else f"LR against bicubic {lr:.2f} dB")
            )
            self._append({"step": self.step, "val": self.metrics})
            # An adversarial loss is not after PSNR: its best weights are its newest.
            better = keep_best and (self.adversary is not None or self.metrics["psnr_rgb"] > self.best)
        if better:
            self.best, self.best_step = self.metrics["psnr_rgb"], self.step
            self._write_weights("best")
        self.pace.validated(time.monotonic() - started)
        if keep_best:
            self.save()
        else:
            self._write_weights("last")

    def _measure_bicubic(self) -> None:
        self._bicubic = self._averages(bicubic_rescale(self.model.scale, through=self._through), "bicubic")
        self._append({"step": self.step, "bicubic": self._bicubic})

    def _try_validation(self) -> None:
        """Estimate how long a validation takes, from one image, twice: the first time is a warm-up."""
        mine = self.val[self.accelerator.process_index :: self.accelerator.num_processes]
        seconds = 0.0
        for _ in range(2):
            started = time.monotonic()
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                rescale = model_rescale(self.averaged_model.eval(), through=self._through)
                measure_images(mine[:1], self.accelerator.device, rescale, self.model.scale)
            seconds = time.monotonic() - started
        pixels = [image.hr.shape[2] * image.hr.shape[3] for image in mine]
        self.pace.validated(seconds * sum(pixels) / pixels[0] if pixels else 0.0)

    def _averages(self, rescale: Rescale, tag: str) -> dict[str, float]:
        """Share the images among the processes and average their metrics over all."""
        acc = self.accelerator
        mine = self.val[acc.process_index :: acc.num_processes]
        # With TensorFloat32, a GPU's figures would not be those that a CPU gives.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            sums, pictures = measure_images(mine, acc.device, rescale, self.model.scale)
        totals = torch.tensor(list(sums.values()), dtype=torch.float64)
        if acc.num_processes > 1:
            totals = acc.reduce(totals.to(acc.device), "sum").cpu()
        averages = {name: float(total) / len(self.val) for name, total in zip(sums, totals, strict=True)}
        if self.writer is not None:
            for name, value in averages.items():
                self.writer.add_scalar(f"{tag}/{name}", value, self.step)
            for image, (lr, sr) in zip(mine, pictures, strict=False):
                self.writer.add_image(f"{tag}/{image.name}/LR", lr[0], self.step)
                self.writer.add_image(f"{tag}/{image.name}/SR", sr[0], self.step)
                if tag == "bicubic":
                    self.writer.add_image(f"HR/{image.name}", image.hr[0], self.step)
        return averages

    # ----------------------------------------------------------- bookkeeping

    def _record(self, terms: Tensor, norm: Tensor, bar: Any) -> None:
        values = dict(zip(self.terms, terms.tolist(), strict=True))
        rate = learning_rate(self.options, self.step - 1)
        self._append({"step": self.step, "loss": values, "lr": rate, "gradient_norm": float(norm)})
        bar.set_postfix(loss=f"{values['total']:.4f}", lr=f"{rate:.1e}")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"loss/{name}", value, self.step)
            self.writer.add_scalar("train/lr", rate, self.step)
            self.writer.add_scalar("train/gradient_norm", float(norm), self.step)

    def _append(self, entry: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.options.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def _facts(self) -> dict[str, Any]:
        options = self.options.fixed | ({"weights": self._weights} if self._weights else {})
        facts = {"step": self.step, "options": options, "images": len(self.sampler.images)}
        return facts | ({"val": self.metrics} if self.metrics else {})

    def _write_weights(self, name: str) -> None:
        if self.accelerator.is_main_process:
            path = self.options.out / f"{name}.safetensors"
            save_checkpoint(self.averaged_model, path, metadata=self._facts())

    def save(self) -> None:
        """Write ``last``, then the whole state of the run."""
        started = time.monotonic()
        self._write_weights("last")
        self._save_state()
        self.pace.saved(time.monotonic() - started)

    def _save_state(self) -> None:
        self.accelerator.wait_for_everyone()
        if self._device_step is not None:
            self.skipped_in_a_row = int(self._device_step.skipped)
        if self.accelerator.is_main_process:
            tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
            tensors |= {f"ema.{name}": t for name, t in self.ema.state_dict().items()}
            tensors |= {f"optimizer.{name}": t for name, t in optimizer_tensors(self.optimizer).items()}
            if self.adversary is not None:
                tensors |= {f"adversary.{name}": t for name, t in self.adversary.state().items()}
            scaler = self.accelerator.scaler
            facts = {
                "fixed": self._fixed,
                "val_set": self._val_set,
                "best": [self.best, self.best_step] if math.isfinite(self.best) else None,
                "metrics": self.metrics,
                "bicubic": self._bicubic,
                "weights": self._weights,
                "skipped_in_a_row": self.skipped_in_a_row,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            save_state(self.options.out / "state", self.step, tensors, facts)
        self._saved_at = self.step
        self.accelerator.wait_for_everyone()

    @property
    def _fixed(self) -> dict[str, Any]:
        """Return the options that identify the run, as data."""
        return self.options.fixed | {
            "config": self.model.config,
            "processes": self.accelerator.num_processes,
            "images": self._images,
        }

    @property
    def _val_set(self) -> str:
        return fingerprint([image.hr for image in self.val])

    def resume(self) -> bool:
        """Go on from the newest state in the output folder; return whether there was one.

        Raises:
            OptionError: the state is another run's (the message names what differs), there are weights and
                no state to go on from, or not all machines see the same state.
            CheckpointError: no state can be read.
        """
        out = self.options.out
        found = load_newest_state(out / "state", self.say)
        self._check_same_everywhere(-1 if found is None else found[0])
        if found is None:
            present = [name for name in ("best", "last") if (out / f"{name}.safetensors").exists()]
            if present:
                raise OptionError(
                    f"{str(out)!r} holds {' and '.join(present)} weights and no state to go on from; choose "
                    "another --out (and --weights to start from them)"
                )
            if self.accelerator.is_main_process:
                cut_log(out / "log.jsonl", -1)
            return False
        step, tensors, facts = found
        mine, theirs = self._fixed, facts["fixed"]
        differing = [name for name, value in mine.items() if theirs.get(name) != value]
        if differing:
            listed = ", ".join(
                f"{name}: {theirs.get(name)!r} there, {mine[name]!r} now" for name in differing
            )
            auto = [
                f"--{name} {theirs[name] or 'off'}" for name in ("precision", "compile") if name in differing
            ]
            hint = f"; what auto means depends on the machine, give {' and '.join(auto)} here" if auto else ""
            raise OptionError(
                f"{str(out)!r} holds a run with other options or images ({listed}); "
                f"repeat its options, or choose another --out{hint}"
            )
        self.model.load_state_dict(_part(tensors, "model."))
        self.ema.load_state_dict(_part(tensors, "ema."))
        restore_optimizer(self.optimizer, _part(tensors, "optimizer."))
        if self.adversary is not None:
            self.adversary.restore(_part(tensors, "adversary."))
        if self.accelerator.scaler is not None and facts["scaler"]:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.step = self._saved_at = step
        self.skipped_in_a_row = facts["skipped_in_a_row"]
        if self._device_step is not None:
            self._device_step.skipped.fill_(self.skipped_in_a_row)
        self.metrics, self._weights = facts["metrics"], facts.get("weights")
        if facts["val_set"] == self._val_set:
            self.best, self.best_step = facts["best"] or (-math.inf, 0)
            self._bicubic = facts["bicubic"]
        elif self.val:
            self.say("the validation images are others than before: the best figure starts anew")
        if self.accelerator.is_main_process:
            cut_log(out / "log.jsonl", step)
        return True

    def _check_same_everywhere(self, step: int) -> None:
        """Each process reads the state from its own disk: they must all have found the same one."""
        if self.accelerator.num_processes == 1:
            return
        steps = self.accelerator.gather(torch.tensor([step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise OptionError(
                f"the processes found states of different steps {sorted(set(steps))} in "
                f"{str(self.options.out)!r}; --out must be on a disk that all machines share"
            )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _in_validation(degradation: Degradation | None) -> Callable[[Tensor], Tensor] | None:
    """What LR goes through where a run is measured: nothing that changes what should come of it."""
    if degradation is None or not degradation.keeps_hr:
        return None
    return degradation.of_lr
