"""Which constants of a script are tuned, in which ranges, if nobody says so.

- Names of the paper's table (Ferreira et al., 2026, arXiv:2603.24647) have its ranges, widened where
  the script's own value lies outside. A script with most of these names is taken for one of
  autoresearch's family, and tunes nothing else.
- Other numbers have ranges around their values, as in the paper's implementation: an int within a
  factor of 4, a float within a factor of 10 (100 and logarithmic if it is below 0.01), a bool either
  way. What is a fraction, as a name's words or a value of 0.9 and more say, stays below 1, with a
  distance from it within a factor of 10, too; or it ends at 1 if that is its value. A learning rate
  or a penalty is none, but logarithmic whatever its value, as in the paper's table.
- Left alone, with a reason: what has no neighbours (text, tuples, zero that is no fraction), what
  can't be set in one place, and what the words of a name say to be no hyperparameter but data,
  evaluation, hardware, logging, or the length of a training. A trial that has more data, or is
  judged by other data, is no better for that.
"""

from __future__ import annotations

from collections.abc import Mapping
import re

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from objective.testbed.rule import nearest_power_of_two
from objective.testbed.rule import Rule
from objective.testbed.source import Constant
from objective.testbed.source import Value


Space = dict[str, BaseDistribution]

PAPER_SPACE: Space = {
    "DEPTH": IntDistribution(4, 24),
    "ASPECT_RATIO": IntDistribution(32, 128),
    "HEAD_DIM": IntDistribution(64, 256, log=True),
    "DEVICE_BATCH_SIZE": IntDistribution(32, 256, log=True),
    "TOTAL_BATCH_SIZE": IntDistribution(65_536, 2_097_152, log=True),
    "EMBEDDING_LR": FloatDistribution(0.01, 2.0, log=True),
    "UNEMBEDDING_LR": FloatDistribution(0.0005, 0.05, log=True),
    "MATRIX_LR": FloatDistribution(0.005, 0.2, log=True),
    "SCALAR_LR": FloatDistribution(0.05, 2.0, log=True),
    "WEIGHT_DECAY": FloatDistribution(0.0, 0.5),
    "WARMUP_RATIO": FloatDistribution(0.0, 0.3),
    "WARMDOWN_RATIO": FloatDistribution(0.1, 0.8),
    "FINAL_LR_FRAC": FloatDistribution(0.0, 0.2),
    "WINDOW_PATTERN": CategoricalDistribution(["SSSL", "SSLL", "SLSL", "LLLL", "SSSS", "LSSL"]),
}
PAPER_RULE = Rule(
    ("HEAD_DIM", "DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"),
    {"TOTAL_BATCH_SIZE": ("DEVICE_BATCH_SIZE", "MAX_SEQ_LEN")},
)
_FAMILY = 10  # of the paper's names make a script one of autoresearch's family

# Integers beyond are no doubles any more, and databases and samplers compute in doubles.
LARGEST_INT = 2**53
_SMALLEST, _LARGEST = 1e-100, 1e100  # samplers take squares of ranges

