"""Engines that run a bundle's network: OpenVINO on a CPU, torch on a GPU, with the same outputs."""

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError, ConfigError
from lesion.model.bundle import Bundle

if TYPE_CHECKING:
    from lesion.model.network import Network

Precision = Literal["auto", "f32", "bf16", "f16"]


@cache
def _core() -> Any:  # noqa: ANN401 (openvino is imported when it is needed)
    """Return the one OpenVINO core of this process.

    The CPU plugin of each core gives the thread that made it a stack for signals and, when it goes, puts back the one
    before. Of two cores that go in the order in which they came, the second puts back a stack that is freed already,
    and the next signal with a handler ends the process by a segmentation fault.
    """
    import openvino

    return openvino.Core()


class Outputs(NamedTuple):
    """What one forward pass gives, float32.

    Attributes:
        logits: (B, C).
        features: (B, D), the last activation averaged over positions.
        cams: (B, C, h, w), each class's weights applied to the last activation, not rectified.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    cams: NDArray[np.float32]


class Engine(Protocol):
    """Runs a network; not safe to call from two threads at once.

    Attributes:
        name: What runs it and where, such as ``openvino:cpu``.
        precision: ``f32``, ``bf16`` or ``f16``.
    """

    name: str
    precision: str

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run (B, S, S, 3) uint8 RGB images; B of 0 or more."""


class OpenVINOEngine:
    """The exported graph on a CPU.

    A batch runs image by image through a graph of fixed shape: on a CPU a larger batch gains nothing, a graph of
    dynamic shape runs a third slower, and so an image gets the same answer to the last bit in whatever company it came.

    Args:
        onnx: The exported graph.
        threads: CPU threads for one image. Several processes with one thread each give more images a second.
        precision: ``auto`` is bfloat16 where the processor computes in it, else float32.

    Raises:
        ConfigError: The processor lacks the precision.
        BundleError: The graph cannot be loaded (``bundle_file_invalid``).
    """

    def __init__(self, onnx: Path, threads: int = 1, precision: Precision = "auto") -> None:

        core = _core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "f16" or (precision == "bf16" and not has_bf16):
            raise ConfigError(f"This processor does not compute in {precision}. Use precision auto or f32.")
        self.name = "openvino:cpu"
        self.precision: str = ("bf16" if has_bf16 else "f32") if precision == "auto" else precision
        try:
            model = core.read_model(onnx)
            shape = model.input("images").partial_shape
            model.reshape({"images": [1, *(dimension.get_length() for dimension in list(shape)[1:])]})
            compiled = core.compile_model(model, "CPU", self._properties(threads))
            self._outputs = [compiled.output(name) for name in Outputs._fields]
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load the model: {error}", code="bundle_file_invalid") from error
        self._request = compiled.create_infer_request()

    def _properties(self, threads: int) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
            "ENABLE_CPU_PINNING": False,  # else every single-threaded process would be pinned to the same first core
        }

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
    """The network rebuilt from its timm name and its safetensors, in torch. Needs the extra ``train``.

    Args:
        bundle: The bundle.
        device: ``cuda``, ``cuda:1`` … or ``cpu``.
        precision: ``auto`` is float16 on a GPU, as fast as bfloat16 there and eight times finer, and float32 on a CPU.
        max_batch: Images in one forward pass; longer inputs are cut, so that memory stays bounded.

    Raises:
        ConfigError: torch or timm is not installed, or the device is not there.
        BundleError: The weights do not fit the network (``bundle_file_invalid``).
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
        self.precision: str = self._choose(precision)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[self.precision]
        network = _rebuild(bundle).to(self._device, dtype)
        self._network = network.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def _choose(self, precision: Precision) -> str:
        if precision != "auto":
            return precision
        if self._device.type != "cuda":
            return "f32"
        return "f16"

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
    """Load the engine for a device.

    Args:
        bundle: The bundle.
        device: ``cpu`` is OpenVINO; ``cuda``, ``cuda:1`` … torch on a GPU; ``torch`` is torch on the CPU, for
            comparison; ``auto`` is a GPU where there is one and torch is installed, else OpenVINO.
        threads: CPU threads for one image (OpenVINO).
        precision: See the engines.

    Raises:
        ConfigError: The device is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if device == "cpu":
        return OpenVINOEngine(bundle.onnx, threads, precision)
    if device == "torch" or device.startswith("cuda"):
        return TorchEngine(bundle, "cpu" if device == "torch" else device, precision)
    raise ConfigError(f"device={device!r} is unknown. Use auto, cpu, cuda, cuda:<number> or torch.")


def has_gpu() -> bool:
    """Whether an NVIDIA GPU and torch are here, found out without importing torch where there is no GPU."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
        return False
    if not any(Path("/dev").glob("nvidia[0-9]*")) or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    import torch

    return torch.cuda.is_available()


def _rebuild(bundle: Bundle) -> "Network":
    """Build the network of a bundle with the bundle's weights, on the CPU in float32."""
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
        raise BundleError(
            f"The bundle's weights do not fit its network: {error}", code="bundle_file_invalid"
        ) from error
    if not record.head:
        raise BundleError("The bundle's weights hold no classifier for its classes.", code="bundle_file_invalid")
    return network
