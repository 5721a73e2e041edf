# SPDX-License-Identifier: Apache-2.0
"""Outcomes of cases written for people and for CI systems: one module a form. Pure: values in, text out."""
