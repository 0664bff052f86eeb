"""What a run will need, predicted before it starts, and a run that fits the memory that is free."""

from .plan import Plan, plan

__all__ = ["Plan", "plan"]
