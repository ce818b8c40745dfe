"""An adapter for each library of networks.

Each has `names()`, the networks that are listed, and `build(name, num_classes, ndim, **options)`, which raises
ValueError for a network that is not there or is of another rank.
"""

from cbam3d.models.libraries import pytorchvideo, timm, torchvision

LIBRARIES = {"torchvision": torchvision, "pytorchvideo": pytorchvideo, "timm": timm}
