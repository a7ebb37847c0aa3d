# SPDX-License-Identifier: GPL-2.0-only
"""Where in the checkout the data lies that builds start from. The package is installed editable: it runs there."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
KMOD = CHECKOUT / "kmod"
VM_IMAGES = CHECKOUT / "vm-images"
