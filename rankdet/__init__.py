"""rankdet: ranking losses for object detection (AP-loss, TPAMI 2020, and its relatives)."""

__version__ = "0.1.0"
