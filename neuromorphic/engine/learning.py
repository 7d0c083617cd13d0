"""Plastic projections of a built network."""
from typing import Any
class Learning:
    def __init__(self, network: Any, plans: Any, layout: Any, tables: Any, h: float) -> None:
        self.plans = plans
        self.active = False
    def next_change(self, step: int) -> int: return 2**62
    def after(self, step: int, ids: Any) -> None: pass
    def flush(self, step: int) -> None: pass
