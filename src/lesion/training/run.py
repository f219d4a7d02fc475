"""One training run from end to end: data, fine-tuning, evaluation, explanation, report, bundle."""

import logging
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from lesion.core.errors import ConfigError
from lesion.data.datamodule import DataModule
from lesion.data.leakage import Leakage, find_leakage
from lesion.data.manifest import Manifest
from lesion.evaluation.cross_validation import CrossValidation
from lesion.evaluation.evaluation import Evaluation, write_metrics
from lesion.evaluation.operating_points import parse_specificity
from lesion.evaluation.probabilities import parse_prevalence
from lesion.evaluation.report import draw_measurements, write_report
from lesion.model.backbones import default_size
from lesion.model.bundle import Bundle
from lesion.model.classifier import ImageClassifier
from lesion.training import tracking
from lesion.training.fitting import fit, fit_folder_split, fit_folds
from lesion.training.hardware import bound_threads, tune_allocator
from lesion.training.measurement import cross_validate, evaluate_model, validation_metrics
from lesion.training.packaging import write_bundle
from lesion.training.process_group import (
    follow_first_process,
    is_first_process,
    is_started_by_first_process,
)
from lesion.training.provenance import lineage
from lesion.training.reporting import (
    Explanations,
    explain_run,
    leakage_section,
    print_summary,
    source_section,
    without_file_names,
)
from lesion.training.setup_checks import check_config

logger = logging.getLogger(__name__)


def train(cfg: DictConfig) -> tuple[dict[str, float], dict[str, Any]]:
    """Run one training from its config and write all results to ``paths.output``.

    ```
    manifest.parquet   every image with its hashes, group and split
    checkpoints/       best.ckpt and last.ckpt
    csv/metrics.csv    the metrics of each epoch
    folds/             the trainings of a cross-validation
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
    tracking.quiet_other_packages()
    follow_first_process()
    tune_allocator()
    bound_threads()
    check_config(cfg)
    specificity = parse_specificity(cfg.evaluation.specificity)
    datamodule = read_data(cfg, output)
    prevalence = parse_prevalence(cfg.evaluation.prevalence, datamodule.classes)
    leakage = record_data(datamodule.manifest, output)
    if cfg.evaluation.folder_split and leakage is None:
        raise ConfigError("evaluation.folder_split=true needs data with folders of train and test images.")
    other = datamodule.resplit("folder") if cfg.evaluation.folder_split else None
    folds = datamodule.folds(cfg.evaluation.folds, cfg.evaluation.repeats)
    model, trainer = fit(cfg, datamodule)
    folder_model = fit_folder_split(cfg, other, output) if other else None
    fold_models = fit_folds(cfg, folds, output)
    objects: dict[str, Any] = {"datamodule": datamodule, "model": model, "trainer": trainer, "output": output}
    if not trainer.is_global_zero:  # only one of several processes evaluates and writes
        return {}, objects
    evaluation = evaluate_model(model, datamodule, prevalence, specificity)
    metrics = evaluation.all_metrics() | validation_metrics(model, datamodule, evaluation.calibration)
    folder = evaluate_model(folder_model, other, prevalence) if other and folder_model else None
    section = leakage_section(datamodule.manifest, leakage, folder, cfg.evaluation.folder_split_epochs)
    validation = cross_validate(fold_models, folds, prevalence)
    metrics |= validation.metrics() if validation else {}
    bundle = write_results(cfg, datamodule, model, trainer, evaluation, metrics, section, validation)
    print_summary(evaluation, model.weights, section, validation, output)
    return metrics, objects | {"evaluation": evaluation, "bundle": bundle}


def read_data(cfg: DictConfig, output: Path) -> DataModule:
    """Make the data module; ``data.size`` becomes the size that the network was made for, unless it is set."""
    if "size" in cfg.data and cfg.data.size is None:  # kept in the recipe: a retraining uses the same size
        cfg.data.size = default_size(cfg.model.backbone)
    if is_started_by_first_process():  # the same images in the same splits, and no second look at them
        cfg.data.manifest = str(output / "manifest.parquet")
    datamodule: DataModule = instantiate(cfg.data, _convert_="all")
    return datamodule


def record_data(manifest: Manifest, output: Path) -> Leakage | None:
    """Save the manifest, log the refused images, and find how far the split that came with the data leaks."""
    if is_first_process():
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
    validation: CrossValidation | None,
) -> Bundle:
    """Write a finished run's metrics, report and bundle, and log them."""
    output, facts, provenance = Path(cfg.paths.output), datamodule.manifest.facts(), lineage(cfg.seed, cfg.parent)
    explanations = explain_run(model.network, datamodule, evaluation, **cfg.explain)
    sources = source_section(datamodule.manifest, evaluation)
    measurements = draw_measurements(evaluation, facts, output / "csv" / "metrics.csv")

    def write_documents(folder: Path, explanations: Explanations, facts: dict[str, Any]) -> None:
        write_metrics(
            folder / "metrics.json",
            evaluation,
            metrics=metrics,
            data=facts,
            leakage={key: value for key, value in leakage.items() if key != "contact_sheet_png"} if leakage else None,
            cross_validation=validation.to_json() if validation else None,
            sources=sources,
            weights=asdict(model.weights),
            lineage=provenance,
        )
        write_report(
            folder / "report.html",
            evaluation,
            title=cfg.name,
            model=dict(model.facts()),
            errors=explanations.errors,
            examples=explanations.examples,
            faithfulness=explanations.faithfulness,
            placements=explanations.placements,
            facts=facts,
            leakage=leakage,
            validation=validation,
            sources=sources,
            measurements=measurements,
            config=OmegaConf.to_yaml(cfg, resolve=True),
            lineage=provenance,
        )

    write_documents(output, explanations, facts)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    with TemporaryDirectory() as temporary:
        documents = Path(temporary)  # the bundle and wandb leave this machine: they name no file of it
        unnamed, unnamed_facts = without_file_names(explanations, facts, datamodule.manifest)
        write_documents(documents, unnamed, unnamed_facts)
        bundle = write_bundle(
            output, cfg.name, model, datamodule, evaluation, metrics, facts, provenance, config, documents
        )
        tracking.log_run(trainer.loggers, metrics, evaluation, unnamed, bundle, documents / "report.html")
    return bundle
