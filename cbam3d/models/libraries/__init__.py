"""An adapter for each library of networks.

Each has `names()`, the networks that are listed; `rank(name)`, 2 for images and 3 for clips; and
`build(name, num_classes, **options)`, a network without weights. The last two raise ValueError for a network that is
not there.
"""

from cbam3d.models.libraries import pytorchvideo, timm, torchvision

LIBRARIES = {"torchvision": torchvision, "pytorchvideo": pytorchvideo, "timm": timm}
