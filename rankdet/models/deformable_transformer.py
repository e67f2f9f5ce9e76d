"""Deformable DETR's encoder and decoder layers."""

from dataclasses import dataclass, fields

from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.deformable_attention import DeformableAttention
from rankdet.models.level_tokens import Tokens


@dataclass(frozen=True)
class Layers:
    """How many layers, and of what: Deformable DETR (ICLR 2021), Sec. 5. UserError for values out of range."""

    encoder: int = 6
    decoder: int = 6  # 2 or more: a detector of one output is not told where in its inputs the images end
    num_heads: int = 8
    num_points: int = 4  # of a head on each level
    ffn_channels: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses settings out of range."""
        for field in fields(self):
            value, least = getattr(self, field.name), {"decoder": 2}.get(field.name, 1)
            if field.name != "dropout" and (type(value) is not int or value < least):
                raise UserError(f"model.layers.{field.name}={value}: must be a whole number from {least} on")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.layers.dropout={self.dropout}: must lie in [0, 1)")


class EncoderLayer(nn.Module):
    """Every token attends to a few points of all levels about its own place (Sec. 4.1); norms come after."""

    def __init__(self, layers: Layers, channels: int, num_levels: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(channels, layers.num_heads, num_levels, layers.num_points)
        self.attended = _Added(channels, layers.dropout)
        self.feed_forward = FeedForward(channels, layers.ffn_channels, layers.dropout)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """x float [B, S, channels], the tokens' features so far; of tokens all else."""
        references = tokens.on_maps(tokens.centres)
        found = self.attention(x + tokens.positions, references, x, tokens.level_sizes, tokens.padding)
        return self.feed_forward(self.attended(x, found))


class DecoderLayer(nn.Module):
    """The queries attend to each other, then each to a few points of all levels about its reference (Sec. 4.1)."""

    def __init__(self, layers: Layers, channels: int, num_levels: int) -> None:
        super().__init__()
        self.among = nn.MultiheadAttention(channels, layers.num_heads, layers.dropout, batch_first=True)
        self.heard = _Added(channels, layers.dropout)
        self.attention = DeformableAttention(channels, layers.num_heads, num_levels, layers.num_points)
        self.attended = _Added(channels, layers.dropout)
        self.feed_forward = FeedForward(channels, layers.ffn_channels, layers.dropout)
        nn.init.xavier_uniform_(self.among.out_proj.weight)

    def forward(self, x: Tensor, names: Tensor, references: Tensor, memory: Tensor, tokens: Tokens) -> Tensor:
        """x, names: float [B, A, channels], what the queries hold so far, and what tells them apart. references:
        [B, A, 2 or 4], in the image. memory: float [B, S, channels], the encoder's last."""
        asked = x + names
        x = self.heard(x, self.among(asked, asked, x, need_weights=False)[0])
        points = tokens.on_maps(references)
        found = self.attention(x + names, points, memory, tokens.level_sizes, tokens.padding)
        return self.feed_forward(self.attended(x, found))


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between, added to their input and normalised."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(hidden, channels)
        )
        self.added = _Added(channels, dropout)
        for layer in (self.layers[0], self.layers[3]):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """float [..., channels] -> the same shape."""
        return self.added(x, self.layers(x))


class _Added(nn.Module):
    """LayerNorm(x + dropout(more))."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(channels)

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        """Both float [..., channels]."""
        return self.norm(x + self.dropout(more))
