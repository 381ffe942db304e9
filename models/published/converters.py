"""Turning published checkpoints into the tensors of our networks.

RL-Restore and the operation-wise attention network were trained on pictures whose height and width were swapped
(MATLAB's order in HDF5). Their kernels are transposed here, so that pictures need not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.published.sstable import CheckpointError
from models.published.tf_checkpoint import read_checkpoint

Arrays = dict[str, npt.NDArray[Any]]


def convert_tool(arrays: Arrays, *, name: str) -> dict[str, Tensor]:
    """Return the tensors of a SmallTool or LargeTool from the variables of `toolNN`."""
    tensors = {}
    for layer in sorted({key.split("/")[0] for key in arrays}):
        tensors[f"{layer}.weight"] = _kernel(_variable(arrays, f"{layer}/weights", name=name, dimensions=4))
        tensors[f"{layer}.bias"] = _tensor(_variable(arrays, f"{layer}/biases", name=name, dimensions=1))
    return tensors


def convert_agent(arrays: Arrays, *, name: str) -> dict[str, Tensor]:
    """Return the tensors of an Agent from the variables of the released `model` checkpoint."""
    tensors = {}
    for layer in ("l1", "l2", "l3", "l4"):
        tensors[f"{layer}.weight"] = _kernel(_variable(arrays, f"prediction/{layer}/w", name=name, dimensions=4))
        tensors[f"{layer}.bias"] = _tensor(_variable(arrays, f"prediction/{layer}/biases", name=name, dimensions=1))
    matrix = _variable(arrays, "prediction/l7/Matrix", name=name, dimensions=2)
    channels = tensors["l4.bias"].numel()
    side = round((matrix.shape[0] / channels) ** 0.5)
    if side * side * channels != matrix.shape[0]:
        raise CheckpointError(f"{name}: l7 takes {matrix.shape[0]} values, expected {channels} square planes")
    # Rows run over (width, height, channel): the swapped picture, channels last.
    turned = matrix.reshape(side, side, channels, -1).transpose(3, 2, 1, 0)
    tensors["l7.weight"] = _tensor(turned.reshape(turned.shape[0], -1))
    tensors["l7.bias"] = _tensor(_variable(arrays, "prediction/l7/bias", name=name, dimensions=1))
    cell = "prediction/prediction_rnn/basic_lstm_cell"
    tensors["gates.weight"] = _gates(_variable(arrays, f"{cell}/kernel", name=name, dimensions=2).T)
    bias = _gates(_variable(arrays, f"{cell}/bias", name=name, dimensions=1))
    quarter = bias.numel() // 4
    bias[quarter : 2 * quarter] += 1.0
    tensors["gates.bias"] = bias
    tensors["q.weight"] = _tensor(_variable(arrays, "prediction/q/Matrix", name=name, dimensions=2).T)
    tensors["q.bias"] = _tensor(_variable(arrays, "prediction/q/bias", name=name, dimensions=1))
    return tensors


def read_toolchain(tools: Mapping[int, Path], agent: Path) -> dict[str, Tensor]:
    """Return the tensors of a ToolchainNetwork from the checkpoint prefixes of tools 1-12 and of the agent."""
    tensors = {}
    for number, prefix in tools.items():
        converted = convert_tool(read_checkpoint(prefix), name=prefix.name)
        tensors.update({f"tools.{number - 1}.{key}": value for key, value in converted.items()})
    converted = convert_agent(read_checkpoint(agent), name=agent.name)
    tensors.update({f"agent.{key}": value for key, value in converted.items()})
    return tensors


def read_owan(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an OperationAttentionNetwork from the released `model_best.pth`, kernels turned."""
    tensors = _read_state(path)
    return {key: value.transpose(2, 3).contiguous() if value.ndim == 4 else value for key, value in tensors.items()}


def read_dncnn(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a DnCNN from a KAIR file with its batch normalization merged into the convolutions.

    Its keys are `model.0`, `model.2`, …; ours count the convolutions. Raises CheckpointError for unmerged ones.
    """
    tensors = _read_state(path)
    if any("running" in key for key in tensors):
        raise CheckpointError(f"{path.name}: has batch normalization, expected it merged; merge it with KAIR first")
    try:
        numbers = sorted({int(key.split(".")[1]) for key in tensors})
        return {
            f"convolutions.{index}.{part}": tensors[f"model.{number}.{part}"]
            for index, number in enumerate(numbers)
            for part in ("weight", "bias")
        }
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path.name}: got keys such as {next(iter(tensors), '')!r}, expected model.N.weight and model.N.bias"
        ) from error


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch file that holds tensors by name and nothing else; no code in it is run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path.name}: is not a readable PyTorch file of tensors ({error}); copy it again"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path.name}: got {type(content).__name__}, expected a plain dictionary of tensors")
    # Data-parallel training prefixes every name.
    return {str(key).removeprefix("module."): value.float() for key, value in content.items()}


def _variable(arrays: Arrays, key: str, *, name: str, dimensions: int) -> npt.NDArray[Any]:
    if key not in arrays or arrays[key].ndim != dimensions:
        found = arrays[key].shape if key in arrays else "nothing"
        raise CheckpointError(
            f"{name}: got {found} for {key}, expected {dimensions} dimension(s); it is another checkpoint"
        )
    return arrays[key]


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _kernel(array: npt.NDArray[Any]) -> Tensor:
    """(width, height, in, out), named for the swapped picture, to (out, in, height, width)."""
    return _tensor(array.transpose(3, 2, 1, 0))


def _gates(array: npt.NDArray[Any]) -> Tensor:
    """Gates along the first axis from TensorFlow's order i, j, f, o to i, f, j, o."""
    write, new, forget, out = np.split(array, 4)
    return _tensor(np.concatenate([write, forget, new, out]))
