"""Engines that run a bundle's network, with the same outputs: OpenVINO on a CPU, torch on a GPU."""

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError, ConfigError
from lesion.model.bundle import Bundle
from lesion.model.bundle_files import BundleFileError

if TYPE_CHECKING:
    from lesion.model.network import Network

Precision = Literal["auto", "f32", "bf16", "f16"]

# The largest difference of a probability from torch's in float32 that a faithful engine shows. A half-precision engine
# rounds every activation to 8 (bfloat16) or 11 (float16) bits; on networks that were often unsure, bfloat16 moved a
# probability by up to 0.052 and float32 by 2e-6.
GOLDEN_TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 0.1}


class GoldenMismatchError(BundleError):
    """An engine that does not give the golden answers of its bundle."""

    default_code = "bundle_golden_mismatch"


@cache
def _core() -> Any:  # noqa: ANN401 (openvino is imported only when needed)
    """Return the only OpenVINO core of this process.

    The CPU plugin of each core gives the thread that created it a signal stack and restores the previous one on
    deletion. If two cores are deleted in the order of their creation, the second one restores a stack that is freed
    already, and the next signal with a handler ends the process with a segmentation fault.
    """
    # With this package, which pip installs, openvino tells Google Analytics of each import; without it, it is silent.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


class Outputs(NamedTuple):
    """The outputs of one forward pass, float32."""

    logits: NDArray[np.float32]  # (B, C)
    features: NDArray[np.float32]  # (B, D), the last activation averaged over positions
    # (B, C, h, w), the class-activation map of each class: its weights applied to the last activation, not rectified.
    cams: NDArray[np.float32]


class Engine(Protocol):
    """Runs a network; not safe to call from two threads at a time."""

    name: str  # the runtime and the device, such as ``openvino:cpu``
    precision: str  # ``f32``, ``bf16`` or ``f16``

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run (B, S, S, 3) uint8 RGB images; B may be 0."""


class OpenVINOEngine:
    """The exported graph on a CPU.

    A batch runs image by image through a graph of fixed shape: on a CPU a larger batch gains nothing, and a graph of
    dynamic shape runs a third slower. So an image gets the same answer to the last bit in every batch.

    ``threads`` are CPU threads per image; several processes with one thread each give more images per second.
    ``precision=auto`` is bfloat16 if the processor supports it, else float32; one that it lacks is a ConfigError. A
    graph that cannot be loaded is a BundleFileError.
    """

    def __init__(self, onnx: Path, threads: int = 1, precision: Precision = "auto") -> None:
        core = _core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "f16" or (precision == "bf16" and not has_bf16):
            raise ConfigError(f"This processor does not compute in {precision}. Use precision auto or f32.")
        self.name = "openvino:cpu"
        self.precision: str = ("bf16" if has_bf16 else "f32") if precision == "auto" else precision
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
            "ENABLE_CPU_PINNING": False,  # or every single-threaded process would be pinned to the same first core
        }
        try:
            model = core.read_model(onnx)
            shape = model.input("images").partial_shape
            model.reshape({"images": [1, *(dimension.get_length() for dimension in list(shape)[1:])]})
            compiled = core.compile_model(model, "CPU", properties)
            self._outputs = [compiled.output(name) for name in Outputs._fields]
        except RuntimeError as error:
            raise BundleFileError(f"OpenVINO cannot load the model: {error}") from error
        self._request = compiled.create_infer_request()

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run (B, S, S, 3) uint8 RGB images."""
        shapes = [[len(images), *list(output.shape)[1:]] for output in self._outputs]
        results = Outputs(*(np.empty(shape, dtype=np.float32) for shape in shapes))
        for index in range(len(images)):
            answers = self._request.infer([np.ascontiguousarray(images[index : index + 1])], share_inputs=True)
            for result, output in zip(results, self._outputs, strict=True):
                result[index] = answers[output][0]
        return results


