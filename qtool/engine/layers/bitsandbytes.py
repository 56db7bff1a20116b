"""Folders that transformers wrote with bitsandbytes (NF4, LLM.int8): loaded by transformers, run by qtool's engine."""

import logging
from pathlib import Path
from typing import Any

import torch

from qtool import catalog
from qtool.engine.layers.bitsandbytes_products import compile_four_bits
from qtool.errors import ModelError
from qtool.kernels.cpu import native_cpu
from qtool.models.architecture import describe_model
from qtool.models.skeleton import empty_model


def load_bitsandbytes(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """The model of `folder` with bitsandbytes' own linear layers; those of 4 bits compiled where they can be."""
    catalog.require("bitsandbytes", needed_by=f"{folder} (quantized by bitsandbytes)", extra="bitsandbytes")
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # one warning a layer and forward pass otherwise
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {str(error).strip().splitlines()[0]}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if dtype is torch.float32 and device.type == "cpu" and not native_cpu.refusal():
        compile_four_bits(model, describe_model(empty_model(folder)).linears)
    return model.eval()
