"""The final model as a folder that transformers, vLLM and others load: weights, tokenizer, chat template, generation config, model card.

Greedy answers of the exported folder are compared with those of the model that went in, token by token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from allam.artifacts import MANIFEST, write_atomic
from allam.engine.device import compute_device
from allam.engine.model import load_config, load_model, parameters_of, save_model
from allam.errors import StageFailed
from allam.section import Section
from allam.text.tokenizer import Tokenizer
from allam.train.shape import write_generation_config

PROMPTS = ("The capital of", "عاصمة", "Water is", "الماء")
NEW_TOKENS = 16