_DATA = "it describes the data or the evaluation"
_MACHINE = "it describes the machine or how the script runs"
_LOGGING = "it describes logging or saving"
_LENGTH = "it says how long a training takes"
NO_PART_OF_TRAINING = (_MACHINE, _LOGGING)
# Parts of a hyperparameter's name in which such words mean something else.
_HARMLESS = re.compile(
    r"(?<![A-Z])((MIN_SAMPLES(_LEAF|_SPLIT)?|MIN_DATA(_(IN|PER)_[A-Z]+)?|MIN_CHILD_[A-Z]+"
    r"|(MAX|HIDDEN|INIT|BASE)_FEATURES|NEG(ATIVE)?_SAMPLES|CLIP_VAL(UE)?)\b"
    r"|(DEVICE|GPU)(?=_(.+_)?BATCH)|(?<=BATCH_)((SIZE_)?PER_)?(DEVICE|GPU)\b"
    r"|REPLAY_MEMORY|MEMORY(?=_(SIZE|CAPACITY)\b)"
    r"|METRIC(?=_(LEARNING|MARGIN)))"
)
# What stands before the last part of a name, but tables where a length or a number is a hyperparameter.
_LAST = (
    r"^(?!(.*[._])?(SCHEDULER|DIFFUSION|PPO|MAML|INNER|MCTS|SAMPLER|ROLLOUT|PRUN(E|ER|ING)"
    r"|CLIP(PING)?|SELECT(OR|ION)|TREE|ENCODER)(_[^.]+)?\.[^.]+$)(.+\.)?"
)
_SHARE = r"[._](SIZE|FRACTION|FRAC|RATIO|SHARE|PERCENT|PCT)"
# What is said of a name, "" of a hyperparameter's, by the first entry that has some of its words. The
# ends of the name are ^ and $; \b is an end of a table's name, too.
_WORDS = (
    (
        _DATA,
        "EVAL EVALUATE EVALUATION EVALUATOR VAL VALID VALIDATE VALIDATION TEST TESTING METRIC"
        r" METRICS HOLDOUT FOLD FOLDS KFOLD CV TTA INFERENCE \b(N|NUM)_(SPLITS|REPEATS|REPETITIONS)$"
        r" \b((DECISION|CLASSIFICATION|PROB|PROBABILITY|CONF|CONFIDENCE|SCORE|IOU|NMS)[._])+"
        rf"(THRESHOLD|THRESH|CUTOFF)$ {_LAST}(THRESHOLD|THRESH|CUTOFF)$",
    ),
    (
        _MACHINE,
        "SEED SEEDS RANDOM_STATE FLOPS GPU GPUS NGPU CPU CPUS TPU MPS XPU CUDA ACCEL ACCELERATOR DEVICE"
        " DEVICES VRAM MEMORY WORKER WORKERS THREADS NTHREAD PROCESSES MULTIPROCESSING DISTRIBUTED DDP"
        " FSDP (MODEL|TENSOR|PIPELINE)_PARALLEL SYNC_BN JOBS WORLD_SIZE PORT TIMEOUT COMPILE JIT"
        " TORCHSCRIPT AMP APEX FP16 BF16 TF32 AUTOTUNE FUSED FOREACH OFFLOAD CHANNELS_LAST BENCHMARK"
        " PREFETCH PREFETCHER CACHE PIN_MEM DETERMINISTIC CHECKPOINTING DRY DRYRUN DUMMY SMOKE"
        r" FAST_DEV_RUN PRETRAINED$ \b(DO_)?(TRAIN|PREDICT)$ \bPRECISION$ \b_[A-Z]+_$"
        r" \b(?<!(LORA|PEFT)\.)((LOCAL|GLOBAL|NODE|PROCESS|DDP)_)?RANK$",
    ),
    (
        _LOGGING,
        "LOGGING PRINT REPORT SAVE CHECKPOINT CHECKPOINTS CKPT VERBOSE VERBOSITY DEBUG WANDB"
        " TENSORBOARD MLFLOW PLOT PLOTS SHOW DISPLAY VISUALIZE RECORD CAPTURE UPLOAD HUB OVERWRITE"
        r" PROFILE PROFILING PROGRESS VERSION RESUME \b(RENDER|(WITH_)?TRACK(ING)?)$"
        r" \b(START|INITIAL|LAST)_(EPOCH|STEP|ITER)$"
        r" \bLOG[._](EVERY|INTERVAL|FREQ|FREQUENCY|STEPS|LEVEL)",
    ),
    (
        "",
        "BATCH WARMUP WARM_UP WARMDOWN DECAY PATIENCE ANNEAL ANNEALING AUG AUGMENT AUGMENTATION"
        " MIXUP CUTMIX LAMBDA WEIGHT$ MARGIN$ (UPDATE|PPO|POLICY|AUX|K)[._](.+[._])?EPOCHS$",
    ),
    (
        _DATA,
        "DATA DATASET DATASETS DATALOADER DATAMODULE SHARD SHARDS VOCAB VOCABULARY CLASSES SAMPLES"
        " EXAMPLES FEATURES"
        rf" {_LAST}((N|NUM|MAX|TOTAL|TRAIN|TRAINING)_)*(ROWS|POINTS|RECORDS|OBSERVATIONS|OBS)$"
        rf" {_LAST}((N|NUM)_TRAIN(ING)?|SAMPLE_SIZE|(LIMIT_TRAIN|OVERFIT)_BATCHES)$"
        rf" \bTRAIN(ING)?{_SHARE}$ {_LAST}(TRAIN(ING)?_)?SPLIT({_SHARE})?$"
        r" \b(MAX|(MAX_)?(SEQ|SEQUENCE|CONTEXT|SOURCE|TARGET))[._](LEN|LENGTH)$"
        r" \b(BLOCK|CONTEXT|IMAGE|IMG|INPUT|TARGET)[._]SIZE$ (CROP|RESIZE)_SIZE$ IMGSZ RESOLUTION$"
        r" \b(IMAGE|IMG|INPUT|OBS|ACTION)[._]DIM$ \b(PRED|PREDICTION|FORECAST)_(LEN|LENGTH|HORIZON)$"
        r" \b(N|NUM|NB)_(CLASS|LABELS|INPUTS|OUTPUTS|TARGETS|ACTIONS)$"
        rf" \bIN_(CHANS|CHANNELS)$ {_LAST}OUTPUT_(SIZE|DIM)$",
    ),
    (
        _LENGTH,
        "BUDGET SECONDS MINUTES HOURS DURATION EPOCHS"
        r" \b(STEPS|ITERS|ITERATIONS|BATCHES)_PER_EPOCH$"
        rf" {_LAST}((N|NUM|MIN|MAX|TOTAL|TRAIN|TRAINING|ENV)_)*"
        r"(STEPS|TIMESTEPS|EPISODES|ITERS|ITERATIONS|UPDATES|EPOCH|TIME)$"
        rf" {_LAST}(NITER|(N|NUM)_ITER|TOTAL_(ENV_)?FRAMES)$",
    ),
)
_KINDS = tuple(
    (reason, re.compile(rf"(?<![^\W_])({'|'.join(words.split())})(?![^\W_])"))
    for reason, words in _WORDS
)
_FRACTIONS = frozenset(
    "DROPOUT DROP MOMENTUM BETA1 BETA2 FRAC FRACTION SHARE PCT PROB PROBABILITY SMOOTHING EMA SUBSAMPLE"
    " COLSAMPLE REPROB DISCOUNT GAE TAU EPS EPSILON FLIP HFLIP VFLIP ERASE ERASING SPARSITY".split()
)
# Those of a float: an integer of such a name is a count, as scikit-learn's max_features.
_FLOAT_FRACTIONS = _FRACTIONS | {"BETA", "RATIO", "SAMPLES", "FEATURES", "P"}
# Of factors by which something shrinks step by step; below 0.5 they may be weights, of decay or a kernel.
_SHRINKING = frozenset({"DECAY", "GAMMA"})
# Words of weights (of a divergence), multiples and counts (added to each class), where the value is 1.
_NO_FRACTION_OF_1 = re.compile(
    r"(?<![A-Z])(BETA(?!_\d)|(?<!LABEL_)SMOOTHING|(MLP|EXPAN(D|SION)|WIDTH|HIDDEN|FFN?|UPSCALE|ASPECT"
    r"|NEG(ATIVE)?(_[A-Z]+)?)_RATIO)(?![A-Z\d])"
)
# Of numbers that matter by their order of magnitude.
_MAGNITUDES = frozenset("LR LR0 RATE ETA DECAY WD PENALTY REG L1 L2 LAMBDA COEF C".split())
# Those of them that are no fractions near 1 either, as a discount, a decay or a rate of survival is.
_NEVER_NEAR_1 = _MAGNITUDES - {"RATE", "LAMBDA"} | {"LEARNING"}


