"""Where attention goes in each network, and what it costs: python benchmarks/insertion.py

Prints a table for docs/BENCHMARKS.md. For each network and position: identity insertion, blocks, parameters and
multiply-adds added, and whether logits stay bit-equal, a step of SGD moves the weights of every block, a state dict can
be saved and loaded, and torch.export takes it. Weights are random; nothing is downloaded.
"""

import argparse
import copy
import warnings

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from cbam3d import create_model, insert_attention, list_insertions
from cbam3d.runs.cost import multiply_adds

# name -> shape of an input; the sizes that the networks were made for, where they insist on them
NETWORKS = {
    "resnet18 2d": (1, 3, 224, 224),
    "resnet18": (1, 3, 16, 112, 112),
    "torchvision/resnet50": (1, 3, 224, 224),
    "torchvision/mobilenet_v3_large": (1, 3, 224, 224),
    "torchvision/efficientnet_b0": (1, 3, 224, 224),
    "torchvision/convnext_tiny": (1, 3, 224, 224),
    "timm/resnet50": (1, 3, 224, 224),
    "torchvision/r3d_18": (1, 3, 16, 112, 112),
    "torchvision/mc3_18": (1, 3, 16, 112, 112),
    "torchvision/r2plus1d_18": (1, 3, 16, 112, 112),
    "torchvision/s3d": (1, 3, 16, 224, 224),
    "torchvision/swin3d_t": (1, 3, 8, 112, 112),
    "torchvision/mvit_v2_s": (1, 3, 16, 224, 224),
    "pytorchvideo/slow_r50": (1, 3, 8, 224, 224),
    "pytorchvideo/slowfast_r50": (1, 3, 32, 224, 224),
    "pytorchvideo/x3d_s": (1, 3, 13, 160, 160),
    "pytorchvideo/r2plus1d_r50": (1, 3, 16, 224, 224),
    "pytorchvideo/csn_r101": (1, 3, 32, 224, 224),
}
POSITIONS = ("residual", "block", "stage", "last_stage")


def build(name: str, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name.removesuffix(" 2d"), 400, ndim=len(shape) - 2).eval()


def checks(name: str, x: torch.Tensor, model: nn.Module, position: str) -> str:
    """What works after the insertion, each really run."""
    passed = []
    plain = build(name, tuple(x.shape))
    with torch.no_grad():
        if torch.equal(plain(x), model(x)):
            passed.append("equal")
    trained = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01)
    batch = torch.randn(2, *x.shape[1:])
    nn.functional.cross_entropy(trained(batch), torch.tensor([0, 1])).backward()
    optimizer.step()
    blocks = zip(list_insertions(model), list_insertions(trained), strict=True)
    weights = [[parameters_to_vector(one.block.parameters()) for one in pair] for pair in blocks]
    if not any(torch.equal(before, after) for before, after in weights):
        passed.append("step")
    again = insert_attention(build(name, tuple(x.shape)), "cbam", position)
    again.load_state_dict(trained.state_dict())
    trained.eval()
    with torch.no_grad():
        if torch.equal(again(x), trained(x)):
            passed.append("reload")
        exported = torch.export.export(trained, (x,)).module()
        torch.testing.assert_close(exported(x), trained(x), rtol=1e-3, atol=1e-4)
        passed.append("export")
    return ", ".join(passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NETWORKS), help="networks; all of them")
    parser.add_argument("--count-only", action="store_true", help="leave out training and export")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| network | input | position | blocks | first … last | parameters | GMACs | works |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.names:
        x = torch.randn(NETWORKS[name])
        plain = build(name, NETWORKS[name])
        base, cost = sum(p.numel() for p in plain.parameters()), multiply_adds(plain, x) / 1e9
        size = "×".join(map(str, NETWORKS[name][2:]))
        print(f"| {name} | {size} | none | 0 | | {base / 1e6:.2f} M | {cost:.2f} | |")
        for position in POSITIONS:
            model = build(name, NETWORKS[name])
            try:
                insert_attention(model, "cbam", position)
            except ValueError as error:
                print(f"| {name} | {size} | {position} | – | {error} | | | |")
                continue
            found = list_insertions(model)
            added, extra = sum(i.num_parameters for i in found), multiply_adds(model, x) / 1e9 - cost
            works = "" if options.count_only else checks(name, x, model, position)
            where = f"{found[0].where} … {found[-1].where}"
            print(
                f"| {name} | {size} | {position} | {len(found)} | {where} | +{added:,} | +{extra:.4f} | {works} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
