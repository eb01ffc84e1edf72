# SPDX-License-Identifier: Apache-2.0
"""The zoo of published weights: catalogue, downloads, checkpoints read without executing them."""
