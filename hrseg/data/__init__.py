"""Data sets, augmentation and loading. DATASETS holds what `data.dataset` may name."""

from hrseg.data.ade20k import ADE20K
from hrseg.data.camvid import CamVid
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.folder import Folder

DATASETS = {"cityscapes": Cityscapes, "ade20k": ADE20K, "camvid": CamVid, "folder": Folder}
