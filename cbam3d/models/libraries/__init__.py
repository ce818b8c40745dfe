"""Adapters for model libraries.

Each has `names()`, the listed networks; `rank(name)`, 2 for images and 3 for clips; and
`build(name, num_classes, **options)`, a network without weights, and `scaling(name)`, mean and standard deviation that
pretrained weights of this network want, or None. The last three raise ValueError for an unknown network.
"""

from cbam3d.models.libraries import pytorchvideo, timm, torchvision

LIBRARIES = {"torchvision": torchvision, "pytorchvideo": pytorchvideo, "timm": timm}
