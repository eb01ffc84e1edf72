# SPDX-License-Identifier: Apache-2.0
"""Reports as one HTML file that opens offline: what was found, when, how fast, and how well."""
