# SPDX-License-Identifier: Apache-2.0
"""All families of postures, for train and for test."""

from __future__ import annotations

from bmp_ros.synthetic.everyday_templates import EVERYDAY
from bmp_ros.synthetic.lively_templates import LIVELY
from bmp_ros.synthetic.template import Template

TEMPLATES: tuple[Template, ...] = (*EVERYDAY, *LIVELY)
