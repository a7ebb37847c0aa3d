# SPDX-License-Identifier: GPL-2.0-only
#
# What make is told for the flavour `coverage`: a variable per object file that is counted. A file that a kernel does
# not have is not missed.
#
#   NAME=value  # why

GCOV_PROFILE_hmm.o=y                 # snapshot and fault
GCOV_PROFILE_migrate_device.o=y      # migration to and from devices
GCOV_PROFILE_migrate.o=y             # the same before it had a file of its own
GCOV_PROFILE_mmu_notifier.o=y        # invalidation
GCOV_PROFILE_memremap.o=y            # struct pages of device memory
