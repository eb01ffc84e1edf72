# SPDX-License-Identifier: Apache-2.0
"""Looking at people over time: the Rerun viewer, and what is read for it from files."""
