"""An inflated model of diffusers as one of its models, which `diffusers` exports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import FrozenDict
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from make_a_video_pytorch.inflation.foreign import named_layers, without_wrappers
from make_a_video_pytorch.inflation.inflated import InflatedModel
from make_a_video_pytorch.integrations.motion_file import Inflation, load_motion, save_motion
from make_a_video_pytorch.modules.stream import Streamable
from make_a_video_pytorch.ops.checks import typechecked
from make_a_video_pytorch.ops.past import Past

# Where files lie that are not of the machine itself: as arguments of diffusers and of the hub.
HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class InflatedDiffusersModel(ModelMixin, ConfigMixin, Streamable[object]):
    """An inflated model of diffusers that it saves, loads, shares and puts into pipelines.

    It is called as the image model is. `video_model` is what `inflate` gave and `image_model` the
    image model in it, whose adapters are loaded and saved as ever. A saved folder holds the image
    model as diffusers would save it (without its adapters), the motion in `motion.safetensors`,
    and what it was inflated with in `inflated_config.json`. So the image model loads from it by
    itself too. `config` is that of the image model and what it was inflated with.

    Args:
        video_model: what `inflate` gave for a model of diffusers.

    Raises:
        TypeError: if `video_model` is no InflatedModel, or its image model not one of diffusers.

    Example:
        >>> from diffusers import UNet2DModel
        >>> image_model = UNet2DModel(sample_size=8, block_out_channels=(8,), norm_num_groups=4,
        ...     down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
        >>> video_model = InflatedDiffusersModel(inflate(image_model, heads=2, dim_head=4))
        >>> video_model(torch.randn(1, 3, 5, 8, 8), 9).sample.shape
        torch.Size([1, 3, 5, 8, 8])
    """

    config_name = "inflated_config.json"

    @typechecked
    def __init__(self, video_model: InflatedModel[nn.Module]) -> None:
        super().__init__()
        image_model = video_model.model
        if not isinstance(image_model, ModelMixin):
            raise TypeError(
                f"`video_model` (of a {type(image_model).__name__}) must be made of a model of "
                "diffusers, which is a ModelMixin"
            )
        self.video_model = video_model
        self._supports_gradient_checkpointing = image_model._supports_gradient_checkpointing
        kind = type(image_model)
        library = "diffusers" if kind.__module__.startswith("diffusers.") else kind.__module__
        inflation = asdict(Inflation.of(video_model))
        self.register_to_config(image_model=[library, kind.__name__], inflation=inflation)
        self.training = video_model.training

    @property
    def image_model(self) -> ModelMixin:
        """The image model, with whatever is around it."""
        return self.video_model.model

    @property
    def config(self) -> FrozenDict:
        """The configuration of the image model, and what it was inflated with."""
        return FrozenDict({**self.image_model.config, **self._internal_dict})

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.video_model(*args, **kwargs)

    if TYPE_CHECKING:
        __call__ = forward

    def chunk(self, past: Past, x: Tensor, /, *args: object, **kwargs: object) -> object:
        """What it makes of a chunk `x` (b c f h w) of a video that follows the `past`."""
        with self.video_model.clip.after(past):
            return self(x, *args, **kwargs)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            # what pipelines read of a U-Net
            modules = self.__dict__.get("_modules", {})
            if name in modules or "video_model" not in modules or name.startswith("_"):
                return super().__getattr__(name)
            return getattr(modules["video_model"], name)

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs: object,
    ) -> None:
        """Save the image model as diffusers does, and the motion beside it.

        Args:
            save_directory: the folder, which is made if it is not there.
            is_main_process: whether this process writes the configurations and the motion.
            variant: what the names of the files of weights get, such as "fp16".
            push_to_hub: upload the folder.
            kwargs: further arguments of diffusers' `save_pretrained` and `push_to_hub`.
        """
        folder = Path(save_directory)
        saving = {k: kwargs.pop(k) for k in ("max_shard_size", "safe_serialization") if k in kwargs}
        with without_adapters(self.image_model):
            self.image_model.save_pretrained(
                folder, is_main_process=is_main_process, variant=variant, **saving
            )
        if is_main_process:
            self.save_config(folder)
            save_motion(self.video_model, folder / motion_name(variant))
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), variant=variant, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        subfolder: str | None = None,
        variant: str | None = None,
        **kwargs: object,
    ) -> InflatedDiffusersModel:
        """Load what `save_pretrained` saved: the image model, inflated as it was, and its motion.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of the hub.
            subfolder: a folder in it.
            variant: what the names of the files of weights have, such as "fp16".
            kwargs: further arguments of the image model's `from_pretrained`.

        Raises:
            ValueError: if the motion is of a model that was inflated in another way.
        """
        place = str(pretrained_model_name_or_path)
        hub = {name: kwargs[name] for name in HUB if name in kwargs}
        config = cls.load_config(place, subfolder=subfolder, **hub)
        library, name = config["image_model"]
        kind = getattr(import_module(library), name)
        image_model = kind.from_pretrained(place, subfolder=subfolder, variant=variant, **kwargs)
        video_model = Inflation(**config["inflation"]).inflate(image_model)
        if Path(place).is_dir():
            motion = Path(place, subfolder or "", motion_name(variant))
        else:
            motion = hf_hub_download(place, motion_name(variant), subfolder=subfolder, **hub)
        load_motion(video_model, motion)
        return cls(video_model)


def motion_name(variant: str | None) -> str:
    """What the file of the motion is called, as diffusers calls those of weights."""
    return "motion.safetensors" if variant is None else f"motion.{variant}.safetensors"


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Let the `state_dict` of `model` be that of what is inside the adapters around its layers."""
    own = {
        f"{name}.{key}".lstrip(".")
        for name, _, module in named_layers(model)
        for key in (*module._parameters, *module._buffers)
    }
    given = {without_wrappers(name): tensor for name, tensor in model.state_dict().items()}
    kept = {name: tensor for name, tensor in given.items() if name in own}
    vars(model)["state_dict"] = lambda: kept
    try:
        yield
    finally:
        del vars(model)["state_dict"]
