# SPDX-License-Identifier: GPL-2.0-only
"""Where kernels under test come from: a module per kind of spec, each a `Provider`."""
