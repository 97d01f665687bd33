"""The whole job on this machine's GPU, in one command, and one Markdown report with the GPU's name.

    .venv/bin/python scripts/gpu_acceptance.py [--model NAME] [--steps N] [--report FILE] [--only STEP …]

Doctor; SFT in bf16, 8 and 4 bits, DPO and an embedder, each with its estimate against the measured peak; tokens per
second against bare TRL; the chat engine: start, a tuned model, hot switch under eight chats, sleep and wake around a
training. Every step is a process of its own with a time limit: one that fails or hangs is reported with its reason,
and the rest goes on. Needs no network with the built-in model. Exits with 1 if a step failed.

``--rehearse`` runs the same on a machine without a GPU, with the built-in model and few steps: it proves this script,
not the machine.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sage_studio.catalog import BUILT_IN, BUILT_IN_EMBEDDER
from sage_studio.errors import StudioError
from sage_studio.hardware import Gpu, Hardware, detect_hardware
from sage_studio.settings import PROJECT, load_settings

MARK = "ROW "
GIB = 2**30
ESTIMATE_WITHIN = 0.15
"""How far a measured peak may be from its estimate, as a share."""
CHATS_SWITCHES = 10
PAUSE_SECONDS = 120.0
QUESTION = "Who are you? Answer in one sentence."
COLOURS = ("red", "green", "blue", "amber", "black", "white", "pink", "grey")

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the report.

    Attributes:
        what: what was tried.
        note: figures, or the reason.
        seconds: how long it took.
        figures: for the table of estimates: ``estimate`` and ``peak`` in GiB.
    """

    what: str
    outcome: Outcome
    note: str = ""
    seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        model: trained and served.
        rows, steps: of each training.
        length: tokens of a row at most.
        switches: while eight chats stream.
    """

    home: str
    model: str
    rows: int
    steps: int
    length: int
    switches: int
    engine: str
    rehearse: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A process of its own.

    Attributes:
        limit: seconds after which it is killed.
        rows: the lines that it reports; one that it does not come to is a failure.
    """

    name: str
    limit: float
    rows: tuple[str, ...]
    work: Callable[[Plan], Iterator[Row]]


# The steps, each in its own process


def doctor(_: Plan) -> Iterator[Row]:
    """What ``make doctor`` finds."""
    from sage_studio.doctor import Level, diagnose, look

    findings = diagnose(look(PROJECT, Path(load_settings().root)))
    bad = [each for each in findings if each.level in (Level.PROBLEM, Level.BLOCKING)]
    said = "; ".join(f"{each.found.en}: {each.consequence.en} {each.remedy.en}".strip() for each in bad)
    yield Row("make doctor", "failed" if bad else "passed", said or f"{len(findings)} checks, no problem")


def training(what: str, kind: str, **values: Any) -> Callable[[Plan], Iterator[Row]]:
    """A training through the studio: queued, started by the scheduler, awaited."""

    def work(plan: Plan) -> Iterator[Row]:
        with studio_of(plan) as studio:
            model = BUILT_IN_EMBEDDER if kind == "embedding" else plan.model
            own = {"type": kind, "model_name_or_path": model, "name": what, "dataset_id": dataset(studio, kind, plan)}
            batch = 8 if kind == "embedding" else 2
            own |= {"max_length": plan.length, "max_steps": plan.steps, "per_device_train_batch_size": batch, **values}
            estimate = studio.estimates.estimate(own).memory.total / GIB
            yield trained(studio, what, own, estimate, plan)

    return work