def infer_space(constants: Mapping[str, Constant]) -> tuple[Space, Rule, dict[str, str]]:
    """Return the distributions of the tunable constants, their rule, and why others are left out.

    The distributions contain the script's own values, and the rule, which may refer to
    ``MAX_SEQ_LEN``, leaves them as they are.
    """
    paper: Space = {}
    others: Space = {}
    left_out: dict[str, str] = {}
    is_family = len(PAPER_SPACE.keys() & constants.keys()) >= _FAMILY
    for name, constant in constants.items():
        value = constant.value
        if constant.problem or value is None:
            if constant.why_not:
                setting = "" if constant.problem else _no_hyperparameter(name)
                left_out[name] = setting or constant.why_not
        elif reason := _out_of_reach(value) or _no_hyperparameter(name):
            left_out[name] = reason
        elif constant.choices:
            others[name] = CategoricalDistribution(list(constant.choices))
        elif (usual := widened(PAPER_SPACE.get(name), value)) is not None:
            paper[name] = usual
        elif is_family:
            left_out[name] = "it is not among the paper's 14, which this script has"
        else:
            distribution = _around(name, value)
            if distribution is None:
                left_out[name] = _without_neighbours(value)
            else:
                others[name] = distribution
    ordered = {name: paper[name] for name in PAPER_SPACE if name in paper}
    powers = tuple(
        name
        for name in PAPER_RULE.powers_of_two
        if name in paper
        and isinstance(value := constants[name].value, int)
        and value == nearest_power_of_two(value)
    )
    at_least = {n: factors for n, factors in PAPER_RULE.at_least.items() if n in paper}
    return {**ordered, **others}, Rule(powers, at_least), left_out


