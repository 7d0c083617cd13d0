"""Data for spiking networks: loaders, downloads and encoders."""

__all__: list[str] = []
