"""Networks. Depends on attention/."""

from cbam3d.models.resnet import ResNet
from cbam3d.models.weights import WeightsReport, load_weights
from cbam3d.models.zoo import create_model, list_models, register_model

__all__ = ["ResNet", "WeightsReport", "create_model", "list_models", "load_weights", "register_model"]
