"""Operations on schedules.

schedules  operations that people ask for
clock      starts runs when their times come
ports      what both need from the store
"""
