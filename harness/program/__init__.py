# SPDX-License-Identifier: GPL-2.0-only
"""Programs, their operations and what is observed of them: pure data, imported by every other room."""
