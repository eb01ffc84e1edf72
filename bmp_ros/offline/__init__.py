# SPDX-License-Identifier: Apache-2.0
"""The loop over files: images, folders, videos; drawn images, COCO results and GIFs come out."""
