# SPDX-License-Identifier: Apache-2.0
"""SAM 2.1 is built from published state dicts: size found, names strict, Hydra left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from random_sam2 import SMALL, random_sam2_checkpoint

from bmp_ros.networks.sam2 import SAM2_SIZES, Sam2Network, sam2_size, select_mask

pytest.importorskip("sam2", reason="needs the sam2 package")


@pytest.fixture(scope="module")
def tiny():
    return random_sam2_checkpoint("t")["model"]


def trunk(width: int, depth: int) -> dict[str, torch.Tensor]:
    """The tensors that tell the size."""
    blocks = {
        f"image_encoder.trunk.blocks.{index}.norm1.weight": torch.zeros(width)
        for index in range(depth)
    }
    return {"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(width, 3, 7, 7), **blocks}


@pytest.mark.parametrize(
    ("name", "width", "depth"), [("t", 96, 12), ("s", 96, 16), ("b+", 112, 24), ("l", 144, 48)]
)
def test_size_is_read_from_the_shapes(name, width, depth):
    assert sam2_size(trunk(width, depth)) == name


def test_unknown_size_names_what_was_found_and_what_is_known():
    with pytest.raises(ValueError, match=r"128 channels and 12 blocks.*t 96/12.*l 144/48"):
        sam2_size(trunk(128, 12))


def test_another_networks_state_dict_is_refused():
    with pytest.raises(ValueError, match="not a state dict of SAM 2.1"):
        Sam2Network.from_state_dict({"backbone.conv.weight": torch.zeros(1)})


def test_loads_a_published_layout_exactly(tiny):
    network = Sam2Network.from_state_dict(tiny)
    loaded = network.state_dict()
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, tiny[name], rtol=0, atol=0)
    dropped = {name.split(".")[0] for name in tiny.keys() - loaded.keys()}
    assert dropped == {
        "memory_attention",
        "memory_encoder",
        "obj_ptr_proj",
        "obj_ptr_tpos_proj",
        "mask_downsample",
        "maskmem_tpos_enc",
        "no_mem_pos_enc",
        "no_obj_ptr",
        "no_obj_embed_spatial",
    }
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("s", 34.3), ("b+", 69.1), ("l", 212.7)])
def test_every_published_size_loads(name, millions):
    network = Sam2Network.from_state_dict(random_sam2_checkpoint(name)["model"])
    parameters = sum(parameter.numel() for parameter in network.image_encoder.parameters())
    assert round(parameters / 1e6, 1) == millions


def test_a_missing_name_is_named(tiny):
    short = {name: tensor for name, tensor in tiny.items() if name != "no_mem_embed"}
    with pytest.raises(ValueError, match=r"(?s)SAM 2.1 hiera t.*no_mem_embed"):
        Sam2Network.from_state_dict(short)


def test_an_unexpected_name_is_named(tiny):
    with pytest.raises(ValueError, match="pose_encoder.weight"):
        Sam2Network.from_state_dict({**tiny, "pose_encoder.weight": torch.zeros(1)})


def test_another_shape_is_named(tiny):
    with pytest.raises(ValueError, match="no_mem_embed"):
        Sam2Network.from_state_dict({**tiny, "no_mem_embed": torch.zeros(1, 1, 128)})


@pytest.mark.parametrize("image_size", [0, -32, 1000])
def test_image_size_must_fit_the_pyramid(image_size):
    with pytest.raises(ValueError, match=f"multiple of 32 pixels, got {image_size}"):
        Sam2Network(SMALL, image_size)


def test_an_empty_mask_is_stable():
    logits = torch.full((1, 4, 8, 8), -5.0)
    logits[:, 1:] = 5.0
    chosen, score = select_mask(
        logits, torch.tensor([[0.1, 0.9, 0.8, 0.7]]), dynamic_multimask=True
    )
    assert (chosen == -5).all()
    torch.testing.assert_close(score, torch.tensor([0.1]))


def test_an_unstable_mask_gives_way_to_the_best_of_the_others():
    logits = torch.full((1, 4, 8, 8), -5.0)
    logits[:, 0, :4] = 5.0
    logits[:, 0, 4] = 0.01  # 32 pixels above +0.05, 40 above -0.05
    logits[:, 2] = 3.0
    scores = torch.tensor([[0.95, 0.2, 0.6, 0.5]])
    chosen, score = select_mask(logits, scores, dynamic_multimask=True)
    assert (chosen == 3).all()
    torch.testing.assert_close(score, torch.tensor([0.6]))
    kept, score = select_mask(logits, scores, dynamic_multimask=False)
    torch.testing.assert_close(kept, logits[:, 0])
    torch.testing.assert_close(score, torch.tensor([0.95]))


def test_a_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sam2.modeling.backbones.hieradet", None)
    with pytest.raises(ModuleNotFoundError, match=r"(?s)pip install.*sam2==1\.1\.0.*sha256"):
        Sam2Network(SAM2_SIZES["t"])


BUILD_OURS = """
from bmp_ros.networks.sam2 import HieraSize, Sam2Network
Sam2Network(HieraSize(32, 1, (1, 1, 1, 1), (3,), (8, 4, 14, 7), 7), 256)
"""

AROUND_OURS = {
    "a program that uses Hydra for itself afterwards": f"""
from hydra.core.global_hydra import GlobalHydra
{BUILD_OURS}
assert not GlobalHydra.instance().is_initialized()
import hydra
with hydra.initialize(config_path=None, version_base=None):
    pass
""",
    "a program that has set up Hydra before": f"""
import hydra
from hydra.core.global_hydra import GlobalHydra
hydra.initialize(config_path=None, version_base=None)
before = GlobalHydra.instance().hydra
{BUILD_OURS}
assert GlobalHydra.instance().hydra is before
""",
    "a program that builds SAM 2 by its own configs afterwards": f"""
{BUILD_OURS}
from sam2.build_sam import build_sam2
from hydra import compose
assert compose("configs/sam2.1/sam2.1_hiera_t.yaml").model.image_size == 1024
""",
    "a program that builds SAM 2 by its own configs before": f"""
from sam2.build_sam import build_sam2
{BUILD_OURS}
from hydra import compose
assert compose("configs/sam2.1/sam2.1_hiera_t.yaml").model.image_size == 1024
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("program", AROUND_OURS)
def test_hydra_is_left_as_it_was(program):
    done = subprocess.run(
        [sys.executable, "-c", AROUND_OURS[program]], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
