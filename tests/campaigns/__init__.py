"""Campaigns: faults that are caused on purpose, many times, to see that each ends as promised."""
