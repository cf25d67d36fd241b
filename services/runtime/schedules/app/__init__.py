"""What happens to schedules.

schedules  what people ask of them
clock      starts runs when their times come
ports      what both need of the store
"""
