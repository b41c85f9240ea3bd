from __future__ import annotations

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest

from objective.testbed.inference import infer_space
from objective.testbed.inference import inferred
from objective.testbed.search_space import search_space
from objective.testbed.source import Constant
from objective.testbed.source import scan
from tests.objective.conftest import AUTORESEARCH_TRAIN


def test_other_constants_are_tuned_beside_some_of_the_papers() -> None:
    source = "LEARNING_RATE = 3e-4\nWEIGHT_DECAY = 0.1\nBATCH_SIZE = 32\nDROPOUT = 0.2\n"
    space, _, left_out = infer_space(scan(source))
    assert space == {
        "WEIGHT_DECAY": FloatDistribution(0.0, 0.5),
        "LEARNING_RATE": FloatDistribution(3e-4 / 100, 3e-4 * 100, log=True),
        "BATCH_SIZE": IntDistribution(8, 128),
        "DROPOUT": FloatDistribution(0.2 / 10, 0.92),
    }
    assert left_out == {}


def test_ranges_are_inferred_from_the_values() -> None:
    source = "LAYERS = 8\nLR = 0.1\nTINY = 0.001\nUSE = True\nMOMENTUM = 0.9\n"
    space, rule, _ = infer_space(scan(source))
    assert space == {
        "LAYERS": IntDistribution(2, 32),
        "LR": FloatDistribution(0.01, 1.0, log=True),
        "TINY": FloatDistribution(0.00001, 0.1, log=True),
        "USE": CategoricalDistribution([False, True]),
        "MOMENTUM": FloatDistribution(0.9 / 10, 0.99),
    }
    assert (rule.powers_of_two, rule.at_least) == ((), {})


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("LEARNING_RATE", True),
        ("lr", True),
        ("optimizer.weight-decay", True),
        ("l2_penalty", True),
        ("wd", True),
        ("lr0", True),
        ("svm.C", True),
        ("ent_coef", True),
        ("LAMBDA_GP", True),
        ("DROPOUT_RATE", False),  # a share
        ("MOMENTUM_DECAY", False),
        ("WIDTH_MULTIPLIER", False),
        ("COLOR", False),
    ],
)
def test_what_matters_by_its_order_of_magnitude_is_logarithmic(name: str, log: bool) -> None:
    distribution = inferred(name, 0.1)
    assert isinstance(distribution, FloatDistribution)
    assert distribution.low == pytest.approx(0.01)
    assert distribution.log == log


@pytest.mark.parametrize(
    ("name", "value", "high"),
    [
        ("subsample", 1.0, 1.0),
        ("colsample_bytree", 1.0, 1.0),
        ("feature_fraction", 1.0, 1.0),
        ("bagging-fraction", 1.0, 1.0),
        ("momentum", 1.0, 1.0),
        ("KEEP_PROB", 1.0, 1.0),
        ("l1_ratio", 1.0, 1.0),
        ("L1Ratio", 1.0, 1.0),
        ("BETA_1", 1.0, 1.0),
        ("MASK_RATIO", 1.0, 1.0),
        ("teacher_forcing_ratio", 1.0, 1.0),
        ("max_features", 1.0, 1.0),
        ("min_samples_leaf", 0.5, 0.95),
        ("drop_path", 0.2, 0.92),
        ("label_smoothing", 0.1, 0.91),
        ("mlp_ratio", 4.0, 40.0),
        ("label_smoothing", 1.0, 1.0),
        ("beta", 1.0, 10.0),  # of a divergence
        ("MLP_RATIO", 1.0, 10.0),
        ("NEG_RATIO", 1.0, 10.0),
        ("negative_sampling_ratio", 1.0, 10.0),
        ("ffn.expansion_ratio", 1.0, 10.0),
        ("LAPLACE_SMOOTHING", 1.0, 10.0),  # counts
        ("GRAD_CLIP", 1.0, 10.0),
    ],
)
def test_a_fraction_has_none_above_1(name: str, value: float, high: float) -> None:
    distribution = inferred(name, value)
    assert isinstance(distribution, FloatDistribution) and not distribution.log
    assert (distribution.low, distribution.high) == pytest.approx((value / 10, high))