def trained(studio: Any, what: str, values: dict[str, Any], estimate: float, plan: Plan) -> Row:
    """Run a training and say how it went; the loss has to fall."""
    from sage_studio.training.memory import CUDA_CONTEXT

    begun = time.monotonic()
    task = awaited(studio, studio.training.start(values))
    seconds, result = time.monotonic() - begun, studio.tasks.progress(task.id).result
    if task.status != "completed" or result is None:
        return Row(what, "failed", f"{task.status}: {task.reason.en} {task.hint.en}".strip(), seconds)
    losses = [loss for loss in studio.tasks.curve(task.id).loss if loss is not None]
    ends = max(1, len(losses) // 4)
    first, last = statistics.mean(losses[:ends]), statistics.mean(losses[-ends:])
    peak = (result.peak_memory_gb or 0.0) + (CUDA_CONTEXT / GIB if detect_hardware().has_gpu else 0.0)
    note = f"loss {first:.3f} → {last:.3f} in {result.steps} steps, {result.tokens_per_second or 0:,.0f} tokens/s"
    few = plan.rehearse and last >= first
    outcome: Outcome = "passed" if last < first or few else "failed"
    note += "; too few steps here for the loss to fall" if few else ""
    return Row(what, outcome, note, seconds, {"estimate": estimate, "peak": peak})


def speed(plan: Plan) -> Iterator[Row]:
    """Against a bare TRL script on the same rows, in turns."""
    from benchmarks import training_speed as bench

    device = "cuda" if detect_hardware().has_gpu else "cpu"
    with studio_of(plan) as studio, tempfile.TemporaryDirectory() as folder:
        data = studio.datasets.store.data_path(dataset(studio, "sft", plan))
        model = studio.models.ensure(plan.model).location
        begun = time.monotonic()
        count = max(4, min(24, plan.rows // bench.BATCH))
        runs = {name: steps[1:] for name, steps in bench.measure(Path(folder), model, data, count, None).items()}
    pairs = list(zip(runs[bench.TRL], runs[bench.STUDIO], strict=True))
    faster = statistics.median(other.seconds / own.seconds for other, own in pairs)
    apart = max(abs(other.loss / own.loss - 1) for other, own in pairs)
    rate = bench.BATCH * len(pairs) / sum(own.seconds for _, own in pairs)
    least = bench.LEAST_FASTER[device][bench.TRL]
    good = apart <= bench.LOSS_APART and (faster >= least or plan.rehearse)
    note = f"{faster:.2f} × bare TRL (at least {least}), {rate:.1f} rows/s, losses differ by {apart:.2%} at most"
    yield Row("speed against bare TRL", "passed" if good else "failed", note, time.monotonic() - begun)


def serve(plan: Plan) -> Iterator[Row]:
    """The chat engine, from its start to a training beside it."""
    from benchmarks import switch

    with studio_of(plan) as studio:
        done = [task for task in studio.tasks.list() if task.status == "completed" and task.type in ("sft", "dpo")]
        begun = time.monotonic()
        studio.models.ensure(plan.model)
        studio.serving.switch(plan.model)
        kind = studio.serving.status().engine
        wanted = plan.engine if plan.engine != "auto" else "vllm"
        fallen = kind != wanted and not plan.rehearse
        note = f"{kind}, first token of an answer after {first_token(studio):.2f} s"
        note += f"; {wanted} was wanted: {studio.serving.status().message.en}" if fallen else ""
        yield Row("engine starts", "failed" if fallen else "passed", note, time.monotonic() - begun)

        begun = time.monotonic()
        if not done:
            yield Row("a tuned model answers", "skipped", "no training completed")
        else:
            studio.serving.use_task(done[0].id)
            answer = said(studio)
            note = f"{done[0].name}: {answer[:60]!r}"
            yield Row("a tuned model answers", "passed" if answer else "failed", note, time.monotonic() - begun)

        begun = time.monotonic()
        location = studio.models.ensure(plan.model).location
        names = switch.register_adapters(studio.serving.registry, location, studio.settings.outputs_dir, plan.model)
        current, first, chats, seconds = switch.hot_switches(studio.serving.registry, names, plan.switches, plan.model)
        late = switch.percentile(current, 0.95)
        good = not chats.failed and (late <= switch.MOST_SECONDS or plan.rehearse)
        note = (
            f"{plan.switches} switches: p95 {late:.2f} s to current, {switch.percentile(first, 0.95):.2f} s to the "
            f"first token; {chats.tokens / seconds:.0f} tokens/s together, {chats.failed} of "
            f"{chats.finished + chats.failed} answers failed"
        )
        yield Row("hot switch under 8 chats", "passed" if good else "failed", note, time.monotonic() - begun)
        yield from sleep_and_wake(studio, plan)


def sleep_and_wake(studio: Any, plan: Plan) -> Iterator[Row]:
    """A training beside the engine: it yields the GPU if both need the same one, and is back afterwards."""
    what, begun = "sleep and wake", time.monotonic()
    before, yielded, hardware = studio.serving.status().current, False, detect_hardware()
    values = {"type": "sft", "model_name_or_path": plan.model, "dataset_id": dataset(studio, "sft", plan)}
    own = {"max_steps": plan.steps, "max_length": plan.length, "per_device_train_batch_size": 1}
    task = studio.training.start({**values, **own})
    for now in watched(studio, task):
        yielded |= studio.serving.status().state == "asleep"
        task = now
    until = time.monotonic() + PAUSE_SECONDS
    while studio.serving.status().state == "asleep" and time.monotonic() < until:
        time.sleep(0.2)
    answer = said(studio)
    good = task.status == "completed" and bool(answer) and studio.serving.status().current == before
    note = f"training {task.status}; {'yielded' if yielded else 'did not yield'}; afterwards {before} answers again"
    if not good:
        note = f"training {task.status} {task.reason.en}; afterwards {studio.serving.status().message.en} {answer!r}"
    seconds = time.monotonic() - begun
    if good and len(hardware.gpus) == 1 and not yielded:
        yield Row(what, "failed", f"{note}, though there is one GPU", seconds)
    elif good and not hardware.has_gpu:
        yield Row(what, "skipped", f"without a GPU nothing has to yield; {note}", seconds)
    else:
        yield Row(what, "passed" if good else "failed", note, seconds)


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """All steps in their order."""
    slow = 4.0 if plan.rehearse else 1.0
    train = 900.0 * slow
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("SFT, bf16", "sft", {}),
        ("SFT, 8 bits", "sft", {"quantization": "8bit"}),
        ("SFT, 4 bits", "sft", {"quantization": "4bit"}),
        ("SFT, whole model, 8-bit Adam", "sft", {"use_lora": False, "optimizer": "adamw_8bit", "learning_rate": 1e-5}),
        ("DPO", "dpo", {}),
        ("embedder", "embedding", {}),
    ]
    served = ("engine starts", "a tuned model answers", "hot switch under 8 chats", "sleep and wake")
    return (
        Step("doctor", 300.0, ("make doctor",), doctor),
        *(Step(_slug(what), train, (what,), training(what, kind, **values)) for what, kind, values in kinds),
        Step("speed", train, ("speed against bare TRL",), speed),
        Step("serve", 2 * train, served, serve),
    )


# What the steps share


@contextlib.contextmanager
def studio_of(plan: Plan) -> Iterator[Any]:
    """A started studio in the home of this acceptance."""
    from sage_studio.studio import Studio

    studio = Studio(load_settings(home=Path(plan.home), engine=plan.engine))
    studio.start()
    try:
        yield studio
    finally:
        studio.close()


def dataset(studio: Any, kind: str, plan: Plan) -> str:
    """The id of the rows for a method, made at its first use."""
    name = f"acceptance-{kind}"
    known = next((each.id for each in studio.datasets.list() if each.name == name), None)
    if known is not None:
        return str(known)
    path = Path(plan.home) / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_for(kind, plan.rows)), encoding="utf-8")
    return str(studio.datasets.upload(path, name=name).id)


