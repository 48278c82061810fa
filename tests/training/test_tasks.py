"""The contract of tasks: named losses, a model that is saved clean, a teacher that nothing moves."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dehaze.affinity import affinity_loss
from dehaze.errors import TrainingError
from dehaze.metrics import psnr
from dehaze.models import AODNetConfig, LiteConfig, StudentConfig, TeacherConfig, build
from dehaze.training.tasks import (
    DehazeTask,
    DistillTask,
    PixelLoss,
    SuperResolutionTask,
    Task,
    downscale,
    pixel_loss,
)
from dehaze.weights.checkpoint import Header, load_checkpoint, save_checkpoint

STUDENT = StudentConfig(width=8, inner_blocks=1, reduction=4)
LITE = LiteConfig(widths=(8, 8, 12), blocks=(1, 1, 1), reduction=1)
TEACHER = TeacherConfig(d=6, s=3, m=1)


def batch(count: int = 2, height: int = 24, width: int = 32, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clear = torch.rand(count, 3, height, width, generator=generator)
    return {"clear": clear, "hazy": clear * 0.6 + 0.4}


def student(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return _stirred(build("student", STUDENT))


def teacher(seed: int = 1, **changes: object) -> nn.Module:
    torch.manual_seed(seed)
    return build("teacher", TeacherConfig(d=6, s=3, m=1, **changes))  # type: ignore[arg-type]


def _stirred(model: nn.Module) -> nn.Module:
    """Undo zero initialisation, behind which no gradient flows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


class TestPixelLoss:
    answer, truth = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.5, 0.5, 0.0])

    def test_known_values(self) -> None:
        assert pixel_loss(self.answer, self.truth, "mse").item() == pytest.approx(1.25 / 3)
        assert pixel_loss(self.answer, self.truth, "l1").item() == pytest.approx(1.5 / 3)
        rounded = (np.sqrt(0.25 + 1e-6) + 1e-3 + np.sqrt(1 + 1e-6)) / 3
        assert pixel_loss(self.answer, self.truth, "charbonnier").item() == pytest.approx(rounded)

    def test_root_mean_square_is_each_pictures_own(self) -> None:
        answer = torch.stack([torch.full((3, 4, 5), 0.1), torch.full((3, 4, 5), 0.3)])
        loss = pixel_loss(answer, torch.zeros(2, 3, 4, 5), "rmse")
        assert loss.item() == pytest.approx((np.sqrt(0.01 + 1e-6) + np.sqrt(0.09 + 1e-6)) / 2)

    def test_psnr_is_the_mean_of_the_pictures_own(self) -> None:
        levels = np.stack([np.full((4, 5, 3), level, np.uint8) for level in (26, 77)])
        answer = torch.from_numpy(levels).permute(0, 3, 1, 2) / 255
        loss = pixel_loss(answer, torch.zeros(2, 3, 4, 5), "psnr")
        expected = np.mean([psnr(level, np.zeros_like(level)) for level in levels])
        assert -20 / np.log(10) * loss.item() == pytest.approx(expected, abs=0.01)

    @pytest.mark.parametrize("kind", ["rmse", "psnr"])
    def test_losses_of_pictures_have_a_gradient_where_nothing_is_wrong(self, kind: PixelLoss) -> None:
        answer = torch.zeros(2, 3, 4, 5, requires_grad=True)
        pixel_loss(answer, torch.zeros(2, 3, 4, 5), kind).backward()
        assert answer.grad is not None
        assert torch.isfinite(answer.grad).all()

    def test_half_precision_answers_are_compared_in_full(self) -> None:
        answer = torch.full((1000,), 0.5, dtype=torch.bfloat16)
        loss = pixel_loss(answer, torch.full((1000,), 0.5001), "mse")
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(1e-8, rel=1e-2)


class TestDownscale:
    def test_a_ramp_stays_a_ramp(self) -> None:
        ramp = torch.linspace(0.1, 0.9, 64).expand(1, 3, 16, 64)
        expected = ramp.reshape(1, 3, 8, 2, 32, 2).mean(dim=(3, 5))
        torch.testing.assert_close(downscale(ramp, 2)[..., 4:-4], expected[..., 4:-4], rtol=0, atol=1e-5)

    def test_detail_too_fine_to_keep_is_averaged_away(self) -> None:
        stripes = (torch.arange(64) % 2).float().expand(1, 3, 16, 64)
        inside = downscale(stripes, 4)[..., 2:-2]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.5), rtol=0, atol=0.02)

    def test_values_stay_in_range_and_sides_round_down_to_one_at_least(self) -> None:
        edges = (torch.rand(1, 3, 33, 31) > 0.5).float()
        small = downscale(edges, 2)
        assert small.shape == (1, 3, 16, 15)
        assert small.min() >= 0
        assert small.max() <= 1
        assert downscale(torch.rand(1, 3, 1, 3), 4).shape == (1, 3, 1, 1)


