from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
integrations = ["dalle2-pytorch>=1.15.6", "imagen-pytorch>=2.1"]
wrapped = ["accelerate>=1.0", "onnxruntime>=1.20", "onnxscript>=0.5", "peft>=0.17", "torchao>=0.13"]
inflated = ["denoising-diffusion-pytorch>=2.3.4", "diffusers>=0.30", "timm>=1.0.31", "torchvision"]
examples = [
    "accelerate>=1.0",
    "av>=14.2",
    "diffusers>=0.30",
    "matplotlib>=3.8",
    "numpy",
    "pillow",
    "safetensors",
    "scikit-learn",
    "tqdm",
]
checked = ["mypy>=1.19", "pytest-cov>=6", "ruff>=0.8"]

setup(
    name="make-a-video-pytorch",
    version="1.0.0",
    description="PyTorch modules that turn image diffusion models into video diffusion models",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    keywords=[
        "artificial intelligence",
        "deep learning",
        "attention",
        "diffusion models",
        "text-to-video",
        "video generation",
    ],
    packages=find_packages(include=["make_a_video_pytorch", "make_a_video_pytorch.*"]),
    package_data={"make_a_video_pytorch": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["beartype>=0.18", "einops>=0.8", "packaging>=21", "torch>=2.6"],
    extras_require={
        "examples": examples,
        "bench": ["diffusers>=0.30", "matplotlib>=3.8"],
        "docs": ["furo>=2024.8", "myst-parser>=4", "sphinx>=8"],
        "diffusers": ["accelerate>=1.0", "diffusers>=0.35"],
        "integrations": integrations,
        "shards": ["webdataset>=1.0"],
        "texts": ["transformers>=4.48"],
        "test": [
            *examples,
            *checked,
            "hypothesis>=6.100",
            "pytest>=8",
            "setuptools>=77",
            "tensorboard>=2.18",
            "transformers>=4.48",
            "webdataset>=1.0",
        ],
        "test-integrations": [*integrations, *inflated, *wrapped, "pytest>=8"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
