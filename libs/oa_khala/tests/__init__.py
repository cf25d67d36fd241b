"""Tests of oa_khala: no loop, no socket; values in, values out."""
