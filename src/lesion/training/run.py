"""One training run from end to end: data, fine-tuning, evaluation, explanation, report, bundle."""

import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf

from lesion.core.errors import ConfigError
from lesion.core.validation import check_seed
from lesion.data.datamodule import DataModule
from lesion.data.leakage import Leakage, find_leakage
from lesion.data.manifest import Manifest
from lesion.evaluation.calibration import softmax
from lesion.evaluation.evaluation import Calibration, Evaluation, evaluate_logits, write_metrics
from lesion.evaluation.metrics import compute_metrics
from lesion.evaluation.report import write_report
from lesion.explanation.methods import check_method
from lesion.model.bundle import Bundle
from lesion.model.classifier import ImageClassifier
from lesion.model.inference import dataset_logits
from lesion.training import tracking
from lesion.training.hardware import bound_threads, tune_allocator
from lesion.training.packaging import write_bundle
from lesion.training.provenance import lineage
from lesion.training.reporting import explain_run, leakage_section, print_summary
from lesion.training.resuming import MovedRun, check_checkpoint

logger = logging.getLogger(__name__)


def train(cfg: DictConfig) -> tuple[dict[str, float], dict[str, Any]]:
    """Run one training from its config and write all results to ``paths.output``.

    ```
    manifest.parquet   every image with its hashes, group and split
    checkpoints/       best.ckpt and last.ckpt
    csv/metrics.csv    the metrics of each epoch
    metrics.json       the test metrics with their intervals
    report.html        the same for users, with the explanations
    bundle/            the deployable model
    ```

    ``cfg`` is the composed ``configs/train.yaml``. Return the metrics by key, and the objects of the run by name. If a
    setting, the data or the weights cannot be used, raise a LesionError.

    Examples:
        A bundle holds the config of its training; this trains once more, for one epoch:

        >>> from omegaconf import OmegaConf
        >>> config = OmegaConf.create(Bundle.open(bundle_path).facts["config"])
        >>> config.paths.output, config.trainer.max_epochs = "outputs/again", 1
        >>> metrics, objects = train(config)  # doctest: +SKIP
        >>> metrics["test/f1_macro"], objects["bundle"].version  # doctest: +SKIP
    """
    output = Path(cfg.paths.output)
    # Lightning uses a deprecated function of torch, once per worker.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    tune_allocator()
    bound_threads()
    check_settings(cfg)
    datamodule: DataModule = instantiate(cfg.data, _convert_="all")
    leakage = record_data(datamodule.manifest, output)
    if cfg.evaluation.folder_split and leakage is None:
        raise ConfigError("evaluation.folder_split=true needs data with folders of train and test images.")
    other = datamodule.resplit("folder") if cfg.evaluation.folder_split else None
    model, trainer = fit(cfg, datamodule)
    objects: dict[str, Any] = {"datamodule": datamodule, "model": model, "trainer": trainer, "output": output}
    if not trainer.is_global_zero:  # only one of several processes evaluates and writes
        return {}, objects
    evaluation = evaluate_model(model, datamodule, replicates=cfg.evaluation.replicates, seed=cfg.seed)
    metrics = evaluation.all_metrics() | validation_metrics(model, datamodule, evaluation.temperature)
    folder = folder_split_evaluation(cfg, other, output) if other else None
    section = leakage_section(datamodule.manifest, leakage, folder, cfg.evaluation.folder_split_epochs)
    bundle = write_results(cfg, datamodule, model, trainer, evaluation, metrics, section)
    print_summary(evaluation, model.weights, section, output)
    return metrics, objects | {"evaluation": evaluation, "bundle": bundle}


def check_settings(cfg: DictConfig) -> None:
    """Refuse settings of the seed, the evaluation or the explanations that would fail only after the training."""
    check_seed("seed", cfg.seed)
    if not isinstance(cfg.name, str) or not cfg.name:
        raise ConfigError(f"name={cfg.name!r} is not a text: put it in quotes in the config, such as name: '2024_01'.")
    least = {"evaluation.replicates": 1, "explain.road_images": 0, "explain.errors": 0, "explain.examples": 0}
    for setting, minimum in least.items():
        value = OmegaConf.select(cfg, setting)
        if not isinstance(value, int) or value < minimum:
            raise ConfigError(f"{setting}={value} must be a whole number, {minimum} or more.")
    if not OmegaConf.is_list(cfg.explain.methods) or not len(cfg.explain.methods):
        raise ConfigError(f"explain.methods={cfg.explain.methods} must be a list of at least one: [gradcam].")
    for method in cfg.explain.methods:
        check_method(str(method))


def record_data(manifest: Manifest, output: Path) -> Leakage | None:
    """Save the manifest, log the refused images, and find how far the split that came with the data leaks."""
    manifest.save(output / "manifest.parquet")
    for refused in manifest.refused:
        logger.warning("left out: %s: %s", refused["path"], refused["reason"])
    leakage = find_leakage(manifest)
    if leakage:
        logger.info(leakage.sentence())
    return leakage


