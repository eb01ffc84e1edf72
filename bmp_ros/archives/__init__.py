# SPDX-License-Identifier: Apache-2.0
"""Folders of many bags, videos and images, by several processes or machines, file by file."""
