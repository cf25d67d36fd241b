"""What is decided about schedules. Pure.

timing     when a schedule's times are, and which timings there may be
schedule   what a schedule is, and what becomes of it when its times come
"""
