"""Scripts that validate and measure a device."""

import re


def format_file_name(device_name: str) -> str:
    """Return a device's name as a file name, such as nvidia-h200."""
    return re.sub("[^a-z0-9]+", "-", device_name.lower()).strip("-")