@pytest.mark.parametrize(
    ("name", "value", "low", "high"),
    [
        ("BETA2", 0.999, 0.99, 0.9999),
        ("gamma", 0.99, 0.9, 0.999),  # a discount
        ("gae_lambda", 0.95, 0.5, 0.995),
        ("ema_decay", 0.9998, 0.998, 0.99998),
        ("momentum", 0.9, 0.09, 0.99),
        ("lr_decay", 0.97, 0.7, 0.997),
        ("gamma", 0.7, 0.07, 0.97),  # of a schedule
        ("layer_decay", 0.75, 0.075, 0.975),
        ("hflip", 0.5, 0.05, 0.95),
        ("augmentation.p", 0.5, 0.05, 0.95),
        ("gamma", 2.0, 0.2, 20.0),  # of a focal loss
        ("gamma", 1.0, 0.1, 10.0),
        ("tau", 1.0, 0.1, 1.0),
        ("EPS_START", 1.0, 0.1, 1.0),
        ("dropout", 0.0, 0.0, 0.5),
        ("label_smoothing", 0.0, 0.0, 0.5),
        ("adam_beta1", 0.0, 0.0, 0.5),
    ],
)
def test_a_fraction_keeps_its_distance_from_1_and_has_neighbours_at_zero(
    name: str, value: float, low: float, high: float
) -> None:
    distribution = inferred(name, value)
    assert isinstance(distribution, FloatDistribution) and not distribution.log
    assert (distribution.low, distribution.high) == pytest.approx((low, high))
    assert distribution._contains(value)


@pytest.mark.parametrize("name", ["LR", "learning_rate", "svm.C", "reg_alpha", "l2", "ent_coef"])
def test_a_learning_rate_or_a_penalty_near_1_is_no_fraction(name: str) -> None:
    assert inferred(name, 0.95) == FloatDistribution(0.95 / 10, 9.5, log=True)


def test_a_zero_that_is_no_fraction_has_no_scale() -> None:
    assert (
        inferred("dropout", 0) is inferred("weight_decay", 0.0) is inferred("min_lr", 0.0) is None
    )


def test_a_1_that_may_be_a_fraction_or_a_count_is_left_alone() -> None:
    counts = ("max_features", "ratio", "SMOOTHING")  # ratio: of heads, say
    names = ("subsample", "subsample_freq", *counts)
    space, _, left_out = infer_space({name: Constant(name, 1, 0) for name in names})
    assert space == dict.fromkeys(counts, IntDistribution(1, 4))
    assert left_out.keys() == {"subsample", "subsample_freq"}
    assert left_out["subsample"].endswith("a fraction is written 1.0")


@pytest.mark.parametrize(
    ("line", "widened"),
    [
        ("DEVICE_BATCH_SIZE = 8", IntDistribution(8, 256, log=True)),
        ("DEPTH = 2", IntDistribution(2, 24)),
        ("DEPTH = 30", IntDistribution(4, 30)),
        ("MATRIX_LR = 0.001", FloatDistribution(0.001, 0.2, log=True)),
        ("MATRIX_LR = 0.0", FloatDistribution(0.0, 0.2)),
        ("WARMUP_RATIO = 0", FloatDistribution(0.0, 0.3)),
        ("WINDOW_PATTERN = 'L'", CategoricalDistribution(
            ["SSSL", "SSLL", "SLSL", "LLLL", "SSSS", "LSSL", "L"])),
        ("DEPTH = 2.5", FloatDistribution(0.25, 25.0)),
    ],
)  # fmt: skip
def test_the_papers_ranges_widen_to_the_scripts_value(
    line: str, widened: BaseDistribution
) -> None:
    assert list(infer_space(scan(line))[0].values()) == [widened]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("HEAD_DIM = 96\n", {}),  # no power of two, and yet what trial 0 is to run
        ("TOTAL_BATCH_SIZE = 2**16\nDEVICE_BATCH_SIZE = 256\n", {}),  # less than 256 * 2048
        ("HEAD_DIM = 64\n", {"HEAD_DIM": 32}),
    ],
)
def test_the_rule_leaves_the_scripts_own_values(source: str, changes: dict[str, int]) -> None:
    _, baseline, rule = search_space(scan(source), constants={"MAX_SEQ_LEN": 2048})
    assert rule(baseline) == baseline
    assert {name: rule({name: 33})[name] for name in changes} == changes


