"""``agent``: let a language model edit a training script, one change after the other."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import Annotated

import typer

from studies.commands import groups
from studies.commands import options
from studies.commands.as_json import print_json
from studies.methods import CODE_AGENT
from studies.stopping import stop_by_signal


@groups.with_groups
def agent(
    script: groups.Script,
    ending: groups.Ending,
    training: groups.OneTraining,
    spending: groups.Spending,
    storage: options.Storage = options.DEFAULT_STORAGE,
    study: options.StudyName = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Of the language model's replies.")
    ] = 0,
    baselines: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Runs of the unedited script, all but one with other seeds, which tell the noise of a run.",
        ),
    ] = 3,
    min_gain: Annotated[
        float | None,
        typer.Option(
            metavar="GAIN",
            min=0,
            help="A change is kept if it improves the value by more than this. [default: two standard "
            "deviations of the baselines]",
        ),
    ] = None,
    tune: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9,
            metavar="SHARE",
            help="Share of the trials in which the constants of the best script are tuned by "
            "Centaur's critic, instead of a change by the model. It moves by up to a factor of two "
            "towards whichever gains more; 0 leaves all trials to the model.",
        ),
    ] = 0.5,
    tune_edits: Annotated[
        int,
        typer.Option(
            "--tune-edits",
            min=0,
            metavar="N",
            help="Trials in which the constants in the lines of a change that was nearly kept are "
            "tuned, before it is given up.",
        ),
    ] = 2,
    proposals: Annotated[
        int,
        typer.Option(
            min=1,
            max=20,
            metavar="K",
            help="Ask for K different changes in one request. The one that differs most from what "
            "was tried is run first, the others in the next turns, if they still fit the script.",
        ),
    ] = 1,
    edit_files: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Python files of the testbed, separated by commas, that may be edited beside the "
            "script, as they are seen from its folder: model.py,layers/attention.py. Files that "
            "prepare.py imports can't be.",
        ),
    ] = None,
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run what the model wrote without any isolation."),
    ] = False,
    agent_command: Annotated[
        str | None,
        typer.Option(
            "--agent-command",
            metavar="COMMAND",
            help="A coding agent of your own that makes each change, instead of one request to a "
            "language model: it is started in a folder with train.py and edits it there. It reads the "
            "prompt from its standard input, or from the file that takes the place of {prompt}, and "
            "runs with your rights; what it wrote is run in the sandbox.",
        ),
    ] = None,
    agent_seconds: Annotated[
        float | None,
        typer.Option(
            parser=options.parse_duration,
            metavar="DURATION",
            help="--agent-command is stopped after this time. [default: 10m]",
        ),
    ] = None,
    llm: options.Llm = None,
    model: options.ModelName = None,
    llm_option: options.LlmOption = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Processes that propose and train at the same time."
        ),
    ] = 1,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the trials as karpathy/autoresearch's results.tsv."
        ),
    ] = None,
    patches: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the accepted steps as a series of patches."),
    ] = None,
    artifacts: options.Artifacts = None,
    no_check: options.NoCheck = False,
    accept_changes: options.AcceptChanges = False,
    as_json: options.Json = False,
) -> None:
    """Let a language model edit the training script.

    Each change is run in a sandbox, kept if it improves the value by more than the noise, and
    reverted otherwise. The same command again goes on where it was stopped.
    """
    from objective.testbed.metric import Metric
    from studies.code_agent import export as exports
    from studies.code_agent.files import unedited
    from studies.code_agent.history import read_history
    from studies.code_agent.sources import Sources
    from studies.commands.console import console
    from studies.commands.work import run as work
    from studies.spec import Editing
    from studies.spec import Model
    from studies.spec import Spec
    from studies.spec import trial_seconds

    if agent_command is not None:
        groups.refuse_with(
            "--agent-command, which asks no language model",
            llm=llm,
            model=model,
            llm_option=llm_option or None,
            **vars(spending),
        )
    where = script.where(storage, artifacts)
    edited = where.load_script()
    train_seconds = training.train_seconds
    if train_seconds is not None or ending.budget is not None:
        train_seconds = trial_seconds(edited, train_seconds, ending.budget)
    spec = Spec(
        where,
        study or options.study_name("code", seed, script.testbed),
        CODE_AGENT,
        seed,
        ending.to_budget(train_seconds),
        training.limits(),
        Model(llm, model, **vars(spending), options=tuple(llm_option or ())),
        Editing(
            baselines,
            min_gain,
            unsafe,
            tune,
            tune_edits if tune else 0,
            proposals,
            tuple(name.strip() for name in edit_files.split(",")) if edit_files else (),
            agent_command,
            agent_seconds or Editing.command_seconds,
        ),
        accept_changes=accept_changes,
        command=options.this_command(),
    ).completed(workers)
    work.say_isolation(spec)
    unedited(edited, spec.editing.files)  # which are refused before anything is trained
    if not no_check:
        work.check_script(spec, edited)
    stop_by_signal()
    try:
        done, wrong = work.run_here(spec, workers)
    except KeyboardInterrupt:
        options.stopped()
    history = read_history(done.get_trials(deepcopy=False), min_gain, Metric.of(done))
    facts = exports.agent_facts(history)
    if as_json:
        print_json(facts)
    else:
        console().print(exports.agent_table(facts))
    if export is not None:
        exports.write_results(history, export)
        print(f"wrote {export}", file=sys.stderr)
    if patches is not None:
        baseline = unedited(edited, spec.editing.files)
        sources = Sources(spec.where.open_artifacts(), baseline)
        written = exports.write_patches(history, sources, patches, edited.delivery.script)
        print(f"wrote {len(written)} patches to {patches}", file=sys.stderr)
    if wrong is not None:
        raise wrong
