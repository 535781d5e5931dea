"""Settings become objects: the one place where `Config` meets classes.

Below it nobody takes a `Config`: `hrseg.build.training` and `hrseg.build.evaluation` turn it into the plans that
training and evaluation follow.
"""

from hrseg.build.datasets import (
    cache_dir,
    cached,
    data_sets,
    dataset,
    dataset_for_model,
    input_ranges,
    normalisation,
    taken_images,
    train_transform,
)
from hrseg.build.networks import convert_sync_bn, criterion, device, model, model_class
from hrseg.build.pieces import dotted_paths, piece

__all__ = [
    "cache_dir",
    "cached",
    "convert_sync_bn",
    "criterion",
    "data_sets",
    "dataset",
    "dataset_for_model",
    "device",
    "dotted_paths",
    "input_ranges",
    "model",
    "model_class",
    "normalisation",
    "piece",
    "taken_images",
    "train_transform",
]