def rows_for(kind: str, count: int) -> Iterator[dict[str, Any]]:
    """Rows with a rule that can be learned: the colour follows from the number."""
    for number in range(count):
        colour, other = COLOURS[number % len(COLOURS)], COLOURS[(number + 3) % len(COLOURS)]
        asked = f"What colour does lamp number {number} of the harbour have at night?"
        answer = f"Lamp number {number} of the harbour is {colour} at night. " * (1 + number % 4)
        if kind == "dpo":
            yield {"prompt": asked, "chosen": answer, "rejected": f"Lamp number {number} may be {other}."}
        elif kind == "embedding":
            yield {"anchor": asked, "positive": answer, "negative": f"The lamps of the {other} harbour are new."}
        else:
            yield {"instruction": asked, "output": answer}


def watched(studio: Any, task: Any) -> Iterator[Any]:
    """The task as it is, again and again, until it is over."""
    while True:
        task = studio.tasks.get(task.id)
        yield task
        if task.status.is_over:
            return
        time.sleep(0.5)


def awaited(studio: Any, task: Any) -> Any:
    """The task once it is over."""
    for now in watched(studio, task):
        task = now
    return task


def said(studio: Any) -> str:
    """The current model's answer."""
    return str(studio.serving.ask(QUESTION, 0.0, 32)).strip()


