# SPDX-License-Identifier: Apache-2.0
"""The networks as torch modules, one readable file each; sizes are read from the weights."""
