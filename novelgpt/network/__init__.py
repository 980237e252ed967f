"""The network: a plain GPT2LMHeadModel, its config, its folder on disk, its loss and its devices.

    config.json ─config→ checked keys ─model→ GPT2LMHeadModel ─loss→ nats
    model.safetensors ─weights→ named tensors ─┘    devices: where, and in which number format
                                                    teachers: networks that another one learns from

Every name is loaded when it is first asked for, since behind all but the config stands torch, which takes seconds.
"""

import importlib
from typing import Any

# module: the names that others use of it
MODULES = {
    "config": "EMBEDDING HEAD TIED check_model_config check_model_folder count_config_parameters expected_shapes "
    "load_own_tokenizer read_folder_config read_model_config",
    "model": "build_model count_parameters describe_model gather_tensor load_model model_weights "
    "StoredModel read_model "
    "save_model write_configs describe_teachers load_teachers teacher_identity",
    "weights": "OLD_WEIGHTS WEIGHTS check_safetensors_header check_weights hash_weights read_safetensors weight_files "
    "write_safetensors",
    "loss": "hidden_and_head place_teachers score_tokens sum_loss",
    "devices": "check_versions choose_devices choose_precision compute_deterministically describe_devices "
    "find_devices has_fast_bf16 restoring_determinism",
}
PLACES = {name: module for module, names in MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a name from its module."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