def write_results(
    cfg: DictConfig,
    datamodule: DataModule,
    model: ImageClassifier,
    trainer: Trainer,
    evaluation: Evaluation,
    metrics: dict[str, float],
    leakage: dict[str, Any] | None,
) -> Bundle:
    """Write a finished run's metrics, report and bundle, and log them."""
    output, facts, provenance = Path(cfg.paths.output), datamodule.manifest.facts(), lineage(cfg.seed, cfg.parent)
    write_metrics(
        output / "metrics.json",
        evaluation,
        metrics=metrics,
        data=facts,
        leakage={key: value for key, value in leakage.items() if key != "contact_sheet_png"} if leakage else None,
        weights=asdict(model.weights),
        lineage=provenance,
    )
    explanations = explain_run(model.network, datamodule, evaluation, **cfg.explain)
    report = write_report(
        output / "report.html",
        evaluation,
        title=cfg.name,
        model=dict(model.facts()),
        errors=explanations.errors,
        examples=explanations.examples,
        faithfulness=explanations.faithfulness,
        facts=facts,
        leakage=leakage,
        history=output / "csv" / "metrics.csv",
        config=OmegaConf.to_yaml(cfg, resolve=True),
        lineage=provenance,
    )
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    bundle = write_bundle(output, cfg.name, model, datamodule, evaluation, metrics, facts, provenance, config)
    tracking.log_run(trainer.loggers, metrics, evaluation, explanations, bundle, report)
    return bundle


def fit(cfg: DictConfig, datamodule: DataModule) -> tuple[ImageClassifier, Trainer]:
    """Fine-tune a model and load the best checkpoint's weights; return it in evaluation mode, and the trainer.

    A setting, or a checkpoint to resume from, that cannot be used is a ConfigError.
    """
    seed_everything(cfg.seed, workers=True, verbose=False)
    model: ImageClassifier = instantiate(cfg.model, classes=list(datamodule.classes), _convert_="all")
    model.network.check(datamodule.preprocessing.size)
    if cfg.resume is not None:
        check_checkpoint(Path(cfg.resume), model, cfg.trainer.max_epochs)
    logger.info(model.weights.sentence())
    callbacks = [instantiate(section) for section in cfg.callbacks.values() if section]
    trainer: Trainer = instantiate(
        cfg.trainer,
        callbacks=[*callbacks, instantiate(cfg.finetune), MovedRun()],
        logger=[instantiate(section) for section in cfg.logger.values() if section],
        _convert_="all",
    )
    tracking.log_config(trainer.loggers, cfg)
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.resume, weights_only=True)
    except SystemExit as ended:
        if ended.code == 1 and trainer.interrupted:  # Lightning's reaction to Ctrl-C
            raise KeyboardInterrupt from None
        raise
    best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""  # type: ignore[attr-defined]
    if best:
        model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    return model.eval(), trainer


def evaluate_model(
    model: ImageClassifier, datamodule: DataModule, *, replicates: int = 1000, seed: int = 0
) -> Evaluation:
    """Calibrate a model on the calibration split and measure it on the test split, in float32."""
    test, calibration = datamodule.dataset("test"), datamodule.dataset("calibration")
    rows = datamodule.manifest.split("test")
    calibration_logits = dataset_logits(model.network, calibration)
    return evaluate_logits(
        dataset_logits(model.network, test),
        test.labels,
        rows["group"].to_numpy(),
        datamodule.classes,
        Calibration.fit(calibration_logits, calibration.labels, datamodule.classes),
        paths=rows["path"].tolist(),
        replicates=replicates,
        seed=seed,
    )


def validation_metrics(model: ImageClassifier, datamodule: DataModule, temperature: float) -> dict[str, float]:
    """Measure a model on the validation split, which selected the checkpoint: to rank runs, not to report."""
    dataset = datamodule.dataset("val")
    probabilities = softmax(dataset_logits(model.network, dataset), temperature)
    return compute_metrics(probabilities, dataset.labels, datamodule.classes, "val")


def folder_split_evaluation(cfg: DictConfig, other: DataModule, output: Path) -> Evaluation:
    """Train again with the same settings on the split that came with the data, to show how inflated its score is.

    ``evaluation.folder_split_epochs`` may set fewer epochs. ``other`` has the run's images under that split; ``output``
    is the run's folder, and that of this training is inside it. Return the evaluation on that split's test images.
    """
    logger.info("Training again on the split that came with the data, for comparison.")
    nested = cfg.copy()
    nested.paths.output = str(output / "folder_split")
    nested.logger = {"csv": cfg.logger.csv}
    nested.resume = None
    nested.trainer.max_epochs = cfg.evaluation.folder_split_epochs or cfg.trainer.max_epochs
    model, _ = fit(nested, other)
    return evaluate_model(model, other, replicates=cfg.evaluation.replicates, seed=cfg.seed)