def inferred(name: str, value: Value) -> BaseDistribution | None:
    """Return a range around a constant's value, see the module; None if it is not to be tuned."""
    if _out_of_reach(value) or _no_hyperparameter(name):
        return None
    return _around(name, value)


def _out_of_reach(value: Value) -> str:
    """Say why no range could be made around a value, whatever its name; "" if one can."""
    if isinstance(value, (bool, str)):
        return ""
    if isinstance(value, int):
        # And may be no float either.
        return "it is beyond 2**53" if abs(value) > LARGEST_INT else ""
    if value and not _SMALLEST < abs(value) < _LARGEST:
        return f"it is too small or too large to search around: {value:g}"
    return ""


def widened(distribution: BaseDistribution | None, value: Value) -> BaseDistribution | None:
    """Return the distribution with room for a value; None if that is of another kind."""
    if isinstance(distribution, CategoricalDistribution):
        if not isinstance(value, str):
            return None
        return CategoricalDistribution(list(dict.fromkeys((*distribution.choices, value))))
    if isinstance(value, (bool, str)):
        return None
    if isinstance(distribution, IntDistribution):
        if not isinstance(value, int):
            return None
        low, high = min(distribution.low, value), max(distribution.high, value)
        return IntDistribution(low, high, log=distribution.log and low > 0)
    if isinstance(distribution, FloatDistribution):
        least, most = min(distribution.low, float(value)), max(distribution.high, float(value))
        return FloatDistribution(least, most, log=distribution.log and least > 0)
    return None


def _no_hyperparameter(name: str) -> str:
    """Say why a name's words are those of a setting; "" if they aren't."""
    words = ".".join("_".join(_words(part)) for part in name.split("."))
    words = _HARMLESS.sub("", words)
    return next((reason for reason, said in _KINDS if said.search(words)), "")


def _words(name: str) -> list[str]:
    """Split a constant's name, or that of another parameter: ``model.hidden-size``, ``nLayer``."""
    return re.split(
        r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\d)(?=[A-Z][a-z])", "_", name).upper()
    )


def _around(name: str, value: Value) -> BaseDistribution | None:
    """Return a range around a value, as in the paper's implementation; None if it has none."""
    if isinstance(value, bool):
        return CategoricalDistribution([False, True])
    words = _words(name)
    if value == 0 and isinstance(value, float) and not _FLOAT_FRACTIONS.isdisjoint(words):
        return FloatDistribution(0.0, 0.5)
    if isinstance(value, str) or value <= 0:
        return None
    parts = _NO_FRACTION_OF_1.sub("", "_".join(words)).split("_") if value == 1 else words
    if isinstance(value, int):
        if value == 1 and not _FRACTIONS.isdisjoint(parts):
            return None  # XGBoost's subsample: 1, or LightGBM's subsample_freq: 1
        least = 2 if value > 1 and "SPLIT" in words else 1  # a leaf of one can't be split
        return IntDistribution(max(least, value // 4), min(value * 4, LARGEST_INT))
    factor = 100 if value < 0.01 else 10
    low, high = value / factor, value * factor
    near_1 = 0.9 if _NEVER_NEAR_1.isdisjoint(words) else 1.0
    near_1 = near_1 if _SHRINKING.isdisjoint(words) else 0.5
    is_fraction = near_1 <= value < 1 or value <= 1 and not _FLOAT_FRACTIONS.isdisjoint(parts)
    if is_fraction:
        high = min(high, 1 - (1 - value) / 10)
        if value < 1:
            low = max(low, 1 - (1 - value) * 10)
    log = value < 0.01 or not (is_fraction or _MAGNITUDES.isdisjoint(words))
    return FloatDistribution(low, high, log=log)


def _without_neighbours(value: Value) -> str:
    if isinstance(value, str):
        return "text has no neighbours to search among"
    if value == 1:
        return "1 may be all of a fraction, or a count: a fraction is written 1.0"
    return "no scale can be told from zero" if value == 0 else "no range is inferred below zero"
