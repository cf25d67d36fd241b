"""Decisions about schedules. Pure.

timing     when a schedule's times are, and which timings there may be
schedule   what a schedule is, and what happens when its times come
"""