class TestDehazeTask:
    def test_is_the_mean_squared_error_of_the_networks_answer(self) -> None:
        task, pictures = DehazeTask(student()), batch()
        losses = task.losses(pictures)
        expected = F.mse_loss(task.model(pictures["hazy"]), pictures["clear"])
        assert losses.keys() == {"total", "pixel"}
        assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-6)
        assert losses["pixel"].item() == losses["total"].item()

    @pytest.mark.parametrize("architecture", ["student", "lite", "aod-net"])
    def test_every_parameter_learns(self, architecture: str) -> None:
        config = {"student": STUDENT, "lite": LITE, "aod-net": AODNetConfig()}[architecture]
        torch.manual_seed(0)
        task = DehazeTask(_stirred(build(architecture, config)), loss="charbonnier")
        task(batch())["total"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


class TestSuperResolutionTask:
    @pytest.mark.parametrize("scale", [2, 4])
    def test_is_the_mean_of_one_squared_error_a_channel(self, scale: int) -> None:
        task, pictures = SuperResolutionTask(teacher(scale=scale)), batch()
        losses = task(pictures)
        clear = pictures["clear"]
        small = F.interpolate(clear, scale_factor=1 / scale, mode="bicubic", antialias=True).clamp(0, 1)
        answer = task.model(small)
        assert answer.shape == clear.shape
        for i, name in enumerate(("red", "green", "blue")):
            expected = ((answer[:, i] - clear[:, i]) ** 2).mean().item()
            assert losses[name].item() == pytest.approx(expected, rel=1e-5)
        assert losses["total"].item() == pytest.approx(F.mse_loss(answer, clear).item(), rel=1e-5)

    def test_a_colour_channel_teaches_its_own_branch_only(self) -> None:
        task = SuperResolutionTask(teacher())
        small, clear = task.pair(batch())
        pixel_loss(task.model(small)[:, 1], clear[:, 1]).backward()
        taught = [bool(branch.deconv.weight.grad.abs().sum() > 0) for branch in task.model.branches]  # type: ignore[union-attr]
        assert taught == [False, True, False]

    @pytest.mark.parametrize("scale", [2, 4])
    def test_odd_sizes_are_cut_to_a_multiple(self, scale: int) -> None:
        pictures = batch(height=23, width=27)
        task = SuperResolutionTask(teacher(scale=scale))
        small, clear = task.pair(pictures)
        assert small.shape[2] * scale == clear.shape[2] == 23 - 23 % scale
        assert small.shape[3] * scale == clear.shape[3] == 27 - 27 % scale
        assert torch.equal(clear, pictures["clear"][..., : clear.shape[2], : clear.shape[3]])
        assert task(pictures)["total"].isfinite()

    def test_too_small_pictures_are_refused(self) -> None:
        with pytest.raises(TrainingError, match="3 x 8 pictures are too small to learn 4x"):
            SuperResolutionTask(teacher(scale=4)).losses(batch(height=8, width=3))

    @pytest.mark.parametrize(
        "changes",
        [{"multi_channel": False}, {"separable": False}, {"activation": "relu"}, {"batch_norm": True}],
    )
    def test_every_variant_learns(self, changes: dict[str, object]) -> None:
        task = SuperResolutionTask(teacher(**changes))
        task(batch())["total"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


class TestDistillTask:
    def test_is_equation_15(self) -> None:
        task, pictures = DistillTask(student(), teacher(), w_fa=0.5), batch()
        losses = task(pictures)
        answer, maps = task.model.forward_features(pictures["hazy"])  # type: ignore[operator]
        _, guides = task.teacher.forward_features(pictures["clear"])  # type: ignore[operator]
        affinity = sum(affinity_loss(own, guide) for own, guide in zip(maps, guides, strict=True))
        pixel = F.mse_loss(answer, pictures["clear"])
        assert losses.keys() == {"total", "pixel", "affinity"}
        assert losses["pixel"].item() == pytest.approx(pixel.item(), rel=1e-6)
        assert losses["affinity"].item() == pytest.approx(affinity.item(), rel=1e-4)  # type: ignore[union-attr]
        assert losses["total"].item() == pytest.approx((pixel + 0.5 * affinity).item(), rel=1e-5)

    def test_low_resolution_guidance_shows_the_teacher_half_the_picture(self) -> None:
        seen: list[Tensor] = []
        task, pictures = DistillTask(student(), teacher(), guidance="lr"), batch()
        task.teacher.branches[0].extract.register_forward_pre_hook(lambda _, x: seen.append(x[0]))  # type: ignore[union-attr, index]
        task(pictures)
        assert torch.equal(seen[0], downscale(pictures["clear"], 2)[:, :1])

    def test_the_teacher_looks_at_the_clear_picture_and_the_student_at_the_hazy_one(self) -> None:
        task, pictures = DistillTask(student(), teacher()), batch()
        before = task(pictures)
        other_haze = task({**pictures, "hazy": pictures["hazy"] * 0.5})
        other_truth = task({**pictures, "clear": pictures["clear"].flip(3)})
        assert other_haze["affinity"] != before["affinity"]
        assert other_truth["affinity"] != before["affinity"]

    @pytest.mark.parametrize("architecture", ["student", "lite"])
    @pytest.mark.parametrize("measure", ["l2", "l1", "kl"])
    @pytest.mark.parametrize("guidance", ["hr", "lr"])
    def test_every_combination_teaches_every_parameter(
        self, architecture: str, measure: str, guidance: str
    ) -> None:
        torch.manual_seed(0)
        model = _stirred(build(architecture, STUDENT if architecture == "student" else LITE))
        task = DistillTask(model, teacher(), measure=measure, guidance=guidance, projections=True)  # type: ignore[arg-type]
        task(batch(height=25, width=38))["total"].backward()
        for name, parameter in task.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name

    def test_learning_brings_the_affinities_together(self) -> None:
        task, pictures = DistillTask(student(), teacher(), w_fa=1.0), batch()
        optimiser = torch.optim.Adam(task.parameters(), lr=1e-2)
        history = []
        for _ in range(25):
            losses = task(pictures)
            optimiser.zero_grad()
            losses["total"].backward()
            optimiser.step()
            history.append(losses["affinity"].item())
        assert history[-1] < 0.6 * history[0]

    def test_needs_as_many_maps_on_both_sides(self) -> None:
        model = build("student", StudentConfig(width=8, outer_blocks=2, inner_blocks=1))
        with pytest.raises(TrainingError, match="student has 2 feature maps and the teacher 3"):
            DistillTask(model, teacher())


class TestProjections:
    def test_start_by_keeping_the_affinity_where_channels_grow(self) -> None:
        wide = build("teacher", TeacherConfig(d=6, s=4, m=1))
        plain = DistillTask(student(), wide)(batch())["affinity"]
        projected = DistillTask(student(), wide, projections=True)(batch())["affinity"]
        assert projected.item() == pytest.approx(plain.item(), rel=1e-3)

    def test_after_pooling_are_projections_before_it(self) -> None:
        task, pictures = DistillTask(student(), teacher(), projections=True), batch()
        assert isinstance(task.extras, nn.ModuleList)
        _, maps = task.model.forward_features(pictures["hazy"])  # type: ignore[operator]
        _, guides = task.teacher.forward_features(pictures["clear"])  # type: ignore[operator]
        expected = sum(
            affinity_loss(project(own), guide)
            for project, own, guide in zip(task.extras, maps, guides, strict=True)
        )
        assert task(pictures)["affinity"].item() == pytest.approx(expected.item(), rel=1e-4)  # type: ignore[union-attr]

    def test_are_trained_but_not_part_of_the_model(self) -> None:
        task = DistillTask(student(), teacher(), projections=True)
        assert task.extras is not None
        own = {id(p) for p in task.model.parameters()}
        extra = {id(p) for p in task.extras.parameters()}
        assert extra
        assert not own & extra
        assert {id(p) for p in task.parameters()} == own | extra

    def test_are_absent_by_default(self) -> None:
        assert DistillTask(student(), teacher()).extras is None


class TestTheTeacher:
    def test_stays_in_evaluation_whatever_mode_the_task_is_in(self) -> None:
        task = DistillTask(student(), teacher(batch_norm=True).train())
        before = copy.deepcopy(task.teacher.state_dict())
        for mode in (True, False, True):
            assert task.train(mode).training is mode
            assert not any(m.training for m in task.teacher.modules())
        task(batch())["total"].backward()
        for name, tensor in task.teacher.state_dict().items():
            assert torch.equal(tensor, before[name]), name

    def test_is_neither_trained_nor_saved(self) -> None:
        task = DistillTask(student(), teacher(), projections=True)
        frozen = {id(p) for p in task.teacher.parameters()}
        assert not frozen & {id(p) for p in task.parameters()}
        assert not frozen & {id(p) for p in task.buffers()}
        assert not any(p.requires_grad for p in task.teacher.parameters())
        assert {name.split(".")[0] for name in task.state_dict()} == {"model", "extras"}
        task(batch())["total"].backward()
        assert all(p.grad is None for p in task.teacher.parameters())

    def test_needs_no_memory_for_a_backward_pass(self) -> None:
        task = DistillTask(student(), teacher())
        outputs: list[Tensor] = []
        for branch in task.teacher.branches:  # type: ignore[union-attr]
            branch.expand.register_forward_hook(lambda *args: outputs.append(args[2]))  # type: ignore[union-attr]
        task(batch())
        assert len(outputs) == 3
        assert not any(output.requires_grad for output in outputs)

    def test_moves_and_converts_with_the_task(self) -> None:
        task = DistillTask(student(), teacher()).double()
        assert {p.dtype for p in task.teacher.parameters()} == {torch.float64}
        task = task.to(memory_format=torch.channels_last)
        weight = task.teacher.branches[0].deconv.weight  # type: ignore[union-attr, index]
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert {p.device.type for p in task.to("meta").teacher.parameters()} == {"meta"}

    def test_learns_nothing_from_a_step(self) -> None:
        task = DistillTask(student(), teacher())
        before = copy.deepcopy(task.teacher.state_dict())
        optimiser = torch.optim.AdamW(task.parameters(), lr=0.1, weight_decay=0.1)
        task(batch())["total"].backward()
        optimiser.step()
        assert all(torch.equal(before[k], v) for k, v in task.teacher.state_dict().items())


def _tasks() -> list[Task]:
    return [
        DehazeTask(student()),
        DistillTask(student(), teacher(), projections=True),
        SuperResolutionTask(teacher()),
    ]


@pytest.mark.parametrize("index", range(3))
class TestEveryTask:
    def test_total_has_the_gradient_and_the_parts_do_not(self, index: int) -> None:
        losses = _tasks()[index](batch())
        assert losses["total"].requires_grad
        assert all(loss.shape == () for loss in losses.values())
        assert not any(loss.requires_grad for name, loss in losses.items() if name != "total")

    def test_answers_what_pair_asks_for(self, index: int) -> None:
        task = _tasks()[index]
        given, wanted = task.pair(batch())
        assert task.model(given).shape == wanted.shape

    def test_the_model_alone_makes_a_checkpoint(self, index: int, tmp_path: Path) -> None:
        task = _tasks()[index]
        architecture = "teacher" if index == 2 else "student"
        config = TEACHER if index == 2 else STUDENT
        path = tmp_path / "model.safetensors"
        header = Header(name="x", architecture=architecture, config=vars(config))
        save_checkpoint(path, task.model.state_dict(), header)
        loaded, _ = load_checkpoint(path)
        given, _ = task.pair(batch())
        assert torch.equal(loaded(given), task.model.eval()(given))

    def test_gradients_are_the_batchs_mean(self, index: int) -> None:
        """What lets processes share a batch: the mean of the halves' gradients is the whole's."""
        task, pictures = _tasks()[index].double(), {k: v.double() for k, v in batch(4).items()}

        def gradient(part: slice) -> Tensor:
            task.zero_grad()
            task({k: v[part] for k, v in pictures.items()})["total"].backward()
            return torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])

        halves = (gradient(slice(0, 2)) + gradient(slice(2, 4))) / 2
        torch.testing.assert_close(gradient(slice(0, 4)), halves, rtol=1e-9, atol=1e-12)

    def test_half_precision_autocast_trains(self, index: int) -> None:
        task = _tasks()[index]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = task(batch())
        losses["total"].backward()
        exact = _tasks()[index](batch())
        assert losses["total"].dtype == torch.float32
        assert losses["total"].item() == pytest.approx(exact["total"].item(), rel=0.05)
