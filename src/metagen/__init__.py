"""metagen: experiments in meta-learning for image generation."""

__version__ = "0.1.0"
