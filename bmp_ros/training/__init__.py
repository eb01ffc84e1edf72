# SPDX-License-Identifier: Apache-2.0
"""Trains the tiny networks on synthetic people: detector, pose estimator, segmenter."""
