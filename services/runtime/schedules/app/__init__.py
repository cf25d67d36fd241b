"""Operations on schedules.

schedules   operations that people ask for
clock       starts runs when their times come
spec_check  whether a run of a spec could be created now
ports       what both need from the store
"""