class TorchEngine:
    """The network in torch, rebuilt from its timm name and its safetensors. Needs the extra ``train`` or ``gpu``.

    ``device`` is ``cuda``, ``cuda:1`` … or ``cpu``. ``precision=auto`` is float16 on a GPU, as fast as bfloat16 there
    and eight times finer, and float32 on a CPU. Inputs of more than ``max_batch`` images are split, so that memory
    stays bounded. A ConfigError tells what is not installed or available, a BundleFileError that the weights do not
    fit.
    """

    def __init__(
        self, bundle: Bundle, device: str = "cuda", precision: Precision = "auto", max_batch: int = 64
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise ConfigError(
                "The torch engine needs torch and timm: install lesion[train], or use device=cpu, which needs neither."
            ) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device={device}: torch sees no GPU here. Use device=cpu.")
        self._torch = torch
        self._device = torch.device(device)
        self._max_batch = max_batch
        self.name = f"torch:{self._device}"
        default = "f16" if self._device.type == "cuda" else "f32"
        self.precision: str = default if precision == "auto" else precision
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[self.precision]
        network = _rebuild(bundle).to(self._device, dtype)
        self._network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run (B, S, S, 3) uint8 RGB images."""
        batches: list[list[NDArray[np.float32]]] = []
        with self._torch.inference_mode():
            for start in range(0, max(len(images), 1), self._max_batch):
                batch = self._torch.from_numpy(np.ascontiguousarray(images[start : start + self._max_batch]))
                outputs = self._network(batch.to(self._device, non_blocking=True))
                batches.append([output.float().cpu().numpy() for output in outputs])
        return Outputs(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def load_engine(bundle: Bundle, device: str = "auto", threads: int = 1, precision: Precision = "auto") -> Engine:
    """Load the engine for a device; an unknown or unavailable one is a ConfigError.

    ``cpu`` is OpenVINO, with ``threads`` CPU threads per image; ``cuda``, ``cuda:1`` … torch on a GPU; ``torch`` is
    torch on the CPU, for comparison; ``auto`` is a GPU if there is one and torch is installed, else OpenVINO.
    """
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if device == "cpu":
        return OpenVINOEngine(bundle.onnx, threads, precision)
    if device == "torch" or device.startswith("cuda"):
        return TorchEngine(bundle, "cpu" if device == "torch" else device, precision)
    raise ConfigError(f"device={device!r} is unknown. Use auto, cpu, cuda, cuda:<number> or torch.")


def has_gpu() -> bool:
    """Return whether an NVIDIA GPU and torch can be used; without a GPU torch is not even imported."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("timm")):
        return False
    if not any(Path("/dev").glob("nvidia[0-9]*")) or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    import torch

    return torch.cuda.is_available()


def check_golden(bundle: Bundle, engine: Engine, tolerance: float | None = None) -> float:
    """Return the largest difference of a probability between an engine's answers and the golden answers of its bundle.

    A difference above the ``tolerance``, by default what the engine's precision explains, is a GoldenMismatchError.
    """
    images, expected = bundle.golden()
    outputs = engine(images)
    answers = bundle.probabilities(outputs.logits)
    width = len(bundle.domain().features.mean)
    if outputs.features.shape != (len(images), width) or answers.shape != expected.shape:
        raise GoldenMismatchError(
            f"The model gives features of shape {outputs.features.shape} and answers of shape {answers.shape}; its "
            f"domain.npz needs {width} features per image, and its golden answers have shape {expected.shape}."
        )
    difference = float(np.abs(answers - expected).max())
    tolerance = GOLDEN_TOLERANCE[engine.precision] if tolerance is None else tolerance
    if not difference <= tolerance:  # written so that NaN is refused
        raise GoldenMismatchError(
            f"The model's answers differ from its golden answers by {difference:.3g} in a probability in "
            f"{engine.precision}; at most {tolerance:g} is accepted. Do not serve it like this; try precision f32 to "
            "see whether rounding is the cause."
        )
    return difference


def _rebuild(bundle: Bundle) -> "Network":
    """Build the network of a bundle with its weights, on the CPU in float32."""
    import timm

    from lesion.model.network import Network
    from lesion.model.weights import load_weights

    facts = bundle.facts["model"]
    try:
        backbone = timm.create_model(
            facts["backbone"], pretrained=False, num_classes=0, **facts.get("model_kwargs", {})
        )
        network = Network(backbone, len(bundle.classes), facts["mean"], facts["std"])
        record = load_weights(network, bundle.weights)
    except (ConfigError, RuntimeError, TypeError) as error:
        raise BundleFileError(f"The bundle's weights do not fit its network: {error}") from error
    if not record.head:
        raise BundleFileError("The bundle's weights hold no classifier for its classes.")
    return network
