# SPDX-License-Identifier: Apache-2.0
"""Adapters: any MMDetection detector and any MMPose top-down pose estimator in the loop."""
