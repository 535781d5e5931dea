"""The typed settings of one run, read from YAML and `key=value`; options of the pieces that settings name."""

from __future__ import annotations

from hrseg.config.layers import merge, read_with_base
from hrseg.config.options import as_type, check_options, import_piece, is_dotted_path
from hrseg.config.overrides import flattened, override
from hrseg.config.parsing import load, parse
from hrseg.config.schema import (
    AugmentConfig,
    Config,
    DataConfig,
    DistillConfig,
    EvalConfig,
    JitterConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SamplingConfig,
    TrackConfig,
    TrainConfig,
    UnlabelledConfig,
)
from hrseg.config.section import OpenSection, Section
from hrseg.config.yaml_files import read_yaml, read_yaml_as_text

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "EvalConfig",
    "JitterConfig",
    "LossConfig",
    "ModelConfig",
    "OpenSection",
    "OptimConfig",
    "RunConfig",
    "SamplingConfig",
    "Section",
    "TrackConfig",
    "TrainConfig",
    "UnlabelledConfig",
    "as_type",
    "check_options",
    "flattened",
    "import_piece",
    "is_dotted_path",
    "load",
    "merge",
    "override",
    "parse",
    "read_with_base",
    "read_yaml",
    "read_yaml_as_text",
]
