"""Adapters for model libraries.

Each has `names()`, the listed networks; `rank(name)`, 2 for images and 3 for clips; `build(name, num_classes,
**options)`, a network without weights; `find_weights(name, member)`, pretrained weights by name, as `load_weights`
takes them; and `own_input(name, member)`, what is known of the input that these want. They raise ValueError for an
unknown network.
"""

from cbam3d.models.libraries import pytorchvideo, timm, torchvision, transformers

LIBRARIES = {"torchvision": torchvision, "pytorchvideo": pytorchvideo, "timm": timm, "hf": transformers}