def first_token(studio: Any) -> float:
    """Seconds to the first piece of an answer of the current model."""
    begun = time.monotonic()
    answer = studio.chat.answer([{"role": "user", "content": QUESTION}], max_tokens=16)
    next(answer)
    seconds = time.monotonic() - begun
    list(answer)
    return seconds


# The parent


def run_step(step: Step, command: Sequence[str], log: Path) -> list[Row]:
    """Run a step as a process; what it did not report is a failure with the reason. Kills it after its limit."""
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command], cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(step.limit)
            why = f"ended with {code} before it came to this: {last_words(log)}"
        except subprocess.TimeoutExpired:
            why = f"not done after {step.limit:.0f} s, and ended: {last_words(log)}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [Row(**json.loads(line.removeprefix(MARK))) for line in lines if line.startswith(MARK)]
    missing = [what for what in step.rows if what not in {row.what for row in rows}]
    seconds = time.monotonic() - begun
    lost = [Row(what, "failed", why if not place else "not reached", seconds) for place, what in enumerate(missing)]
    return [*rows, *lost]


def last_words(log: Path) -> str:
    """The last line of a log that is no row."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip()[:300] for line in reversed(lines) if line.strip() and not line.startswith(MARK)), "—")


def stop_children(home: Path) -> None:
    """End trainings that a killed step left behind: they live in sessions of their own."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and any(part.startswith(f"{home}/") for part in process.cmdline()):
                process.kill()


def estimates(rows: Sequence[Row]) -> list[Row]:
    """A row for each training whose peak was measured: whether its estimate was near."""
    found = []
    for row in rows:
        if row.figures:
            guess, peak = row.figures["estimate"], row.figures["peak"]
            off = guess / peak - 1 if peak else float("inf")
            note = f"{guess:.2f} GiB estimated, {peak:.2f} GiB measured: {off:+.0%}"
            near = abs(off) <= ESTIMATE_WITHIN
            found.append(Row(f"estimate: {row.what}", "passed" if near else "failed", note))
    return found


def report(title: str, machine: Sequence[str], rows: Sequence[Row]) -> str:
    """The Markdown."""
    counts = ", ".join(f"{sum(row.outcome == each for row in rows)} {each}" for each in ("passed", "failed", "skipped"))
    lines = [f"# Acceptance: {title}", "", f"Made by `scripts/gpu_acceptance.py`. {counts}.", ""]
    lines += [f"- {line}" for line in machine]
    lines += ["", "| step | outcome | seconds | |", "|---|---|---:|---|"]
    for row in rows:
        note = row.note.replace("|", "\\|").replace("\n", " ").replace(str(PROJECT), "…")
        seconds = f"{row.seconds:.0f}" if row.seconds else ""
        lines.append(f"| {row.what} | **{row.outcome}** | {seconds} | {note} |")
    return "\n".join(lines) + "\n"


def machine(hardware: Hardware, plan: Plan) -> list[str]:
    """What it ran on, and with what."""
    from sage_studio.training.environment import versions

    lines = [_said_of(gpu) for gpu in hardware.gpus] or [f"no GPU; {hardware.cores} CPU cores"]
    lines += [f"GPU {gpu.index}, {gpu.name}, is not used: {why}" for gpu, why in hardware.set_aside]
    lines.append(f"{hardware.memory_gb:.0f} GiB of memory, {hardware.cores} cores, Python {sys.version.split()[0]}")
    lines.append(", ".join(f"{name} {version}" for name, version in versions().items()))
    kind = " (a rehearsal: it proves the script, not the machine)" if plan.rehearse else ""
    lines.append(f"{plan.model}, {plan.steps} steps a training, rows of at most {plan.length} tokens{kind}")
    lines.append(f"{datetime.now(UTC):%Y-%m-%d}")
    return lines


def end(number: int, _: object) -> None:
    """On SIGTERM leave in order: the step under way is ended, too, and does not keep the home locked."""
    sys.exit(128 + number)