def test_a_script_of_autoresearchs_family_tunes_the_papers_names_alone() -> None:
    source = AUTORESEARCH_TRAIN + "FINAL_EVAL_BATCH_SIZE = 256\nLOOKAHEAD = 0.5\n"
    space, _, left_out = infer_space(scan(source))
    assert len(space) == 14
    assert left_out.keys() == {
        "ADAM_BETAS", "H100_BF16_PEAK_FLOPS", "FINAL_EVAL_BATCH_SIZE", "LOOKAHEAD"
    }  # fmt: skip
    assert left_out["LOOKAHEAD"] == "it is not among the paper's 14, which this script has"


def test_what_is_no_hyperparameter_is_left_out_with_its_reason() -> None:
    source = """\
KIND = "text"
ZERO, = 0,
NOTHING = 0
BELOW = -1.0
BETAS = (0.9, 0.99)
TWICE = 1
TWICE += 1
if True:
    INSIDE = 3
HUGE = 2**60
LONGER = 10**40
VAST = 1e200
SLIGHT = 5e-324
SEED = 3
EVAL_BATCH_SIZE = 8
VOCAB_SIZE = 100
NUM_WORKERS = 2
LOG_INTERVAL = 10
EPOCHS = 5
MAX_STEPS = 100
TIME_BUDGET = 5.0
MAX_SEQ_LEN = 2048
WARMUP_STEPS = 10
T = 256
def f(x):
    B, T = x.shape
"""
    space, _, left_out = infer_space(scan(source))
    assert space.keys() == {"WARMUP_STEPS"}
    assert left_out == {
        "KIND": "text has no neighbours to search among",
        "ZERO": "it is bound inside another statement",
        "NOTHING": "no scale can be told from zero",
        "BELOW": "no range is inferred below zero",
        "BETAS": "it is not one number, text or truth value",
        "TWICE": "it is bound on lines 6, 7",
        "INSIDE": "it is bound inside another statement",
        "HUGE": "it is beyond 2**53",
        "LONGER": "it is beyond 2**53",
        "VAST": "it is too small or too large to search around: 1e+200",
        "SLIGHT": "it is too small or too large to search around: 4.94066e-324",
        "SEED": "it describes the machine or how the script runs",
        "EVAL_BATCH_SIZE": "it describes the data or the evaluation",
        "VOCAB_SIZE": "it describes the data or the evaluation",
        "NUM_WORKERS": "it describes the machine or how the script runs",
        "LOG_INTERVAL": "it describes logging or saving",
        "EPOCHS": "it says how long a training takes",
        "MAX_STEPS": "it says how long a training takes",
        "TIME_BUDGET": "it says how long a training takes",
        "MAX_SEQ_LEN": "it describes the data or the evaluation",
        "T": "it is bound on lines 24, 26",
    }, "a name of a function's own, such as B, is no constant"