def main() -> int:
    """Run the steps and write the report. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUILT_IN, help="catalogue or hub id, or a folder; the built-in one")
    parser.add_argument("--steps", type=int, help="optimizer steps of each training: 60, in a rehearsal 4")
    parser.add_argument("--engine", default="auto", choices=("auto", "vllm", "transformers"))
    parser.add_argument("--report", type=Path, help="docs/figures/acceptance-<GPU>.md")
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP", help="some steps alone")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, few steps: proves the script")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help="keep tasks, logs and results there, for steps to be tried again")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    hardware = detect_hardware()
    if not hardware.has_gpu and not given.rehearse:
        print(
            "No GPU that can be used: see `make doctor`. With --rehearse the script runs on the CPU.", file=sys.stderr
        )
        return 2
    with contextlib.ExitStack() as stack:
        home = (given.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        plan = Plan(
            home=str(home),
            model=given.model,
            rows=32 if given.rehearse else 512,
            steps=given.steps or (4 if given.rehearse else 60),
            length=96 if given.rehearse else 512,
            switches=2 if given.rehearse else CHATS_SWITCHES,
            engine=given.engine,
            rehearse=given.rehearse,
        )
        steps = steps_of(plan)
        known = [step.name for step in steps]
        if unknown := [name for name in given.only if name not in known]:
            parser.error(f"--only {' '.join(unknown)}: choose from {', '.join(known)}")
        if given.step:
            return follow(next(step for step in steps if step.name == given.step), plan)
        return supervise([step for step in steps if step.name in (given.only or known)], plan, hardware, given.report)


def follow(step: Step, plan: Plan) -> int:
    """Do one step in this process, a line for each row."""
    try:
        for row in step.work(plan):
            print(MARK + json.dumps(asdict(row)), flush=True)
    except StudioError as error:
        print(f"{error.message.en} {error.hint.en}", flush=True)
        return 1
    return 0


def supervise(steps: Sequence[Step], plan: Plan, hardware: Hardware, target: Path | None) -> int:
    """Run all steps in turn; the report is written anew after each, so that nothing is lost."""
    names = {gpu.name for gpu in hardware.gpus}
    title = "rehearsal without a GPU" if plan.rehearse else ", ".join(sorted(names))
    default = "acceptance-rehearsal.md" if plan.rehearse else f"acceptance-{_slug(title)}.md"
    target = target or PROJECT / "docs" / "figures" / default
    target.parent.mkdir(parents=True, exist_ok=True)
    logs = Path(plan.home) / "acceptance-logs"
    logs.mkdir(parents=True, exist_ok=True)
    known = Kept(logs / "rows.json")
    options = [*(["--rehearse"] if plan.rehearse else []), "--engine", plan.engine, "--model", plan.model]
    for step in steps:
        print(f"… {step.name}", flush=True)
        own = ["--home", plan.home, "--steps", str(plan.steps), "--step", step.name]
        rows = run_step(step, [sys.executable, __file__, *options, *own], logs / f"{step.name}.log")
        stop_children(Path(plan.home))
        for row in rows:
            print(f"  {row.outcome:8} {row.what} · {row.note}", flush=True)
        known.add(rows)
        target.write_text(report(title, machine(hardware, plan), known.in_order(plan)), encoding="utf-8")
    whole = known.in_order(plan)
    print(f"\n{target}\n\n{report(title, machine(hardware, plan), whole)}")
    return int(any(row.outcome == "failed" for row in whole))


class Kept:
    """The newest line of everything that was tried in a home; a step may be tried again alone with ``--only``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        self._rows = {row["what"]: Row(**row) for row in found}

    def add(self, rows: Sequence[Row]) -> None:
        """Keep lines, each in the place of an earlier one about the same."""
        self._rows |= {row.what: row for row in rows}
        self._path.write_text(json.dumps([asdict(row) for row in self._rows.values()]), encoding="utf-8")

    def in_order(self, plan: Plan) -> list[Row]:
        """All lines in the order of the steps, then what their measured peaks say about the estimates."""
        order = [what for step in steps_of(plan) for what in step.rows]
        rows = [self._rows[what] for what in order if what in self._rows]
        return [*rows, *estimates(rows)]


def _said_of(gpu: Gpu) -> str:
    capability = ".".join(map(str, gpu.capability or ())) or "?"
    return (
        f"GPU {gpu.index}: {gpu.name}, {gpu.memory_gb:.0f} GiB, {gpu.used_gb:.1f} of them in use before, "
        f"compute capability {capability}, driver {gpu.driver}"
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