# The words of scripts and configurations that many people have, of each what is tuned and what isn't.
@pytest.mark.parametrize(
    ("tuned", "left"),
    [
        pytest.param(
            "batch_size gradient_accumulation_steps n_layer n_head n_embd dropout bias learning_rate min_lr"
            " weight_decay beta1 beta2 grad_clip decay_lr warmup_iters lr_decay_iters",
            "eval_interval eval_iters eval_only log_interval always_save_checkpoint wandb_log block_size"
            " max_iters device compile",
            id="nanoGPT",
        ),
        pytest.param(
            "accumulate_grad_batches gradient_clip_val patience annealing_epochs data.batch_size"
            " datamodule.batch_size optimizer.init_args.lr data.augmentation.probability",
            "trainer.max_epochs trainer.max_steps min_epochs max_time limit_train_batches limit_val_batches"
            " overfit_batches fast_dev_run val_check_interval check_val_every_n_epoch"
            " num_sanity_val_steps log_every_n_steps enable_progress_bar deterministic precision devices"
            " data.num_workers data.val_split data.train_val_test_split test.batch_size",
            id="Lightning",
        ),
        pytest.param(
            "batch_size opt_eps momentum weight_decay clip_grad layer_decay lr warmup_lr decay_epochs"
            " warmup_epochs patience_epochs decay_rate color_jitter reprob mixup cutmix mixup_off_epoch"
            " smoothing drop_path model_ema_decay",
            "train_split val_split train_num_samples num_classes img_size in_chans validation_batch_size"
            " epochs cooldown_epochs seed log_interval checkpoint_hist workers tta amp",
            id="timm",
        ),
        pytest.param(
            "per_device_train_batch_size gradient_accumulation_steps learning_rate adam_beta1 adam_epsilon"
            " max_grad_norm warmup_ratio warmup_steps num_warmup_steps label_smoothing_factor lora_alpha",
            "per_device_eval_batch_size eval_steps num_train_epochs max_steps logging_steps save_steps"
            " data_seed bf16 dataloader_num_workers dataloader_drop_last gradient_checkpointing"
            " max_train_samples max_eval_samples max_seq_length max_length",
            id="Hugging Face",
        ),
        pytest.param(
            "n_estimators max_depth min_samples_split min_samples_leaf min_samples max_features"
            " min_weight_fraction_leaf max_leaf_nodes bootstrap max_iter tol C gamma n_neighbors"
            " n_iter_no_change model.min_samples_leaf",
            "test_size train_size random_state n_splits n_repeats n_folds cv n_jobs n_samples n_features"
            " validation_fraction threshold verbose",
            id="scikit-learn",
        ),
        pytest.param(
            "num_leaves min_child_samples min_child_weight min_data_in_leaf min_data_per_group"
            " min_split_gain min_gain_to_split feature_fraction bagging_fraction bagging_freq max_bin"
            " num_boost_round early_stopping_rounds lambda_l1 eta max_delta_step subsample"
            " colsample_bytree",
            "metric_freq verbosity num_threads nthread",
            id="LightGBM, XGBoost",
        ),
        pytest.param(
            "train.warmup.steps warm_up_epochs batchSize learningRate grad_clip_threshold hidden_features"
            " train.scale model.poly_degree",
            "data.n N_TRAIN N_ROWS DATA_SIZE NUM_POINTS TRAIN_FRACTION SPLIT_RATIO DECISION_THRESHOLD K_FOLD"
            " CV N_REPEATS dataset.noise eval.k evaluation.steps metrics.top_k val.n validation.every"
            " test.n data.max_features MAX_LEN dataSize optimizer.steps steps_per_epoch",
            id="tables",
        ),
        pytest.param(
            "per_device_train_batch_size device_batch_size gpu_batch_size train_micro_batch_size_per_gpu"
            " BATCH_GPU batch_per_gpu augmentation.strength data.augmentation.p lr_decay_rate",
            "AUG_SEED augmentation.seed data.augmentation.seed MIXUP_SEED WARMUP_SEED BATCH_SEED"
            " batch.num_workers augmentation.num_workers DATA_AUGMENTATION_WORKERS PROFILE_WARMUP"
            " profile.warmup BENCHMARK_WARMUP lr_decay_report log_every_batch per_device_eval_batch_size",
            id="the machine and logging before what is tuned",
        ),
        pytest.param(
            "ppo.n_steps maml.inner.num_steps diffusion.steps encoder.output_dim selector.threshold"
            " prune.threshold tree.split grad_clip.threshold lr_scheduler.total_steps inner_loop.steps"
            " LAMBDA_DATA DATA_WEIGHT metric_learning.margin METRIC_MARGIN",
            "train.steps trainer.max_iters training.time config.train.num_steps model.max_seq_len"
            " encoder.in_channels model.output_dim image.size postprocess.score_threshold split.size"
            " train.fraction svm.random_state METRIC_WEIGHT",
            id="a length of something else",
        ),
        pytest.param(
            "learner.warmup_steps net.output_scale",
            "hyperparameters.num_iterations runner.max_iters loader.n_train decoder.output_dim"
            " postprocess.threshold train_cfg.max_iters training_arguments.max_steps"
            " pl_trainer.max_steps lightning.max_steps experiment.max_steps run.max_steps"
            " settings.max_steps pretrain.num_steps finetune.max_steps sft.max_steps optim.steps"
            " learner.total_steps loader.max_rows loader.sample_size net.output_dim"
            " inference.threshold predict.threshold diffusion.trainer.max_steps",
            id="a length in any table",
        ),
        pytest.param(
            "batchSize batch_size nz ngf ndf lr wd beta1 gamma momentum l2 dropout_p hidden_dim num_heads"
            " emsize nhid nlayers clip bptt tied nhead attn_heads enc_layers dim_feedforward"
            " content_weight style_weight",
            "workers imageSize niter nEpochs testBatchSize dry_run no_accel accel no_mps no_cuda ngpu"
            " pretrained multiprocessing_distributed dummy start_epoch print_freq log_interval save_model"
            " inference render val_every threads",
            id="pytorch/examples",
        ),
        pytest.param(
            "learning_rate num_envs anneal_lr gamma gae_lambda num_minibatches update_epochs norm_adv"
            " clip_coef clip_vloss ent_coef vf_coef max_grad_norm buffer_size tau batch_size"
            " exploration_fraction learning_starts train_frequency policy_lr policy_frequency"
            " ppo_epochs K_epochs ppo.n_epochs MEMORY_SIZE replay_memory_size EPS_DECAY",
            "seed torch_deterministic cuda track capture_video upload_model save_model total_timesteps"
            " num_iterations NUM_EPISODES max_episodes TOTAL_FRAMES total_env_steps",
            id="CleanRL, DQN",
        ),
        pytest.param(
            "train_batch_size gradient_accumulation_steps lr_warmup_steps adam_beta2 adam_weight_decay"
            " snr_gamma ema_max_decay lora_rank lora.rank lora_dropout random_flip",
            "resolution num_train_timesteps num_inference_steps checkpointing_steps validation_epochs"
            " push_to_hub hub_private_repo overwrite_output_dir offload_ema foreach_ema local_rank rank"
            " enable_xformers_memory_efficient_attention with_tracking do_train do_predict",
            id="diffusers",
        ),
        pytest.param(
            "accum_iter mask_ratio blr layer_decay lr_backbone lr_drop clip_max_norm num_queries"
            " bbox_loss_coef hflip no_aug model_ema grad_accum_steps init_features negative_samples"
            " world_model.lr awp_start_epoch num_parallel_tree target_sync_interval",
            "nb_classes input_size dist_eval world_size num_labels num_class target_size train_crop_size"
            " val_resize_size imgsz plots show_labels sync_bn channels_last torchscript no_prefetcher"
            " model_ema_force_cpu no_ddp_bb apex n_fold pred_len forecast_horizon n_actions",
            id="DETR, MAE, timm's flags, YOLO, Kaggle",
        ),
        pytest.param(
            "optimizer.lr scheduler.factor scheduler.patience net.lin1_size early_stopping.patience",
            "optimizer._partial_ instantiate._recursive_ train test net.input_size net.output_size"
            " trainer.max_epochs model_checkpoint.save_top_k compile",
            id="Hydra",
        ),
    ],
)
@pytest.mark.parametrize("value", [4, 0.4, True])
def test_data_and_evaluation_are_left_alone_and_hyperparameters_are_tuned(
    tuned: str, left: str, value: float
) -> None:
    names = [*tuned.split(), *left.split()]
    space, _, left_out = infer_space({name: Constant(name, value, 0) for name in names})
    assert (list(space), list(left_out)) == (tuned.split(), left.split())


def test_a_choice_of_data_or_evaluation_is_none_of_a_hyperparameter() -> None:
    choices = ("a", "b")
    names = ("dataset", "device", "optimizer")
    space, _, left_out = infer_space({n: Constant(n, "a", 0, choices=choices) for n in names})
    assert space == {"optimizer": CategoricalDistribution(choices)}
    assert left_out["dataset"] == "it describes the data or the evaluation"


def test_a_leaf_of_one_is_not_to_be_split() -> None:
    assert inferred("min_samples_split", 2) == IntDistribution(2, 8)
    assert inferred("min_samples_leaf", 1) == IntDistribution(1, 4)


@pytest.mark.parametrize("value", [2**60, -(10**400), 16**5000], ids=["60", "400", "5000"])
def test_an_integer_of_any_length_has_a_reason(value: int) -> None:
    _, _, left_out = infer_space({"n": Constant("n", value, 0)})  # as a configuration file may
    assert left_out == {"n": "it is beyond 2**53"}
